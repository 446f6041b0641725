#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <vector>

#include "sampling/grammar/grammar_spec.h"

namespace specdec::grammar {

/// One kind of element of a Bag.
struct BagElement {
  std::vector<Symbol> symbols;
  std::uint32_t min = 0;
  std::uint32_t max = 0;  ///< not 0; kUnbounded of shape.h: no limit
};

/// A sequence of one or more elements, separated, each kind between its counts, and so many of all.
///
/// Members of an object in any order need a state for every set of members seen: 2^n of them, of
/// which a text meets n. So a state becomes a nonterminal when a text gets to it. A bag belongs to
/// one GrammarSpec.
class Bag : public std::enable_shared_from_this<Bag> {
 public:
  struct Rules {
    std::vector<BagElement> elements;
    std::uint32_t min_total = 1;
    std::uint32_t max_total = 0;
    bool ordered = false;  ///< kinds come in the order of `elements`
    Symbol separator;
  };
  explicit Bag(Rules rules);

  /// The nonterminal of the whole bag, or nothing if no sequence fits.
  std::optional<Symbol> add_to(GrammarSpec& spec);

 private:
  // Counts, as far as they matter. First a bit for each element that is counted to one, then a
  // counter for each that is counted further, the total, and, if ordered, the last element.
  using State = std::vector<std::uint32_t>;
  struct Counter {
    std::uint32_t limit = 0;  // counting on from here makes no difference
    std::uint32_t at = 0;     // index of the bit or the word
  };

  std::uint32_t count(const State& state, std::size_t element) const;
  std::uint32_t total(const State& state) const { return state[total_at_]; }
  State after(const State& state, std::size_t element) const;
  std::uint64_t missing(const State& state) const;
  bool feasible(const State& state, std::size_t element, std::uint64_t missing) const;
  bool feasible_in_order(const State& state, std::size_t element) const;
  bool may_go_on(const State& state) const;
  Symbol elements_from(GrammarSpec& spec, State state);
  void expand(GrammarSpec& spec, Symbol symbol, const State& state);

  Rules rules_;
  std::vector<Counter> counters_;      // [elements]
  std::vector<std::size_t> required_;  // elements with a minimum
  std::size_t total_at_ = 0;
  std::uint32_t total_limit_ = 0;
  bool total_bounded_ = false;  // max_total is less than the elements' own limits allow
  std::map<State, Symbol> symbols_;
};

}  // namespace specdec::grammar
