#include "sampling/grammar/plain_reach.h"

#include <algorithm>
#include <bit>

#include "sampling/mutation.h"

namespace specdec::grammar {
namespace {

constexpr ByteSet plain_ascii() {
  ByteSet set = ByteSet::range(0x20, 0x7E);
  set.words[0] &= ~(1ull << '"');
  set.words[1] &= ~(1ull << ('\\' - 64));
  return set;
}
constexpr ByteSet kAscii = plain_ascii();
constexpr ByteSet kLeads = ByteSet::range(0xC2, 0xF4);

// The shapes of UTF-8 beyond ASCII (Unicode, table 3-7).
struct Shape {
  int length;
  unsigned char bounds[4][2];
};
constexpr Shape kShapes[] = {
    {2, {{0xC2, 0xDF}, {0x80, 0xBF}}},
    {3, {{0xE0, 0xE0}, {0xA0, 0xBF}, {0x80, 0xBF}}},
    {3, {{0xE1, 0xEC}, {0x80, 0xBF}, {0x80, 0xBF}}},
    {3, {{0xED, 0xED}, {0x80, 0x9F}, {0x80, 0xBF}}},
    {3, {{0xEE, 0xEF}, {0x80, 0xBF}, {0x80, 0xBF}}},
    {4, {{0xF0, 0xF0}, {0x90, 0xBF}, {0x80, 0xBF}, {0x80, 0xBF}}},
    {4, {{0xF1, 0xF3}, {0x80, 0xBF}, {0x80, 0xBF}, {0x80, 0xBF}}},
    {4, {{0xF4, 0xF4}, {0x80, 0x8F}, {0x80, 0xBF}, {0x80, 0xBF}}},
};

constexpr std::size_t kMaxSuccessors = 8;
constexpr std::size_t kMaxClosure = 6;  // states looked at to know that plain text never ends

void add_new(std::vector<LexerState>& states, LexerState state) {
  if (std::find(states.begin(), states.end(), state) == states.end()) states.push_back(state);
}

}  // namespace

PlainReach::Entry& PlainReach::entry(LexerState state) {
  if (entries_.size() <= state)
    entries_.resize(std::max<std::size_t>(state + 1, lexer_.num_states()));
  return entries_[state];
}

bool PlainReach::may_take_plain(LexerState state) const {
  return !((kAscii | kLeads) & lexer_.first_bytes(state)).empty();
}

PlainReach::Reach PlainReach::of(LexerState state, std::size_t limit) {
  if (const auto count = counted(state)) {
    if (*count == kEndless) return {kEndless, false};
    if (*count > 0) return {std::min(*count, limit), *count <= limit};
  }
  if (endless(state)) return {kEndless, false};
  return {0, !may_take_plain(state)};
}

std::optional<std::size_t> PlainReach::counted(LexerState state) {
  if (lexer_.progress(state).size() != 1) return std::nullopt;
  const RegexPool& regexes = lexer_.regexes();
  const auto repeat = regexes.leading_repeat(lexer_.progress(state)[0].rest);
  if (!repeat || regexes.nullable(repeat->rest) || !is_any_char(repeat->body)) return std::nullopt;
  if (!((kAscii | kLeads) & regexes.first_bytes(repeat->rest)).empty()) return std::nullopt;
  return repeat->max ? std::size_t{*repeat->max} : kEndless;
}

// A pattern that is not anchored goes on with any text, then with what it looks for.
bool PlainReach::begins_with_any_text(LexerState state) {
  const RegexPool& regexes = lexer_.regexes();
  for (std::size_t i = 0; i < lexer_.progress(state).size(); ++i)
    if (regexes.any_option(lexer_.progress(state)[i].rest, [&](RegexRef option) {
          const auto repeat = regexes.leading_repeat(option);
          return repeat && !repeat->max && is_any_char(repeat->body);
        }))
      return true;
  return false;
}

bool PlainReach::is_any_char(RegexRef body) {
  const auto [entry, added] = any_char_.try_emplace(body.id, false);
  if (!added) return entry->second;
  RegexPool& regexes = lexer_.regexes();
  std::vector<RegexRef> reached;
  const auto step = [&](RegexRef from, unsigned char byte, bool last) -> std::optional<RegexRef> {
    const RegexRef to = regexes.derivative(from, byte);
    if (last ? to != regexes.empty() : to == regexes.never() || regexes.nullable(to))
      return std::nullopt;
    return to;
  };
  return any_char_[body.id] = each_plain_char(body, step, reached);
}

bool PlainReach::endless(LexerState state) {
  if (const Known known = entry(state).endless; known != Known::unknown) return known == Known::yes;
  if (const auto count = counted(state)) {
    entry(state).endless = *count == kEndless ? Known::yes : Known::no;
    return *count == kEndless;
  }
  if (begins_with_any_text(state)) {
    entry(state).endless = Known::yes;
    return true;
  }
  std::vector<LexerState> closure{state};
  bool closed = true;
  for (std::size_t i = 0; i < closure.size() && closed; ++i) {
    if (entry(closure[i]).endless == Known::yes) continue;
    const auto after = successors(closure[i]);
    closed = !after.empty() && entry(closure[i]).endless != Known::no;
    for (const LexerState to : after) add_new(closure, to);
    closed = closed && closure.size() <= kMaxClosure;
  }
  if (closed)
    for (const LexerState reached : closure) entry(reached).endless = Known::yes;
  else
    entry(state).endless = Known::no;
  return closed;
}

std::span<const LexerState> PlainReach::successors(LexerState state) {
  if (entry(state).any_char == Known::unknown) {
    const bool found = find_successors(state);
    Entry& made = entry(state);
    made.any_char = found ? Known::yes : Known::no;
    made.begin = static_cast<std::uint32_t>(successors_.size());
    if (found) {
      made.count = static_cast<std::uint8_t>(found_.size());
      successors_.insert(successors_.end(), found_.begin(), found_.end());
    }
  }
  const Entry& known = entry(state);
  return {successors_.data() + known.begin, known.count};
}

// Sets found_ to the successors.
bool PlainReach::find_successors(LexerState state) {
  found_.clear();
  const ByteSet needed = kAscii | kLeads;
  if ((lexer_.first_bytes(state) & needed) != needed) return false;
  const auto step = [&](LexerState from, unsigned char byte, bool) -> std::optional<LexerState> {
    const LexerState to = lexer_.step(from, byte);
    if (to == kDeadLexer || lexer_.complete(to) != 0) return std::nullopt;
    return to;
  };
  return each_plain_char(state, step, found_);
}

// Takes each of the bytes, one of each class for all of it. False as soon as one cannot be taken or
// there are too many states.
template <class State, class Take>
bool PlainReach::each_byte(const std::vector<State>& from, const ByteSet& bytes, bool end,
                           Take step, std::vector<State>& reached) const {
  const auto& classes = lexer_.regexes().byte_classes();
  ByteSet seen;  // classes
  return bytes.all_of([&](unsigned char byte) {
    if (seen.contains(classes[byte])) return true;
    seen.insert(classes[byte]);
    for (const State& state : from) {
      const std::optional<State> to = step(state, byte, end);
      if (!to) return false;
      if (std::find(reached.begin(), reached.end(), *to) == reached.end()) reached.push_back(*to);
      if (reached.size() > kMaxSuccessors) return false;
    }
    return true;
  });
}

template <class State, class Take>
bool PlainReach::each_char_beyond_ascii(State from, Take step, std::vector<State>& reached) const {
  std::vector<State> open, next;
  for (const Shape& shape : kShapes) {
    open.assign(1, from);
    for (int i = 0; i < shape.length; ++i) {
      const bool end = i + 1 == shape.length;
      next.clear();
      const ByteSet bytes = ByteSet::range(shape.bounds[i][0], shape.bounds[i][1]);
      if (!each_byte(open, bytes, end, step, end ? reached : next)) return false;
      open.swap(next);
    }
  }
  return true;
}

template <class State, class Take>
bool PlainReach::each_plain_char(State from, Take step, std::vector<State>& reached) const {
  return each_byte(std::vector{from}, kAscii, true, step, reached) &&
         each_char_beyond_ascii(from, step, reached);
}

PlainReach::Run& PlainReach::run(LexerState state) {
  if (runs_.size() <= state) runs_.resize(std::max<std::size_t>(state + 1, lexer_.num_states()));
  if (!runs_[state].made) runs_[state] = new_run(state);
  return runs_[state];
}

bool PlainReach::takes(LexerState state, ByteKinds kinds, std::size_t length) {
  Run& run = this->run(state);  // stays() makes states, not runs
  if (length > run.length && !mutant_active("grammar_run_without_end")) return false;
  if ((kinds & run.known & ~run.taken) != 0) return false;
  for (ByteKinds rest = kinds & ~run.known; rest != 0; rest &= rest - 1) {
    run.known |= rest & -rest;
    if (!stays(state, std::countr_zero(rest)) && !mutant_active("grammar_kinds_not_asked"))
      return false;
    run.taken |= rest & -rest;
  }
  return true;
}

PlainReach::Kinds PlainReach::kinds(LexerState state, std::size_t length) {
  const Run& run = this->run(state);
  if (run.length < length && !run.closed) return {};
  Kinds found{.leaving = ~ByteKinds{0}, .length = std::min(run.length, length)};
  const ByteSet first = lexer_.first_bytes(state);
  ByteKinds asked = kinds_within(first) & ~kBeyondAscii;
  if ((first & kLeads) == kLeads) asked |= kBeyondAscii;
  for (; asked != 0; asked &= asked - 1)
    if (takes(state, asked & -asked, found.length)) found.taken |= asked & -asked;
  if (lexer_.complete(state) == 0 || mutant_active("grammar_kinds_end_ignored"))
    found.leaving = (this->run(state).leaving | kinds_meeting(first)) & ~found.taken;
  return found;
}

// A repeat of one byte says by its counter what it takes; elsewhere it is asked kind by kind.
PlainReach::Run PlainReach::new_run(LexerState state) const {
  Run run{.made = true};
  if (lexer_.progress(state).size() != 1) return run;
  const RegexPool& regexes = lexer_.regexes();
  const auto repeat = regexes.leading_repeat(lexer_.progress(state)[0].rest);
  const std::optional<ByteSet> set = repeat ? regexes.byte_set(repeat->body) : std::nullopt;
  if (!set) return run;
  run.known = ~ByteKinds{0};
  run.taken = kinds_within(*set) & ~kBeyondAscii;
  const ByteSet behind = regexes.first_bytes(repeat->rest);
  // Where a lexeme may be over, the next one's bytes follow.
  run.leaving = mutant_active("grammar_kinds_behind_ignored") ? 0
                : regexes.nullable(repeat->rest)              ? ~ByteKinds{0}
                                                              : kinds_meeting(behind);
  if (repeat->max) run.length = *repeat->max;
  run.closed = !regexes.nullable(repeat->rest) && (behind & *set).empty();
  return run;
}

// Every byte of the kind leads back to the state.
bool PlainReach::stays(LexerState state, int kind) {
  found_.clear();
  const auto step = [&](LexerState from, unsigned char byte, bool) -> std::optional<LexerState> {
    const LexerState to = lexer_.step(from, byte);
    return to == kDeadLexer ? std::nullopt : std::optional(to);
  };
  const bool taken = kind == kKindBeyondAscii
                         ? each_char_beyond_ascii(state, step, found_)
                         : each_byte({state}, bytes_of(kind), true, step, found_);
  return taken && found_.size() == 1 && found_[0] == state;
}

}  // namespace specdec::grammar
