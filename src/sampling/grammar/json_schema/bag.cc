#include "sampling/grammar/json_schema/bag.h"

#include <algorithm>
#include <utility>

#include "sampling/grammar/json_schema/shape.h"

namespace specdec::grammar {

Bag::Bag(Rules rules) : rules_(std::move(rules)) {
  std::uint64_t most = 0;
  std::uint32_t bits = 0;
  for (std::size_t i = 0; i < rules_.elements.size(); ++i) {
    const BagElement& element = rules_.elements[i];
    most += element.max;
    if (element.min > 0) required_.push_back(i);
    const std::uint32_t limit = element.max == kUnbounded ? element.min : element.max;
    counters_.push_back({limit, bits});
    if (limit == 1) ++bits;
  }
  total_at_ = (bits + 31) / 32;
  for (Counter& counter : counters_) {
    if (counter.limit > 1) counter.at = static_cast<std::uint32_t>(total_at_++);
  }
  total_bounded_ = rules_.max_total != kUnbounded && most > rules_.max_total;
  total_limit_ = total_bounded_ ? rules_.max_total : rules_.min_total;
  // One element at least is there in any case, so that is nothing to count.
  if (!total_bounded_ && rules_.min_total <= 1) total_limit_ = 0;
}

std::uint32_t Bag::count(const State& state, std::size_t element) const {
  const Counter& counter = counters_[element];
  if (counter.limit == 0) return 0;
  if (counter.limit > 1) return state[counter.at];
  return state[counter.at / 32] >> (counter.at % 32) & 1;
}

Bag::State Bag::after(const State& state, std::size_t element) const {
  State next = state;
  const Counter& counter = counters_[element];
  if (counter.limit == 1) {
    next[counter.at / 32] |= 1u << (counter.at % 32);
  } else if (counter.limit > 1) {
    next[counter.at] = std::min(next[counter.at] + 1, counter.limit);
  }
  next[total_at_] = std::min(next[total_at_] + 1, total_limit_);
  if (rules_.ordered) next.back() = static_cast<std::uint32_t>(element);
  return next;
}

std::uint64_t Bag::missing(const State& state) const {
  std::uint64_t sum = 0;
  for (const std::size_t i : required_) {
    sum += rules_.elements[i].min - std::min(rules_.elements[i].min, count(state, i));
  }
  return sum;
}

bool Bag::feasible(const State& state, std::size_t element, std::uint64_t missing) const {
  const BagElement& taken = rules_.elements[element];
  const std::uint32_t so_far = count(state, element);
  if (taken.max != kUnbounded && so_far >= taken.max) return false;
  if (total_bounded_) {
    const std::uint64_t still_missing = missing - (so_far < taken.min ? 1 : 0);
    if (std::uint64_t{total(state)} + 1 + still_missing > rules_.max_total) return false;
  }
  return !rules_.ordered || feasible_in_order(state, element);
}

/// What is passed over is gone: it must not be needed, nor all that is left be too little.
bool Bag::feasible_in_order(const State& state, std::size_t element) const {
  if (element < state.back()) return false;
  for (const std::size_t i : required_) {
    if (i < element && count(state, i) < rules_.elements[i].min) return false;
  }
  if (rules_.min_total <= 1) return true;
  std::uint64_t left = total(state);
  for (std::size_t i = element; i < rules_.elements.size() && left < rules_.min_total; ++i) {
    left += rules_.elements[i].max - count(state, i);
  }
  return left >= rules_.min_total;
}

bool Bag::may_go_on(const State& state) const {
  const std::uint64_t left = missing(state);
  for (std::size_t i = 0; i < rules_.elements.size(); ++i) {
    if (feasible(state, i, left)) return true;
  }
  return false;
}

std::optional<Symbol> Bag::add_to(GrammarSpec& spec) {
  std::uint64_t least = 0;
  std::uint64_t most = 0;
  for (const BagElement& element : rules_.elements) {
    least += element.min;
    most += element.max;
  }
  if (least > rules_.max_total || most < rules_.min_total || rules_.min_total > rules_.max_total ||
      rules_.max_total == 0 || most == 0) {
    return std::nullopt;
  }
  return elements_from(spec, State(total_at_ + (rules_.ordered ? 2 : 1), 0));
}

Symbol Bag::elements_from(GrammarSpec& spec, State state) {
  const auto [entry, is_new] = symbols_.try_emplace(std::move(state));
  if (is_new) {
    entry->second = spec.add_lazy_nonterminal(
        [bag = shared_from_this(), from = &entry->first](GrammarSpec& to, Symbol symbol) {
          bag->expand(to, symbol, *from);
        });
  }
  return entry->second;
}

void Bag::expand(GrammarSpec& spec, Symbol symbol, const State& state) {
  const std::uint64_t left = missing(state);
  for (std::size_t i = 0; i < rules_.elements.size(); ++i) {
    if (!feasible(state, i, left)) continue;
    State next = after(state, i);
    std::vector<Symbol> production = rules_.elements[i].symbols;
    const bool complete =
        (rules_.min_total <= 1 || total(next) >= rules_.min_total) && missing(next) == 0;
    if (complete) spec.add_production(symbol, production);
    if (complete && !may_go_on(next)) continue;
    production.push_back(rules_.separator);
    production.push_back(elements_from(spec, std::move(next)));
    spec.add_production(symbol, production);
  }
}

}  // namespace specdec::grammar
