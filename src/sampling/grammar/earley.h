#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "sampling/grammar/interner.h"
#include "sampling/grammar/lexer.h"
#include "sampling/grammar/productions.h"

namespace specdec::grammar {

/// A set of Earley items at a place between two lexemes. An index into the Earley parser; equal
/// kernels are equal rows, so a place reached twice is the same row.
using Row = std::uint32_t;

/// Earley's algorithm (1970) over lexemes, with immutable rows. An item knows where it began by the
/// row there, not by a position, so rows do not depend on how much text came before: the rows of a
/// list's third and thirtieth element are one.
///
/// An item whose next symbol is its last hands its own left-hand side and origin to what it
/// predicts, as a tail call does: right recursion neither nests rows nor makes completion walk
/// back.
class Earley {
 public:
  /// All of them outlive the parser.
  Earley(GrammarSpec& spec, Productions& productions, Lexer& lexer);

  Row start() const noexcept { return start_; }
  /// The row after any of the lexemes in `set` has been read in `row`.
  Row scan(Row row, LexemeSet set);
  /// The row of a place that several rows lead to.
  Row merge(std::span<const Row> rows);
  /// The text may end here.
  bool accepts(Row row) const noexcept { return rows_[row].accepts; }
  /// The lexer at the beginning of every lexeme that may come next.
  LexerState lexer_start(Row row) const noexcept { return rows_[row].lexer; }

  std::size_t num_rows() const noexcept { return rows_.size(); }
  std::size_t memory_bytes() const noexcept;

 private:
  static constexpr Row kNoRow = 0xFFFFFFFF;

  struct Item {
    std::uint32_t dot = 0;     // in rhs()
    std::uint32_t lhs = 0;     // the nonterminal that completing it completes
    std::uint32_t origin = 0;  // row
    auto operator<=>(const Item&) const = default;
  };
  struct Waiting {
    std::uint32_t symbol = 0;  // lexeme or nonterminal index
    Item next;                 // the item with its dot behind the symbol
    auto operator<=>(const Waiting&) const = default;
  };
  struct RowData {
    std::uint32_t scans = 0;  // in waiting_, up to `calls`
    std::uint32_t calls = 0;  // in waiting_, up to `end`
    std::uint32_t end = 0;
    LexerState lexer = kDeadLexer;
    bool accepts = false;
  };

  std::span<const Waiting> waiting_for(std::uint32_t begin, std::uint32_t end,
                                       std::uint32_t symbol) const noexcept;
  void settle_kernel();
  Row intern_kernel();
  void close(Row row);
  void check_whole() const;

  GrammarSpec& spec_;
  Productions& productions_;
  Lexer& lexer_;
  std::vector<RowData> rows_;
  std::vector<Waiting> waiting_;
  ListInterner<Item> kernels_;  // index = row + 1
  PairTable scans_;
  Row start_ = 0;
  bool row_in_progress_ = false;

  // The row being made.
  std::vector<Item> kernel_;
  std::vector<Item> items_;
};

}  // namespace specdec::grammar
