#include "sampling/grammar/compiled_grammar.h"

#include <algorithm>

#include "sampling/mutation.h"
#include "specdec/error.h"

namespace specdec::grammar {
namespace {

// A thread that is no thread: the text may end here. It makes accepting part of a state's identity.
constexpr CompiledGrammar::Thread kEndMark{kDeadLexer, 0};

}  // namespace

CompiledGrammar::CompiledGrammar(GrammarSpec spec)
    : spec_(std::make_unique<GrammarSpec>(std::move(spec))),
      productions_(*spec_),
      lexer_(spec_->regexes(), spec_->limits().emptiness_fuel),
      earley_(*spec_, productions_, lexer_) {
  lexer_.freeze_alphabet();
  classes_ = spec_->regexes().byte_classes();
  state_data_.emplace_back();  // dead: no threads
  next_.clear();
  const Row row = earley_.start();
  if (earley_.lexer_start(row) != kDeadLexer) next_.push_back({earley_.lexer_start(row), row});
  start_ = intern(next_, earley_.accepts(row));
}

GrammarState CompiledGrammar::intern(std::vector<Thread>& threads, bool accepts) {
  const bool over = threads.empty();
  if (accepts) threads.push_back(kEndMark);
  std::sort(threads.begin(), threads.end());
  threads.erase(std::unique(threads.begin(), threads.end()), threads.end());
  const auto [index, added] = threads_.intern(threads);
  if (added) {
    state_data_.push_back({accepts, over});
    check_memory();
  }
  return {index};
}

void CompiledGrammar::check_memory() {
  if ((state_data_.size() & 63) == 0 && memory_bytes() > spec_->limits().matcher_bytes)
    throw Error(ErrorCode::invalid_argument,
                "grammar: following the text takes more memory than the limit allows");
}

GrammarState CompiledGrammar::advance(GrammarState state, unsigned char byte) {
  const std::uint32_t known = transitions_.find(state.id, classes_[byte]);
  if (known != PairTable::kNone) return {known};

  const RegexPool::Budget budget = this->budget();
  next_.clear();
  rows_.clear();
  const std::size_t count = threads_[state.id].size();
  spec_->regexes().charge(count);
  for (std::size_t i = 0; i < count; ++i) {
    const Thread thread = threads_[state.id][i];
    const LexerState lexer = lexer_.step(thread.lexer, byte);
    if (lexer == kDeadLexer) continue;
    next_.push_back({lexer, thread.row});
    const LexemeSet complete = lexer_.complete(lexer);
    if (complete != 0) rows_.push_back(earley_.scan(thread.row, complete));
  }
  bool accepts = false;
  if (!rows_.empty()) {
    const Row row = rows_.size() == 1 || mutant_active("grammar_rows_not_merged")
                        ? rows_[0]
                        : earley_.merge(rows_);
    if (earley_.lexer_start(row) != kDeadLexer) next_.push_back({earley_.lexer_start(row), row});
    accepts = earley_.accepts(row);
  }
  const GrammarState next = intern(next_, accepts);
  transitions_.insert(state.id, classes_[byte], next.id);
  return next;
}

GrammarState CompiledGrammar::advance(GrammarState state, std::string_view bytes) {
  for (const char byte : bytes) {
    if (is_dead(state)) break;
    state = advance(state, static_cast<unsigned char>(byte));
  }
  return state;
}

GrammarState CompiledGrammar::after(Row row, LexemeSet set) {
  const std::uint32_t known = after_.find(row, set);
  if (known != PairTable::kNone) return {known};
  const Row next = earley_.scan(row, set);
  next_.clear();
  if (earley_.lexer_start(next) != kDeadLexer) next_.push_back({earley_.lexer_start(next), next});
  const GrammarState state = intern(next_, earley_.accepts(next));
  after_.insert(row, set, state.id);
  return state;
}

template <class Visit>
bool CompiledGrammar::any_live_byte(GrammarState state, Visit visit) {
  const RegexPool::Budget budget = this->budget();
  for (std::size_t i = 0; i < threads_[state.id].size(); ++i) {
    const LexerState lexer = threads_[state.id][i].lexer;
    const ByteSet first = lexer_.first_bytes(lexer);
    for (unsigned byte = 0; byte < 256; ++byte)
      if (first.contains(byte) &&
          lexer_.step(lexer, static_cast<unsigned char>(byte)) != kDeadLexer && visit(byte))
        return true;
  }
  return false;
}

bool CompiledGrammar::can_continue(GrammarState state) {
  return any_live_byte(state, [](unsigned) { return true; });
}

ByteSet CompiledGrammar::next_bytes(GrammarState state) {
  ByteSet live;
  any_live_byte(state, [&](unsigned byte) {
    live.insert(byte);
    return false;
  });
  return live;
}

std::string CompiledGrammar::forced_text(GrammarState state, std::size_t max_bytes) {
  std::string text;
  while (text.size() < max_bytes && (!accepts(state) || mutant_active("grammar_forced_past_end"))) {
    const ByteSet next = next_bytes(state);
    if (next.size() != 1) break;
    const auto byte = static_cast<unsigned char>(next.first());
    text.push_back(static_cast<char>(byte));
    state = advance(state, byte);
  }
  return text;
}

std::string CompiledGrammar::describe_next(GrammarState state) {
  const ByteSet next = next_bytes(state);
  std::string text;
  const auto add = [&](const std::string& what) { text += (text.empty() ? "" : " ") + what; };
  const auto contains = [&](const ByteSet& set) { return (next & set) == set; };
  ByteSet named;
  const auto group = [&](const ByteSet& set, const char* name) {
    if (!contains(set)) return;
    add(name);
    named = named | set;
  };
  group(ByteSet::range('0', '9'), "a digit");
  group(ByteSet::range('a', 'z') | ByteSet::range('A', 'Z'), "a letter");
  group(ByteSet::range(0xC3, 0xDF), "a character beyond ASCII");
  int shown = 0;
  for (unsigned byte = 0; byte < 256; ++byte) {
    if (!next.contains(byte) || named.contains(byte)) continue;
    if (++shown > 16) {
      add("...");
      break;
    }
    if (byte == '\n')
      add("a newline");
    else if (byte == '\t')
      add("a tab");
    else if (byte >= 0x20 && byte < 0x7F)
      add(std::string("'") + static_cast<char>(byte) + "'");
    else
      add("byte " + std::to_string(byte));
  }
  if (accepts(state)) add(text.empty() ? "the end" : "or the end");
  return text;
}

std::size_t CompiledGrammar::memory_bytes() const noexcept {
  return lexer_.memory_bytes() + earley_.memory_bytes() + threads_.memory_bytes() +
         state_data_.capacity() * sizeof(StateData) + transitions_.memory_bytes() +
         after_.memory_bytes() + spec_->regexes().memory_bytes();
}

}  // namespace specdec::grammar
