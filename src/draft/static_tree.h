#pragma once

#include <span>
#include <string>
#include <vector>

namespace specdec {

/// The shape of a draft that is the same in every step (Medusa, arXiv 2401.10774, figure 6): which
/// of a node's best tokens become its children. Node 0 is the root; parents come before children.
struct StaticTree {
  struct Node {
    int parent = -1;
    int rank = 0;   // among its parent's best tokens; 0 is the best
    int depth = 0;  // the root's is 0
    std::vector<int> children = {};
  };
  std::vector<Node> nodes{Node{}};

  /// Reads paths of ranks below the root, "0", "0.0", "1", in any order. Throws
  /// Error(invalid_config) naming the first that is malformed, there twice or without its parent.
  static StaticTree parse(std::span<const std::string> paths);

  /// Nodes below the root that are no deeper than `depth`.
  int num_nodes(int depth) const noexcept;
  /// Whether no node has two children.
  bool is_chain() const noexcept;
};

}  // namespace specdec
