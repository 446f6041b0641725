#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <vector>

#include "sampling/grammar/flat_table.h"
#include "sampling/grammar/interner.h"
#include "sampling/grammar/regex_pool.h"

namespace specdec::grammar {

/// A set of lexemes in progress: what of each is still to come. An index into the Lexer.
using LexerState = std::uint32_t;
inline constexpr LexerState kDeadLexer = 0;  ///< no lexeme left

/// A sorted set of lexemes; 0 is the empty one.
using LexemeSet = std::uint32_t;

/// Steps sets of lexemes over bytes: a deterministic automaton that is made as it is visited.
class Lexer {
 public:
  struct Progress {
    std::uint32_t lexeme = 0;
    RegexRef rest;
    bool operator==(const Progress&) const = default;
  };

  /// `emptiness_fuel`: what deciding whether a rest can still match may cost; past it, step()
  /// throws Error(invalid_argument).
  Lexer(RegexPool& regexes, std::uint64_t emptiness_fuel);

  /// At the beginning of any one of `lexemes`, ascending; `regexes` are theirs, by lexeme.
  LexerState start(std::span<const std::uint32_t> lexemes, std::span<const RegexRef> regexes);
  LexerState step(LexerState state, unsigned char byte) {
    const std::uint32_t table = states_[state].table;
    if (table != kNoTable) {
      const LexerState next = transitions_[table + classes_[byte]];
      if (next != kUnknown) return next;
    }
    return compute_step(state, byte);
  }
  /// The lexemes that are complete here, if at least a byte was read since start().
  LexemeSet complete(LexerState state) const noexcept { return states_[state].complete; }
  std::span<const std::uint32_t> lexemes_of(LexemeSet set) const noexcept {
    return lexeme_sets_[set];
  }
  std::span<const Progress> progress(LexerState state) const noexcept { return progress_[state]; }
  /// The state with this lexeme alone.
  LexerState state_of(const Progress& progress);
  /// The state without the marked ones of its lexemes. parts: as many as progress(state)
  LexerState without(LexerState state, const std::vector<bool>& parts);
  /// A state that no text of at most RegexPool::kNearBytes bytes tells from this one.
  LexerState near(LexerState state);
  /// Bytes that may continue it; some of them may turn out not to.
  const ByteSet& first_bytes(LexerState state) {
    if (states_[state].table == kNoTable) make_table(state);
    return first_bytes_[states_[state].table / num_classes_];
  }

  RegexPool& regexes() noexcept { return regexes_; }
  std::size_t num_states() const noexcept { return states_.size(); }
  std::size_t memory_bytes() const noexcept;
  /// The alphabet must be complete before the first step: no new byte classes after this.
  void freeze_alphabet();

 private:
  static constexpr LexerState kUnknown = 0xFFFFFFFF;
  static constexpr std::uint32_t kNoTable = 0xFFFFFFFF;
  struct State {
    std::uint32_t table = kNoTable;  // in transitions_
    LexemeSet complete = 0;
  };

  void make_table(LexerState state);
  LexerState compute_step(LexerState state, unsigned char byte);
  LexerState intern(std::span<const Progress> progress);

  RegexPool& regexes_;
  std::uint64_t emptiness_fuel_;
  std::array<std::uint8_t, 256> classes_{};
  std::uint32_t num_classes_ = 0;
  std::vector<State> states_;
  ListInterner<Progress> progress_;
  ListInterner<std::uint32_t> lexeme_sets_;
  std::vector<LexerState> transitions_;  // [states with a table, classes]
  std::vector<ByteSet> first_bytes_;     // [states with a table]
  std::vector<Progress> next_;
  std::vector<std::uint32_t> complete_;
};

}  // namespace specdec::grammar
