#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "engine/cache/kv_cache_manager.h"
#include "engine/cache/siphash.h"

namespace specdec {

/// A node of the index: one block of tokens after one particular prefix. A negative number stands
/// for an empty prefix under one cache_salt: root r is node ~r.
using PrefixNode = std::int32_t;

/// Which block holds the KV of which tokens: a trie whose edges are blocks of tokens, with one root
/// per cache_salt. Full children are found by a keyed hash of (the parent's hash, the tokens); a
/// match is taken only when the parent is the same node and every token is equal, so by induction
/// the whole prefix and the salt are equal, whatever the hash does. A node of fewer than block_size
/// tokens (a sequence's tail) has no children and is found by comparing tokens.
class PrefixIndex {
 public:
  static constexpr PrefixNode kNotFound = INT32_MIN;

  PrefixIndex(int num_blocks, int block_size, std::uint64_t hash_key, std::uint64_t hash_mask);

  /// The root for a salt, with one user more; release_root() once per acquire_root().
  int acquire_root(std::string_view cache_salt);
  void release_root(int root) noexcept;

  /// The child of `parent` for these block_size tokens, or kNotFound.
  PrefixNode find(PrefixNode parent, std::span<const TokenId> tokens) const;
  /// The child of `parent` that begins with most of `tokens` (fewer than block_size), and how many.
  /// Looks at kMaxScan children, the youngest first, so that a popular prefix stays cheap.
  struct Partial {
    PrefixNode node = kNotFound;
    int num_tokens = 0;
  };
  Partial find_partial(PrefixNode parent, std::span<const TokenId> tokens) const;
  static constexpr int kMaxScan = 64;

  /// Adds a child of 1 to block_size tokens, held by `block`, which has no node yet. A full one
  /// must be new to find().
  PrefixNode insert(PrefixNode parent, std::span<const TokenId> tokens, BlockId block);
  /// Another block holds the same content from now on.
  void replace_block(PrefixNode node, BlockId block) noexcept;
  /// Removes a node without children.
  void erase_leaf(PrefixNode node) noexcept;

  BlockId block(PrefixNode node) const noexcept { return nodes_[index(node)].block; }
  PrefixNode parent(PrefixNode node) const noexcept { return nodes_[index(node)].parent; }
  int num_tokens(PrefixNode node) const noexcept { return nodes_[index(node)].num_tokens; }
  bool has_children(PrefixNode node) const noexcept {
    return nodes_[index(node)].first_child != kNotFound;
  }
  /// The node that `block` holds, or kNotFound.
  PrefixNode node_of(BlockId block) const noexcept { return node_of_block_[index(block)]; }
  int size() const noexcept { return size_; }
  int num_roots() const noexcept { return static_cast<int>(roots_by_salt_.size()); }

  /// Throws Error(internal) naming the first contradiction.
  void check() const;

 private:
  struct Node {
    std::uint64_t hash = 0;
    PrefixNode parent = kNotFound;
    PrefixNode first_child = kNotFound;  // youngest first
    PrefixNode next_sibling = kNotFound;
    PrefixNode previous_sibling = kNotFound;
    PrefixNode next_same_hash = kNotFound;
    BlockId block = -1;
    std::int32_t num_tokens = 0;
  };
  struct Root {
    std::uint64_t hash = 0;
    PrefixNode first_child = kNotFound;
    int users = 0;
    std::string salt;
  };

  static std::size_t index(std::int32_t i) noexcept { return static_cast<std::size_t>(i); }
  PrefixNode& first_child(PrefixNode parent) noexcept;
  PrefixNode first_child(PrefixNode parent) const noexcept;
  std::uint64_t hash(std::span<const std::byte> bytes) const noexcept;
  std::uint64_t child_hash(PrefixNode parent, std::span<const TokenId> tokens) const;
  std::span<const TokenId> tokens(PrefixNode node) const noexcept;
  void drop_root_if_unused(int root) noexcept;

  int block_size_;
  SipHashKey key_;
  std::uint64_t hash_mask_;
  std::vector<Node> nodes_;      // [num_blocks]
  std::vector<TokenId> tokens_;  // [num_blocks, block_size]: the tokens of node i
  std::vector<PrefixNode> free_nodes_;
  std::vector<PrefixNode> node_of_block_;  // [num_blocks]
  std::unordered_map<std::uint64_t, PrefixNode> by_hash_;
  std::vector<Root> roots_;
  std::vector<int> free_roots_;
  std::unordered_map<std::string, int> roots_by_salt_;
  int size_ = 0;
  mutable std::vector<std::byte> hash_input_;
};

}  // namespace specdec
