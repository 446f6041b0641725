#include "engine/sequence.h"

namespace specdec {

void Sequence::retain_nodes(const std::vector<bool>& keep) {
  tree.retain(keep);
  const auto retain = [&](auto& values) {
    std::size_t kept = 0;
    for (std::size_t node = 0; node < values.size(); ++node)
      if (keep[node]) values[kept++] = values[node];
    values.resize(kept);
  };
  retain(origins);
  retain(draft_slots);
}

}  // namespace specdec
