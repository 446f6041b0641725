#include "draft/draft_tree.h"

#include <algorithm>
#include <utility>

namespace specdec {

int DraftTree::max_depth() const noexcept {
  return depths.empty() ? 0 : *std::max_element(depths.begin(), depths.end());
}

bool DraftTree::is_chain() const noexcept {
  // Parents come first, so n nodes with at most one child each can only stand in path order.
  for (std::size_t node = 1; node < tokens.size(); ++node) {
    if (parents[node] != static_cast<std::int32_t>(node) - 1) return false;
  }
  return true;
}

int DraftTree::find_child(int node, TokenId token) const noexcept {
  for (int child = node + 1; child < size(); ++child) {
    if (parents[static_cast<std::size_t>(child)] == node &&
        tokens[static_cast<std::size_t>(child)] == token) {
      return child;
    }
  }
  return -1;
}

void DraftTree::retain(const std::vector<bool>& keep) {
  std::vector<std::int32_t> new_index(tokens.size(), -1);
  std::size_t kept = 0;
  for (std::size_t node = 0; node < tokens.size(); ++node) {
    if (!keep[node]) continue;
    new_index[node] = static_cast<std::int32_t>(kept);
    tokens[kept] = tokens[node];
    depths[kept] = depths[node];
    if (!draft_probs.empty() && kept != node) draft_probs[kept] = std::move(draft_probs[node]);
    parents[kept] = parents[node] < 0 ? -1 : new_index[static_cast<std::size_t>(parents[node])];
    ++kept;
  }
  tokens.resize(kept);
  parents.resize(kept);
  depths.resize(kept);
  if (!draft_probs.empty()) draft_probs.resize(kept);
}

std::vector<std::int32_t> DraftTree::path_to(int node) const {
  std::vector<std::int32_t> path;
  for (; node >= 0; node = parents[static_cast<std::size_t>(node)]) path.push_back(node);
  std::reverse(path.begin(), path.end());
  return path;
}

}  // namespace specdec
