#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "specdec/types.h"

namespace specdec {

/// How a node's children were chosen; the sampled acceptance rules need it to be lossless.
enum class DraftSampling : std::uint8_t {
  deterministic,        ///< no randomness: a child's draft probability is 1 (n-gram, top-k, coupled
                        ///< drafts)
  with_replacement,     ///< each child drawn from draft_probs[parent], independently (a chain: one
                        ///< draw)
  without_replacement,  ///< each child drawn from draft_probs[parent] less its earlier siblings,
                        ///< renormalised
};

/// What one step verifies for one sequence. Node 0 is the root, the last committed token; parents
/// come before children; siblings stand in the order in which they were drawn.
struct DraftTree {
  std::vector<TokenId> tokens;        // [nodes]
  std::vector<std::int32_t> parents;  // [nodes]; -1 for the root
  std::vector<std::int32_t> depths;   // [nodes]; 0 for the root
  DraftSampling sampling = DraftSampling::deterministic;
  /// [nodes][vocab]; the exact distribution that a node's children were drawn from; empty for
  /// leaves and for deterministic trees.
  std::vector<std::vector<float>> draft_probs;

  explicit DraftTree(TokenId root = 0) { reset(root); }

  void reset(TokenId root) {
    tokens.assign(1, root);
    parents.assign(1, -1);
    depths.assign(1, 0);
    sampling = DraftSampling::deterministic;
    draft_probs.clear();
  }
  int add(TokenId token, int parent) {
    tokens.push_back(token);
    parents.push_back(parent);
    depths.push_back(depths[static_cast<std::size_t>(parent)] + 1);
    return size() - 1;
  }
  /// Keeps the nodes for which keep[node] is set, the root among them and no node without its
  /// parent; of a drawn tree also the distributions that they were drawn below.
  void retain(const std::vector<bool>& keep);
  int size() const noexcept { return static_cast<int>(tokens.size()); }
  int num_draft_tokens() const noexcept { return size() - 1; }
  int max_depth() const noexcept;
  /// True when every node has at most one child.
  bool is_chain() const noexcept;
  /// The child of `node` that holds `token`, or -1.
  int find_child(int node, TokenId token) const noexcept;
  /// Nodes from the root (first) to `node` (last).
  std::vector<std::int32_t> path_to(int node) const;
};

}  // namespace specdec
