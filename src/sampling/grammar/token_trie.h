#pragma once

#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

#include "specdec/types.h"

namespace specdec::grammar {

/// The bytes of a vocabulary as one prefix tree, its nodes in depth-first order. Immutable.
class TokenTrie {
 public:
  struct Node {
    std::uint32_t end = 0;     // one past the last node below this one
    std::uint32_t tokens = 0;  // in tokens(): those that end here, then those below
    unsigned char byte = 0;
  };

  /// `bytes`: of each token, by id; tokens without bytes are in no place of the tree.
  explicit TokenTrie(std::span<const std::string_view> bytes);

  /// [num_nodes]; node 0 is the root.
  std::span<const Node> nodes() const noexcept { return {nodes_.data(), nodes_.size() - 1}; }
  /// Tokens that end at the node.
  std::span<const TokenId> tokens_at(std::uint32_t node) const noexcept {
    return {tokens_.data() + nodes_[node].tokens, tokens_.data() + nodes_[node + 1].tokens};
  }
  /// Tokens that end at the node or below it.
  std::span<const TokenId> tokens_from(std::uint32_t node) const noexcept {
    return {tokens_.data() + nodes_[node].tokens, tokens_.data() + nodes_[nodes_[node].end].tokens};
  }
  std::size_t memory_bytes() const noexcept {
    return nodes_.capacity() * sizeof(Node) + tokens_.capacity() * sizeof(TokenId);
  }

 private:
  std::vector<Node> nodes_;      // and a sentinel
  std::vector<TokenId> tokens_;  // in the order of their bytes
};

}  // namespace specdec::grammar
