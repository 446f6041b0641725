#pragma once

#include <cstdint>
#include <vector>

#include "sampling/grammar/lexer.h"

namespace specdec::grammar {

/// How far a lexer state takes plain characters (token_index.h), whichever they are, without a
/// lexeme's end in between: the inside of a JSON string takes any number of them.
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
  bool endless(LexerState state) { return next(state) == state; }
  /// Some plain character may follow; false is certain.
  bool may_take_plain(LexerState state) const;
  std::size_t memory_bytes() const noexcept { return next_.capacity() * sizeof(LexerState); }

 private:
  static constexpr LexerState kUnknown = 0xFFFFFFFF;

  /// The state after one plain character, if it is one state whichever the character.
  LexerState next(LexerState state);
  LexerState compute_next(LexerState state);

  Lexer& lexer_;
  std::vector<LexerState> next_;  // [lexer states]; kDeadLexer: characters differ
};

}  // namespace specdec::grammar
