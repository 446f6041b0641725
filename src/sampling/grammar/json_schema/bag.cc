#include "sampling/grammar/json_schema/bag.h"

#include <algorithm>
#include <utility>

#include "sampling/grammar/json_schema/shape.h"

namespace specdec::grammar {

Bag::Bag(Rules rules) : rules_(std::move(rules)) {
  const std::size_t num_slots = rules_.slots.size();
  last_filler_.resize(num_slots);
  capacity_.resize(num_slots);
  for (const Element& element : rules_.elements) {
    const std::uint32_t first = element.slots.front();
    capacity_[first] = rules_.slots[first].max;
    for (const std::uint32_t slot : element.slots) {
      last_filler_[slot] = std::max(last_filler_[slot], first);
    }
  }
  for (std::uint32_t i = 0; i < num_slots; ++i) {
    if (capacity_[i] == 0 && rules_.slots[i].min > 0) shared_.push_back(i);
  }
  std::uint32_t bits = 0;
  for (std::uint32_t i = 0; i < num_slots; ++i) {
    const Slot& slot = rules_.slots[i];
    most_ += capacity_[i];
    if (slot.min > 0) required_.push_back(i);
    const std::uint32_t limit = slot.max == kUnbounded ? slot.min : slot.max;
    counters_.push_back({limit, bits});
    if (limit == 1) ++bits;
  }
  total_at_ = (bits + 31) / 32;
  for (Counter& counter : counters_) {
    if (counter.limit > 1) counter.at = static_cast<std::uint32_t>(total_at_++);
  }
  total_bounded_ = rules_.max_total != kUnbounded && most_ > rules_.max_total;
  total_limit_ = total_bounded_ ? rules_.max_total : rules_.min_total;
  // One element at least is there in any case, so that is nothing to count.
  if (!total_bounded_ && rules_.min_total <= 1) total_limit_ = 0;
}

std::uint32_t Bag::count(const State& state, std::uint32_t slot) const {
  const Counter& counter = counters_[slot];
  if (counter.limit == 0) return 0;
  if (counter.limit > 1) return state[counter.at];
  return state[counter.at / 32] >> (counter.at % 32) & 1;
}

Bag::State Bag::after(const State& state, const Element& element) const {
  State next = state;
  for (const std::uint32_t slot : element.slots) {
    const Counter& counter = counters_[slot];
    if (counter.limit == 1) {
      next[counter.at / 32] |= 1u << (counter.at % 32);
    } else if (counter.limit > 1) {
      next[counter.at] = std::min(next[counter.at] + 1, counter.limit);
    }
  }
  next[total_at_] = std::min(next[total_at_] + 1, total_limit_);
  if (rules_.ordered) next.back() = element.slots.front();
  return next;
}

/// Elements that must still come. Exact where the slots that need some are first slots, or shared
/// ones; where both do, possibly too many, never too few.
std::uint64_t Bag::missing(const State& state) const {
  std::uint64_t sum = 0;
  std::vector<std::uint32_t> shared;
  for (const std::uint32_t slot : required_) {
    const std::uint32_t so_far = count(state, slot);
    if (so_far >= rules_.slots[slot].min) continue;
    if (capacity_[slot] == 0) {
      shared.push_back(slot);
    } else {
      sum += rules_.slots[slot].min - so_far;
    }
  }
  return sum + (shared.size() < 2 || !total_bounded_ ? shared.size() : cover(shared));
}

/// The fewest elements that fill every one of these slots.
std::uint64_t Bag::cover(const std::vector<std::uint32_t>& slots) const {
  std::vector<std::uint32_t> fills;  // a bit for each slot
  for (const Element& element : rules_.elements) {
    std::uint32_t bits = 0;
    for (std::size_t i = 0; i < slots.size(); ++i) {
      const bool filled =
          std::find(element.slots.begin(), element.slots.end(), slots[i]) != element.slots.end();
      bits |= static_cast<std::uint32_t>(filled) << i;
    }
    if (std::find(fills.begin(), fills.end(), bits) == fills.end()) fills.push_back(bits);
  }
  std::vector<std::size_t> fewest(std::size_t{1} << slots.size(), slots.size());
  fewest[0] = 0;
  for (std::size_t set = 0; set < fewest.size(); ++set) {
    for (const std::uint32_t bits : fills) {
      fewest[set | bits] = std::min(fewest[set | bits], fewest[set] + 1);
    }
  }
  return fewest.back();
}

bool Bag::has_room(const State& state, const Element& element) const {
  return std::none_of(element.slots.begin(), element.slots.end(), [&](std::uint32_t slot) {
    return rules_.slots[slot].max != kUnbounded && count(state, slot) >= rules_.slots[slot].max;
  });
}

/// Whether elements that may still come can fill each shared slot that needs one. A name that fills
/// it with some of its values may be gone with another. Past `steps` it counts as so.
bool Bag::can_share(const State& state, std::uint32_t from, int& steps) const {
  const auto open = std::find_if(shared_.begin(), shared_.end(), [&](std::uint32_t slot) {
    return count(state, slot) < rules_.slots[slot].min;
  });
  if (open == shared_.end() || --steps < 0) return true;
  return std::any_of(rules_.elements.begin(), rules_.elements.end(), [&](const Element& element) {
    return element.slots.front() >= from &&
           std::find(element.slots.begin(), element.slots.end(), *open) != element.slots.end() &&
           has_room(state, element) && can_share(after(state, element), from, steps);
  });
}

bool Bag::feasible(const State& state, const Element& element, std::uint64_t missing) const {
  if (!has_room(state, element)) return false;
  if (!shared_.empty()) {
    int steps = 1000;
    const std::uint32_t from = rules_.ordered ? element.slots.front() : 0;
    if (!can_share(after(state, element), from, steps)) return false;
  }
  // Far from the limit there is no need to look ahead.
  if (total_bounded_ && std::uint64_t{total(state)} + 1 + missing > rules_.max_total &&
      std::uint64_t{total(state)} + 1 + this->missing(after(state, element)) > rules_.max_total) {
    return false;
  }
  return !rules_.ordered || feasible_in_order(state, element);
}

/// What is passed over is gone: it must not be needed, nor all that is left be too little.
bool Bag::feasible_in_order(const State& state, const Element& element) const {
  const std::uint32_t first = element.slots.front();
  if (first < state.back()) return false;
  for (const std::uint32_t slot : required_) {
    if (last_filler_[slot] < first && count(state, slot) < rules_.slots[slot].min) return false;
  }
  if (rules_.min_total <= 1) return true;
  std::uint64_t left = total(state);
  for (std::uint32_t i = first; i < rules_.slots.size() && left < rules_.min_total; ++i) {
    left += capacity_[i] - std::min<std::uint64_t>(capacity_[i], count(state, i));
  }
  return left >= rules_.min_total;
}

bool Bag::may_go_on(const State& state) const {
  const std::uint64_t left = missing(state);
  return std::any_of(rules_.elements.begin(), rules_.elements.end(),
                     [&](const Element& element) { return feasible(state, element, left); });
}

std::optional<Symbol> Bag::add_to(GrammarSpec& spec) {
  State start(total_at_ + (rules_.ordered ? 2 : 1), 0);
  for (const std::uint32_t slot : required_) {
    const bool filled =
        std::any_of(rules_.elements.begin(), rules_.elements.end(), [&](const Element& element) {
          return std::find(element.slots.begin(), element.slots.end(), slot) != element.slots.end();
        });
    if (!filled) return std::nullopt;
  }
  if (rules_.max_total == 0 || most_ < std::max(1u, rules_.min_total) ||
      rules_.min_total > rules_.max_total || !may_go_on(start)) {
    return std::nullopt;
  }
  return elements_from(spec, std::move(start));
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
  for (const Element& element : rules_.elements) {
    if (!feasible(state, element, left)) continue;
    State next = after(state, element);
    std::vector<Symbol> production = element.symbols;
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
