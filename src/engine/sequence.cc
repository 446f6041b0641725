#include "engine/sequence.h"

#include <algorithm>

#include "sampling/mutation.h"

namespace specdec {

void Sequence::reset_draft() {
  tree.reset(tokens.back());
  origins.assign(1, NodeOrigin{});
  draft_slots.clear();
  early_states.clear();
}

void Sequence::place_nodes() {
  const int root_slot = size() - 1;
  const bool stay = !early_states.empty();
  int last = root_slot;
  if (stay) last = *std::ranges::max_element(draft_slots);
  node_slots.assign(1, root_slot);
  for (std::size_t node = 1; node < tree.tokens.size(); ++node)
    node_slots.push_back(stay && draft_slots[node] >= 0 ? draft_slots[node] : ++last);
}

std::int32_t Sequence::early_state(int node) const {
  if (early_states.empty()) return -1;
  const int slot = draft_slots[static_cast<std::size_t>(node)];
  return slot < 0 ? -1 : early_states[static_cast<std::size_t>(slot - (size() - 1))];
}

void Sequence::retain_nodes(const std::vector<bool>& keep) {
  tree.retain(keep);
  const auto retain = [&](auto& values) {
    std::size_t kept = 0;
    for (std::size_t node = 0; node < values.size(); ++node)
      if (keep[node]) values[kept++] = values[node];
    values.resize(kept);
  };
  retain(origins);
  if (mutant_active("draft_slots_not_retained") && !draft_slots.empty())
    draft_slots.resize(tree.tokens.size());
  else
    retain(draft_slots);
}

}  // namespace specdec
