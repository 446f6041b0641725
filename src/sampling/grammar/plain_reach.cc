#include "sampling/grammar/plain_reach.h"

#include <algorithm>

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

}  // namespace

bool PlainReach::may_take_plain(LexerState state) const {
  return !((kAscii | kLeads) & lexer_.first_bytes(state)).empty();
}

PlainReach::Reach PlainReach::of(LexerState state, std::size_t limit) {
  Reach reach;
  while (reach.chars < limit) {
    const LexerState after = next(state);
    if (after == kDeadLexer) {
      reach.closed = !may_take_plain(state);
      return reach;
    }
    if (after == state) return {kEndless, false};
    state = after;
    ++reach.chars;
  }
  return reach;
}

LexerState PlainReach::next(LexerState state) {
  if (state < next_.size() && next_[state] != kUnknown) return next_[state];
  const LexerState computed = compute_next(state);
  if (next_.size() <= state)
    next_.resize(std::max<std::size_t>(state + 1, lexer_.num_states()), kUnknown);
  return next_[state] = computed;
}

LexerState PlainReach::compute_next(LexerState state) {
  const ByteSet needed = kAscii | kLeads;
  if ((lexer_.first_bytes(state) & needed) != needed) return kDeadLexer;
  const LexerState after = lexer_.step(state, ' ');
  if (after == kDeadLexer || lexer_.complete(after) != 0) return kDeadLexer;
  for (unsigned byte = 0x20; byte < 0x7F; ++byte)
    if (kAscii.contains(byte) && lexer_.step(state, static_cast<unsigned char>(byte)) != after)
      return kDeadLexer;

  std::vector<LexerState> open, reached;
  for (const Shape& shape : kShapes) {
    open.assign(1, state);
    for (int i = 0; i < shape.length; ++i) {
      reached.clear();
      for (const LexerState from : open)
        for (unsigned byte = shape.bounds[i][0]; byte <= shape.bounds[i][1]; ++byte) {
          const LexerState to = lexer_.step(from, static_cast<unsigned char>(byte));
          const bool last = i + 1 == shape.length;
          if (to == kDeadLexer || (last ? to != after : lexer_.complete(to) != 0))
            return kDeadLexer;
          if (std::find(reached.begin(), reached.end(), to) == reached.end()) reached.push_back(to);
        }
      open.swap(reached);
    }
  }
  return after;
}

}  // namespace specdec::grammar
