#include "sampling/grammar/lexer.h"

#include "sampling/mutation.h"
#include "specdec/error.h"

namespace specdec::grammar {

Lexer::Lexer(RegexPool& regexes, std::uint64_t emptiness_fuel)
    : regexes_(regexes), emptiness_fuel_(emptiness_fuel) {
  states_.emplace_back();  // kDeadLexer
}

void Lexer::freeze_alphabet() {
  classes_ = regexes_.byte_classes();
  num_classes_ = static_cast<std::uint32_t>(regexes_.num_byte_classes());
}

LexerState Lexer::start(std::span<const std::uint32_t> lexemes, std::span<const RegexRef> regexes) {
  next_.clear();
  for (const std::uint32_t lexeme : lexemes) next_.push_back({lexeme, regexes[lexeme]});
  return intern(next_);
}

LexerState Lexer::state_of(const Progress& progress) {
  next_.assign(1, progress);
  return intern(next_);
}

LexerState Lexer::without(LexerState state, const std::vector<bool>& parts) {
  next_.clear();
  for (std::size_t i = 0; i < parts.size(); ++i)
    if (!parts[i]) next_.push_back(progress_[state][i]);
  return intern(next_);
}

LexerState Lexer::near(LexerState state) {
  next_.clear();
  for (const Progress& part : progress_[state])
    next_.push_back({part.lexeme, regexes_.near(part.rest)});
  return intern(next_);
}

LexerState Lexer::intern(std::span<const Progress> progress) {
  const auto [index, added] = progress_.intern(progress);
  if (!added) return index;
  complete_.clear();
  for (const Progress& part : progress)
    if (regexes_.nullable(part.rest)) complete_.push_back(part.lexeme);
  states_.push_back({kNoTable, lexeme_sets_.intern(complete_).index});
  return index;
}

// Most bytes cannot follow in most states, and that is seen at once.
void Lexer::make_table(LexerState state) {
  states_[state].table = static_cast<std::uint32_t>(transitions_.size());
  transitions_.resize(transitions_.size() + num_classes_, kDeadLexer);
  LexerState* const table = transitions_.data() + states_[state].table;
  ByteSet first;
  for (const Progress& part : progress_[state]) first = first | regexes_.first_bytes(part.rest);
  first_bytes_.push_back(first);
  const auto representatives = regexes_.class_representatives();
  for (std::uint32_t i = 0; i < num_classes_; ++i)
    if (first.contains(representatives[i])) table[i] = kUnknown;
}

LexerState Lexer::compute_step(LexerState state, unsigned char byte) {
  if (state == kDeadLexer) return kDeadLexer;
  if (states_[state].table == kNoTable) {
    make_table(state);
    if (const LexerState next = transitions_[states_[state].table + classes_[byte]];
        next != kUnknown)
      return next;
  }
  next_.clear();
  for (const Progress& part : progress_[state]) {
    const RegexRef rest = regexes_.derivative(part.rest, byte);
    if (rest == regexes_.never()) continue;
    const std::optional<bool> never = regexes_.is_never(rest, emptiness_fuel_);
    if (!never.has_value() && !mutant_active("grammar_undecided_taken"))
      throw Error(ErrorCode::invalid_argument,
                  "grammar: whether an intersection or complement can still match takes more "
                  "steps than the limit allows");
    if (!never.value_or(false)) next_.push_back({part.lexeme, rest});
  }
  const LexerState next = intern(next_);
  transitions_[states_[state].table + classes_[byte]] = next;
  return next;
}

std::size_t Lexer::memory_bytes() const noexcept {
  return states_.capacity() * sizeof(State) + progress_.memory_bytes() +
         lexeme_sets_.memory_bytes() + transitions_.capacity() * sizeof(LexerState) +
         first_bytes_.capacity() * sizeof(ByteSet);
}

}  // namespace specdec::grammar
