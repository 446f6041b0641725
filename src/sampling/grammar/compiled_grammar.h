#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "sampling/grammar/earley.h"
#include "sampling/grammar/grammar_spec.h"
#include "sampling/grammar/interner.h"
#include "sampling/grammar/lexer.h"
#include "sampling/grammar/productions.h"

namespace specdec::grammar {

/// Where a text stands in its grammar: the lexemes in progress and the rows they began in. A value;
/// forking is copying. Belongs to the CompiledGrammar that gave it.
struct GrammarState {
  std::uint32_t id = 0;
  bool operator==(const GrammarState&) const = default;
};

/// A GrammarSpec ready to be followed, byte by byte. Its states are interned: texts between which
/// the grammar will never make a difference mostly have the same state.
///
/// Everything is made as it is first visited, so this is not thread-safe. Members that visit throw
/// Error(invalid_argument) when a limit of the grammar is reached; states stay valid.
class CompiledGrammar {
 public:
  /// A lexeme in progress (all that may be, in one lexer state) and the row where it began.
  struct Thread {
    LexerState lexer = kDeadLexer;
    Row row = 0;
    auto operator<=>(const Thread&) const = default;
  };

  /// Throws Error(invalid_argument) when no text matches, or a limit is reached.
  explicit CompiledGrammar(GrammarSpec spec);

  static constexpr GrammarState dead() noexcept { return {0}; }
  GrammarState start() const noexcept { return start_; }
  /// dead() when no text of the grammar goes on like this.
  GrammarState advance(GrammarState state, unsigned char byte);
  GrammarState advance(GrammarState state, std::string_view bytes);
  bool is_dead(GrammarState state) const noexcept { return state.id == 0; }
  /// The text may end here.
  bool accepts(GrammarState state) const noexcept { return state_data_[state.id].accepts; }
  /// The text cannot go on, certainly; it may have no way to go on all the same.
  bool is_over(GrammarState state) const noexcept { return state_data_[state.id].over; }
  /// Some byte may follow.
  bool can_continue(GrammarState state);
  /// The bytes that may follow.
  ByteSet next_bytes(GrammarState state);
  /// The text that must follow, up to `max_bytes`; empty where there is a choice, ending included.
  std::string forced_text(GrammarState state, std::size_t max_bytes);
  bool matches(std::string_view text) { return accepts(advance(start_, text)); }
  /// For a message: what may follow, like "one of '\"' '}' or a digit".
  std::string describe_next(GrammarState state);

  // For token masks.
  std::span<const Thread> threads(GrammarState state) const noexcept { return threads_[state.id]; }
  Lexer& lexer() noexcept { return lexer_; }
  /// Bounds the work that follows, as one piece.
  RegexPool::Budget budget() { return spec_->budget(); }
  /// After one of the lexemes in `set` that began in `row`.
  GrammarState after(Row row, LexemeSet set);

  std::size_t num_states() const noexcept { return state_data_.size(); }
  std::size_t memory_bytes() const noexcept;
  GrammarSpec& spec() noexcept { return *spec_; }

 private:
  /// Calls visit(byte) for the bytes that can follow, until it says true; whether it did.
  template <class Visit>
  bool any_live_byte(GrammarState state, Visit visit);

  static constexpr std::uint32_t kUnknownByte = 0xFFFF;
  struct StateData {
    bool accepts = false;
    bool over = true;  // no thread
  };

  GrammarState intern(std::vector<Thread>& threads, bool accepts);
  void check_memory();

  std::unique_ptr<GrammarSpec> spec_;
  Productions productions_;
  Lexer lexer_;
  Earley earley_;
  ListInterner<Thread> threads_;
  std::vector<StateData> state_data_;
  PairTable transitions_;  // state, byte class -> state
  PairTable after_;        // row, lexeme set -> state
  std::array<std::uint8_t, 256> classes_{};
  GrammarState start_;
  std::vector<Thread> next_;
  std::vector<Row> rows_;
};

}  // namespace specdec::grammar
