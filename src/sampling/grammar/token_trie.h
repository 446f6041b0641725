#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

#include "sampling/grammar/byte_kinds.h"
#include "specdec/types.h"

namespace specdec::grammar {

/// Tokens of a vocabulary as a prefix tree of their bytes, its nodes in depth-first order.
/// Immutable.
class TokenTrie {
 public:
  static constexpr std::uint8_t kMaxHeight = 255;
  struct Node {
    std::uint32_t end = 0;     // one past the last node below this one
    std::uint32_t tokens = 0;  // in tokens(): those that end here, then those below
    unsigned char byte = 0;
    std::uint8_t height = 0;  // levels below this node, at most kMaxHeight
  };

  TokenTrie() : TokenTrie({}, {}) {}
  /// `bytes`: of each token, by id. `tokens`: those of the tree; each has bytes.
  TokenTrie(std::span<const std::string_view> bytes, std::vector<TokenId> tokens);

  /// [num_nodes]; node 0 is the root.
  std::span<const Node> nodes() const noexcept { return {nodes_.data(), nodes_.size() - 1}; }
  /// The root's child for a byte; 0 if it has none.
  std::uint32_t top(unsigned char byte) const noexcept { return top_[byte]; }
  /// A node's child for a byte; 0 if it has none.
  std::uint32_t child(std::uint32_t node, unsigned char byte) const noexcept {
    const std::uint32_t end = nodes_[node].end;
    for (std::uint32_t at = node + 1; at < end; at = nodes_[at].end)
      if (nodes_[at].byte >= byte) return nodes_[at].byte == byte ? at : 0;
    return 0;
  }
  /// The kinds of all bytes below a node.
  ByteKinds kinds_below(std::uint32_t node) const noexcept { return kinds_below_[node]; }
  std::size_t num_tokens() const noexcept { return tokens_.size(); }
  /// Tokens that end at the node.
  std::span<const TokenId> tokens_at(std::uint32_t node) const noexcept {
    return {tokens_.data() + nodes_[node].tokens, tokens_.data() + nodes_[node + 1].tokens};
  }
  /// Tokens that end at the node or below it.
  std::span<const TokenId> tokens_from(std::uint32_t node) const noexcept {
    return {tokens_.data() + nodes_[node].tokens, tokens_.data() + nodes_[nodes_[node].end].tokens};
  }
  std::size_t memory_bytes() const noexcept {
    return nodes_.capacity() * sizeof(Node) + kinds_below_.capacity() * sizeof(ByteKinds) +
           tokens_.capacity() * sizeof(TokenId);
  }

 private:
  std::vector<Node> nodes_;             // and a sentinel
  std::vector<ByteKinds> kinds_below_;  // [num_nodes]
  std::vector<TokenId> tokens_;         // in the order of their bytes
  std::array<std::uint32_t, 256> top_{};
};

}  // namespace specdec::grammar
