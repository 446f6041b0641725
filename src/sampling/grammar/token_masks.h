#pragma once

#include <cstdint>
#include <span>
#include <string_view>
#include <unordered_map>
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
/// Lexemes that begin with a text, the members' names of an object above all, and such that take
/// any plain text are looked at one by one: no state of the lexer that joins them need be made.
/// Not thread-safe; throws what CompiledGrammar throws.
class TokenMasks {
 public:
  /// Both outlive this. `end_tokens` are allowed where the text may end, and nowhere else.
  TokenMasks(CompiledGrammar& grammar, const TokenIndex& index,
             std::span<const TokenId> end_tokens);

  /// What was found out is forgotten once it takes a quarter of the grammar's limit: masks are
  /// large, and a text of many states would have one for each.
  ///
  /// Bit t % 64 of word t / 64 is set for every token t that may follow, cleared for all others.
  /// [index.words()]
  void fill(GrammarState state, std::span<std::uint64_t> bits);

  std::size_t num_sets() const noexcept { return sets_.size(); }
  std::size_t memory_bytes() const noexcept;

 private:
  static constexpr std::size_t kSetsBetweenChecks = 64;

  /// A place in a trie where a lexeme is complete and tokens go on.
  struct Crossing {
    std::uint32_t node = 0;
    LexemeSet complete = 0;
    const TokenTrie* trie = nullptr;
  };
  /// What some of a lexer state's lexemes allow.
  struct Piece {
    std::uint32_t set = 0;    // tokens that stay inside
    std::uint32_t begin = 0;  // in crossings_
    std::uint32_t end = 0;
  };
  struct Inside {
    std::uint32_t begin = 0;  // in pieces_of_
    std::uint32_t end = 0;
  };
  struct Open {
    std::uint32_t end = 0;    // of the subtree
    std::uint32_t state = 0;  // before the bytes of its children
    bool taken = false;       // its bytes so far are of kinds that were taken as a whole
  };

  struct Top {
    std::uint32_t node = 0;         // below a trie's root
    LexerState state = kDeadLexer;  // behind its byte
    bool endless = false;           // any plain text may follow
  };

  void forget();
  /// The pieces of a state, made if need be.
  Inside inside(LexerState lexer);
  Inside split(LexerState lexer);
  void add_pieces(LexerState lexer, std::vector<std::uint32_t>& pieces);
  std::uint32_t short_piece(LexerState lexer);
  std::uint32_t long_piece(LexerState lexer);
  std::uint32_t finish_piece(std::size_t begin);
  std::uint32_t across(std::uint32_t piece, Row row);
  void collect_plain(LexerState lexer);
  void collect(const TokenTrie& trie, LexerState lexer);
  void collect_literal(const TokenTrie& trie, std::string_view text, const Lexer::Progress& behind);
  bool takes_all_below(const TokenTrie& trie, std::uint32_t node, LexerState lexer);
  PlainReach::Kinds collect_kinds(LexerState lexer);
  std::span<const std::uint64_t> tokens_of_kinds(ByteKinds kinds);
  void collect_below(const TokenTrie& trie, std::uint32_t node, LexerState lexer,
                     const PlainReach::Kinds& kinds = {});

  CompiledGrammar& grammar_;
  const TokenIndex& index_;
  std::vector<TokenId> end_tokens_;
  PlainReach plain_reach_;
  TokenSets sets_;
  TokenCollector found_;
  std::size_t next_check_ = kSetsBetweenChecks;  // of the memory, in sets
  std::vector<Inside> insides_;                  // [lexer states], grown on demand
  std::vector<std::uint32_t> piece_of_;          // [lexer states], grown on demand: of short tokens
  std::vector<Piece> pieces_;
  std::vector<std::uint32_t> pieces_of_;  // in pieces_
  std::vector<Crossing> crossings_;
  PairTable across_;                                                    // piece, row -> set
  std::unordered_map<ByteKinds, std::vector<std::uint64_t>> of_kinds_;  // tokens_of_kinds()
  std::vector<Open> stack_;
  std::vector<Top> tops_;
  std::vector<CompiledGrammar::Thread> threads_;
};

}  // namespace specdec::grammar
