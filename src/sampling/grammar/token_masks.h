#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "sampling/grammar/compiled_grammar.h"
#include "sampling/grammar/interner.h"
#include "sampling/grammar/plain_reach.h"
#include "sampling/grammar/token_collector.h"
#include "sampling/grammar/token_index.h"
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
  TokenMasks(CompiledGrammar& grammar, const TokenIndex& index,
             std::span<const TokenId> end_tokens);

  /// Bit t % 64 of word t / 64 is set for every token t that may follow, cleared for all others.
  /// [index.words()]
  void fill(GrammarState state, std::span<std::uint64_t> bits);

  std::size_t num_sets() const noexcept { return sets_.size(); }
  std::size_t memory_bytes() const noexcept;

 private:
  /// A place in a trie where a lexeme is complete and tokens go on.
  struct Crossing {
    std::uint32_t node = 0;
    LexemeSet complete = 0;
    const TokenTrie* trie = nullptr;
  };
  struct Inside {
    std::uint32_t set = 0;
    std::uint32_t begin = 0;  // in crossings_
    std::uint32_t end = 0;
  };
  struct Open {
    std::uint32_t end = 0;    // of the subtree
    std::uint32_t state = 0;  // before the bytes of its children
  };

  const Inside& inside(LexerState lexer);
  std::uint32_t across(LexerState lexer, Row row);
  void collect_plain(LexerState lexer);
  void collect(const TokenTrie& trie, LexerState lexer);
  void collect_below(const TokenTrie& trie, std::uint32_t node, LexerState lexer);

  CompiledGrammar& grammar_;
  const TokenIndex& index_;
  std::vector<TokenId> end_tokens_;
  PlainReach plain_reach_;
  TokenSets sets_;
  TokenCollector found_;
  std::vector<std::uint32_t> inside_of_;  // [lexer states], grown on demand
  std::vector<Inside> insides_;
  std::vector<Crossing> crossings_;
  PairTable across_;  // lexer state, row -> set
  std::vector<Open> stack_;
  std::vector<CompiledGrammar::Thread> threads_;
};

}  // namespace specdec::grammar
