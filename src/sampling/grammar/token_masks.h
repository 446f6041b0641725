#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "sampling/grammar/compiled_grammar.h"
#include "sampling/grammar/interner.h"
#include "sampling/grammar/token_trie.h"
#include "specdec/types.h"

namespace specdec::grammar {

/// Which tokens may come next, for the states of one grammar under one vocabulary.
///
/// A state's mask is the union over its threads of two parts: tokens that stay inside the lexeme in
/// progress, which depend on the lexer alone, and tokens that finish it and go on, which depend on
/// its row as well. Both are made once and kept; a state seen before costs a union of bit rows.
/// Not thread-safe; throws what CompiledGrammar throws.
class TokenMasks {
 public:
  /// Both outlive this. `end_tokens` are allowed where the text may end, and nowhere else.
  TokenMasks(CompiledGrammar& grammar, const TokenTrie& trie, int vocab_size,
             std::span<const TokenId> end_tokens);

  /// Bit t % 64 of word t / 64 is set for every token t that may follow, cleared for all others.
  /// [words_for(vocab_size)]
  void fill(GrammarState state, std::span<std::uint64_t> bits);
  static std::size_t words_for(int vocab_size) noexcept {
    return (static_cast<std::size_t>(vocab_size) + 63) / 64;
  }

  std::size_t num_parts() const noexcept { return parts_.size(); }
  std::size_t memory_bytes() const noexcept;

 private:
  /// A set of tokens: a list while that is smaller than the bits.
  struct Part {
    bool dense = false;
    std::uint32_t begin = 0;  // in tokens_ or words_
    std::uint32_t count = 0;  // tokens; of a dense part: words
  };
  /// A place in the trie where a lexeme is complete and the token goes on.
  struct Crossing {
    std::uint32_t node = 0;
    LexemeSet complete = 0;
  };
  struct Inside {
    std::uint32_t part = 0;
    std::uint32_t begin = 0;  // in crossings_
    std::uint32_t end = 0;
  };

  const Inside& inside(LexerState lexer);
  std::uint32_t across(LexerState lexer, Row row);
  void allow(std::span<const TokenId> tokens) noexcept {
    for (const TokenId token : tokens)
      scratch_[static_cast<std::size_t>(token) >> 6] |= 1ull << (token & 63);
  }
  std::uint32_t take_scratch();
  void add_part(std::uint32_t part, std::span<std::uint64_t> bits) const noexcept;

  CompiledGrammar& grammar_;
  const TokenTrie& trie_;
  std::vector<TokenId> end_tokens_;
  std::vector<Part> parts_;
  std::vector<std::uint32_t> tokens_;
  std::vector<std::uint64_t> words_;
  FlatTable part_table_;
  std::vector<std::uint64_t> part_hashes_;
  std::vector<std::uint32_t> inside_of_;  // [lexer states], grown on demand
  std::vector<Inside> insides_;
  std::vector<Crossing> crossings_;
  PairTable across_;  // lexer state, row -> part
  std::vector<std::uint64_t> scratch_;

  struct Open {
    std::uint32_t end = 0;    // of the subtree
    std::uint32_t state = 0;  // before the bytes of the subtree's children
  };
  std::vector<Open> stack_;
};

}  // namespace specdec::grammar
