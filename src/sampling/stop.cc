#include "sampling/stop.h"

#include <algorithm>

#include "sampling/mutation.h"

namespace specdec {

// Aho and Corasick, "Efficient string matching: an aid to bibliographic search", CACM 18 (1975).
StopMatcher::StopMatcher(const std::vector<std::string>& stop_strings) {
  states_.emplace_back();
  for (const std::string& stop : stop_strings) {
    if (stop.empty()) continue;
    std::int32_t state = 0;
    for (const char character : stop) {
      const auto byte = static_cast<std::uint8_t>(character);
      std::int32_t next = edge(state, byte);
      if (next < 0) {
        next = static_cast<std::int32_t>(states_.size());
        State child;
        child.depth = states_[state].depth + 1;
        states_.push_back(std::move(child));
        auto& edges = states_[state].edges;
        edges.insert(std::lower_bound(edges.begin(), edges.end(), std::pair{byte, std::int32_t{0}}),
                     {byte, next});
      }
      state = next;
    }
    states_[state].match_length = stop.size();
  }

  // Breadth first: a state's failure link points to a shallower state, which is complete by then.
  std::vector<std::int32_t> order{0};
  for (std::size_t i = 0; i < order.size(); ++i) {
    const std::int32_t parent = order[i];
    for (const auto& [byte, child] : states_[parent].edges) {
      if (parent != 0) states_[child].fail = advance(states_[parent].fail, byte);
      if (states_[child].match_length == 0) {
        states_[child].match_length = states_[states_[child].fail].match_length;
      }
      order.push_back(child);
    }
  }
}

std::int32_t StopMatcher::edge(std::int32_t state, std::uint8_t byte) const noexcept {
  const auto& edges = states_[state].edges;
  const auto found = std::lower_bound(edges.begin(), edges.end(), std::pair{byte, std::int32_t{0}});
  return found != edges.end() && found->first == byte ? found->second : -1;
}

std::int32_t StopMatcher::advance(std::int32_t state, std::uint8_t byte) const noexcept {
  for (;;) {
    const std::int32_t next = edge(state, byte);
    if (next >= 0) return next;
    if (state == 0) return 0;
    state = states_[state].fail;
  }
}

bool StopMatcher::feed(std::string_view bytes, std::string& visible) {
  if (matched_) return true;
  for (std::size_t i = 0; i < bytes.size(); ++i) {
    state_ = advance(state_, static_cast<std::uint8_t>(bytes[i]));
    const std::size_t match = states_[state_].match_length;
    if (match > 0) {
      held_.append(bytes.substr(0, i + 1));
      visible.append(held_, 0, held_.size() - match);
      held_.clear();
      matched_ = true;
      return true;
    }
  }
  // The state's depth is the longest suffix of the text that may still grow into a stop string.
  held_.append(bytes);
  std::size_t shown = held_.size() - states_[state_].depth;
  if (mutant_active("stop_prefix_shown")) shown = held_.size();
  visible.append(held_, 0, shown);
  held_.erase(0, shown);
  return false;
}

void StopMatcher::flush(std::string& visible) {
  visible.append(held_);
  held_.clear();
  state_ = 0;
}

}  // namespace specdec
