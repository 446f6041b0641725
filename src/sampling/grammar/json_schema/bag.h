#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <vector>

#include "sampling/grammar/grammar_spec.h"

namespace specdec::grammar {

/// A sequence of one or more elements, separated, so many of all and so many in each slot. An
/// element fills one slot or more.
///
/// Members of an object in any order need a state for every set of members seen: 2^n of them, of
/// which a text meets n. So a state becomes a nonterminal when a text gets to it. A bag belongs to
/// one GrammarSpec.
class Bag : public std::enable_shared_from_this<Bag> {
 public:
  struct Element {
    std::vector<Symbol> symbols;
    std::vector<std::uint32_t> slots;  ///< the first is filled by elements of one kind only
  };
  struct Slot {
    std::uint32_t min = 0;
    std::uint32_t max = 0;  ///< kUnbounded of shape.h: no limit
  };
  struct Rules {
    std::vector<Element> elements;
    std::vector<Slot> slots;
    std::uint32_t min_total = 1;
    std::uint32_t max_total = 0;
    bool ordered = false;  ///< first slots come in ascending order
    Symbol separator;
  };
  explicit Bag(Rules rules);

  /// The nonterminal of the whole bag, or nothing if no sequence fits.
  std::optional<Symbol> add_to(GrammarSpec& spec);

 private:
  // Counts, as far as they matter. First a bit for each slot that is counted to one, then a counter
  // for each that is counted further, the total, and, if ordered, the last first slot.
  using State = std::vector<std::uint32_t>;
  struct Counter {
    std::uint32_t limit = 0;  // counting on from here makes no difference
    std::uint32_t at = 0;     // index of the bit or the word
  };

  std::uint32_t count(const State& state, std::uint32_t slot) const;
  std::uint32_t total(const State& state) const { return state[total_at_]; }
  State after(const State& state, const Element& element) const;
  std::uint64_t missing(const State& state) const;
  std::uint64_t cover(const std::vector<std::uint32_t>& slots) const;
  bool has_room(const State& state, const Element& element) const;
  bool can_share(const State& state, std::uint32_t from, int& steps) const;
  bool feasible(const State& state, const Element& element, std::uint64_t missing) const;
  bool feasible_in_order(const State& state, const Element& element) const;
  bool may_go_on(const State& state) const;
  Symbol elements_from(GrammarSpec& spec, State state);
  void expand(GrammarSpec& spec, Symbol symbol, const State& state);

  Rules rules_;
  std::vector<Counter> counters_;           // [slots]
  std::vector<std::uint32_t> required_;     // slots with a minimum
  std::vector<std::uint32_t> shared_;       // those that no element has as its first
  std::vector<std::uint32_t> last_filler_;  // [slots] the highest first slot of its elements
  std::vector<std::uint64_t> capacity_;  // [slots] as a first slot: its max, or 0 if none fills it
  std::uint64_t most_ = 0;               // of all capacities
  std::size_t total_at_ = 0;
  std::uint32_t total_limit_ = 0;
  bool total_bounded_ = false;  // max_total is less than the slots allow
  std::map<State, Symbol> symbols_;
};

}  // namespace specdec::grammar
