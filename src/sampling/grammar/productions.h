#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "sampling/grammar/grammar_spec.h"

namespace specdec::grammar {

/// A GrammarSpec as the parser reads it: which symbols can be empty, which productions can be
/// completed at all, lazy nonterminals expanded when first asked for.
class Productions {
 public:
  /// Throws Error(invalid_argument) when the start symbol derives no string, or when deciding that
  /// takes more than the limits allow. `spec` outlives this.
  explicit Productions(GrammarSpec& spec);

  /// Offsets into the spec's rhs() of the productions that can be completed. By nonterminal index.
  std::span<const std::uint32_t> of(std::uint32_t nonterminal);
  /// Of a symbol that occurs in a production that of() returned; expands a lazy one.
  bool nullable(std::uint32_t symbol) {
    if (facts_[symbol].lazy) of(spec_.index_of({symbol}));
    return facts_[symbol].nullable;
  }

 private:
  struct Facts {
    bool nullable = false;
    bool productive = false;
    bool lazy = false;  // not expanded yet
  };
  struct Production {
    std::uint32_t lhs = 0;           // symbol
    std::uint32_t begin = 0;         // in rhs()
    std::span<const Symbol> needed;  // a lazy symbol's stand-in for productions yet unknown
  };

  void take_new_symbols();
  void expand(std::uint32_t symbol);
  /// Finds out about everything that is new.
  void settle();
  void settle_productive();
  /// False: lazy symbols had to be expanded, so there is more to settle.
  bool settle_nullable();
  template <class Holds, class Derive>
  void propagate(Holds holds, Derive derive) const;

  GrammarSpec& spec_;
  std::vector<Facts> facts_;                        // [symbols]
  std::vector<std::uint32_t> symbols_;              // [nonterminals]
  std::vector<std::vector<std::uint32_t>> useful_;  // [nonterminals]
  std::vector<Production> open_;                    // of symbols that are not settled
};

}  // namespace specdec::grammar
