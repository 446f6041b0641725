#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <unordered_map>
#include <vector>

#include "sampling/grammar/byte_kinds.h"
#include "sampling/grammar/lexer.h"

namespace specdec::grammar {

/// How far a lexer state takes plain characters (token_index.h), whichever they are, without a
/// lexeme's end in between: the inside of a JSON string takes any number of them, also where it has
/// to contain something sooner or later. Checked on the automaton, over all of UTF-8. And the same
/// for characters of some kinds, which is what patterns and formats take.
class PlainReach {
 public:
  explicit PlainReach(Lexer& lexer) : lexer_(lexer) {}

  static constexpr std::size_t kEndless = ~std::size_t{0};
  struct Reach {
    std::size_t chars = 0;  ///< any `chars` plain characters may follow, or kEndless
    bool closed = false;    ///< and no plain character after them
  };
  /// Looks no further than `limit` characters; a reach of `limit` may be longer.
  Reach of(LexerState state, std::size_t limit);
  bool endless(LexerState state);
  /// endless(), where it can be told from the expression alone.
  bool surely_endless(LexerState state) { return counted(state) == kEndless; }
  /// Any text of at most `length` bytes of these kinds may follow; beyond ASCII, whole characters.
  bool takes(LexerState state, ByteKinds kinds, std::size_t length);
  struct Kinds {
    ByteKinds taken = 0;     // any text of at most `length` bytes of these may follow
    ByteKinds leaving = 0;   // the first byte of another kind, in this lexeme or beyond it
    std::size_t length = 0;  // no text of the kinds `taken` that is longer may follow, if it is
                             // less than what was asked for
  };
  /// What of texts of at most `length` bytes can be told by kinds.
  Kinds kinds(LexerState state, std::size_t length);
  std::size_t memory_bytes() const noexcept {
    return entries_.capacity() * sizeof(Entry) + runs_.capacity() * sizeof(Run) +
           successors_.capacity() * sizeof(LexerState);
  }

 private:
  enum class Known : std::uint8_t { unknown, no, yes };
  struct Entry {
    Known any_char = Known::unknown;  // any plain character may follow: there are successors
    Known endless = Known::unknown;
    std::uint8_t count = 0;   // of successors
    std::uint32_t begin = 0;  // in successors_
  };

  /// What of some kinds may follow: any text of at most `length` bytes of the kinds `taken`.
  struct Run {
    bool made = false;
    bool closed = false;  // and no longer one
    ByteKinds known = 0;
    ByteKinds taken = 0;
    ByteKinds leaving = 0;  // the first byte that is not of these kinds is of one of those
    std::size_t length = kEndless;
  };

  /// The states after one plain character; none where some plain character may not follow, or too
  /// many.
  std::span<const LexerState> successors(LexerState state);
  bool find_successors(LexerState state);
  /// How many times a repeat of one character stands at the beginning, by its counter: no state
  /// need be visited.
  std::optional<std::size_t> counted(LexerState state);
  bool begins_with_any_text(LexerState state);
  bool is_any_char(RegexRef body);
  template <class State, class Take>
  bool each_plain_char(State from, Take step, std::vector<State>& reached) const;
  template <class State, class Take>
  bool each_byte(const std::vector<State>& from, const ByteSet& bytes, bool end, Take step,
                 std::vector<State>& reached) const;
  template <class State, class Take>
  bool each_char_beyond_ascii(State from, Take step, std::vector<State>& reached) const;
  Run& run(LexerState state);
  Run new_run(LexerState state) const;
  bool stays(LexerState state, int kind);
  bool may_take_plain(LexerState state) const;
  Entry& entry(LexerState state);

  Lexer& lexer_;
  std::vector<Entry> entries_;  // [lexer states], grown on demand
  std::vector<Run> runs_;       // [lexer states], grown on demand
  std::vector<LexerState> successors_;
  std::vector<LexerState> found_;
  std::unordered_map<std::uint32_t, bool> any_char_;  // bodies of repeats, by id
};

}  // namespace specdec::grammar
