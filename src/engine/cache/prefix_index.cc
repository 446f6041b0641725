#include "engine/cache/prefix_index.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "specdec/error.h"

namespace specdec {
namespace {

void require(bool condition, const char* what) {
  if (!condition) throw Error(ErrorCode::internal, std::string("prefix index: ") + what);
}

int common_prefix(std::span<const TokenId> a, std::span<const TokenId> b) {
  const std::size_t n = std::min(a.size(), b.size());
  return static_cast<int>(std::mismatch(a.begin(), a.begin() + n, b.begin()).first - a.begin());
}

}  // namespace

PrefixIndex::PrefixIndex(int num_blocks, int block_size, std::uint64_t hash_key,
                         std::uint64_t hash_mask)
    : block_size_(block_size),
      // SipHash wants 128 bits of key; the second half is the first one, stirred.
      key_{hash_key, (hash_key ^ 0x9e3779b97f4a7c15u) * 0xbf58476d1ce4e5b9u},
      hash_mask_(hash_mask),
      nodes_(index(num_blocks)),
      tokens_(index(num_blocks) * index(block_size)),
      node_of_block_(index(num_blocks), kNotFound),
      hash_input_(sizeof(std::uint64_t) + index(block_size) * sizeof(TokenId)) {
  for (PrefixNode node = num_blocks - 1; node >= 0; --node) free_nodes_.push_back(node);
}

int PrefixIndex::acquire_root(std::string_view cache_salt) {
  std::string salt(cache_salt);
  if (const auto it = roots_by_salt_.find(salt); it != roots_by_salt_.end()) {
    ++roots_[index(it->second)].users;
    return it->second;
  }
  if (free_roots_.empty()) {
    free_roots_.reserve(roots_.size() + 1);  // giving roots back must not allocate
    roots_.emplace_back();
    free_roots_.push_back(static_cast<int>(roots_.size()) - 1);
  }
  const int id = free_roots_.back();
  roots_by_salt_.emplace(salt, id);
  free_roots_.pop_back();
  Root& root = roots_[index(id)];
  root.hash = hash(std::as_bytes(std::span(salt)));
  root.users = 1;
  root.salt = std::move(salt);
  return id;
}

void PrefixIndex::release_root(int root) noexcept {
  --roots_[index(root)].users;
  drop_root_if_unused(root);
}

void PrefixIndex::drop_root_if_unused(int root) noexcept {
  Root& it = roots_[index(root)];
  if (it.users > 0 || it.first_child != kNotFound) return;
  roots_by_salt_.erase(it.salt);
  it = Root{};
  free_roots_.push_back(root);
}

PrefixNode& PrefixIndex::first_child(PrefixNode parent) noexcept {
  return parent < 0 ? roots_[index(~parent)].first_child : nodes_[index(parent)].first_child;
}

PrefixNode PrefixIndex::first_child(PrefixNode parent) const noexcept {
  return parent < 0 ? roots_[index(~parent)].first_child : nodes_[index(parent)].first_child;
}

std::uint64_t PrefixIndex::hash(std::span<const std::byte> bytes) const noexcept {
  return siphash_2_4(key_, bytes) & hash_mask_;
}

std::uint64_t PrefixIndex::child_hash(PrefixNode parent, std::span<const TokenId> tokens) const {
  const std::uint64_t above = parent < 0 ? roots_[index(~parent)].hash : nodes_[index(parent)].hash;
  std::memcpy(hash_input_.data(), &above, sizeof above);
  std::memcpy(hash_input_.data() + sizeof above, tokens.data(), tokens.size_bytes());
  return hash(std::span(hash_input_).first(sizeof above + tokens.size_bytes()));
}

std::span<const TokenId> PrefixIndex::tokens(PrefixNode node) const noexcept {
  return std::span(tokens_).subspan(index(node) * index(block_size_),
                                    index(nodes_[index(node)].num_tokens));
}

PrefixNode PrefixIndex::find(PrefixNode parent, std::span<const TokenId> tokens) const {
  const auto it = by_hash_.find(child_hash(parent, tokens));
  if (it == by_hash_.end()) return kNotFound;
  for (PrefixNode node = it->second; node != kNotFound; node = nodes_[index(node)].next_same_hash)
    if (nodes_[index(node)].parent == parent && std::ranges::equal(this->tokens(node), tokens))
      return node;
  return kNotFound;
}

PrefixIndex::Partial PrefixIndex::find_partial(PrefixNode parent,
                                               std::span<const TokenId> tokens) const {
  Partial best;
  int scanned = 0;
  for (PrefixNode node = first_child(parent); node != kNotFound && scanned < kMaxScan;
       node = nodes_[index(node)].next_sibling, ++scanned) {
    const int common = common_prefix(this->tokens(node), tokens);
    if (common > best.num_tokens) best = {node, common};
  }
  return best;
}

PrefixNode PrefixIndex::insert(PrefixNode parent, std::span<const TokenId> tokens, BlockId block) {
  const std::uint64_t hash = child_hash(parent, tokens);
  const bool full = static_cast<int>(tokens.size()) == block_size_;
  const PrefixNode id = free_nodes_.back();  // as many nodes as blocks, and one node a block
  PrefixNode same_hash = kNotFound;
  if (full) {
    const auto [it, added] = by_hash_.try_emplace(hash, id);
    if (!added) same_hash = std::exchange(it->second, id);
  }
  free_nodes_.pop_back();
  Node& node = nodes_[index(id)];
  node = Node{};
  node.hash = hash;
  node.parent = parent;
  node.next_same_hash = same_hash;
  node.block = block;
  node.num_tokens = static_cast<std::int32_t>(tokens.size());
  PrefixNode& first = first_child(parent);
  node.next_sibling = first;
  if (first != kNotFound) nodes_[index(first)].previous_sibling = id;
  first = id;
  std::ranges::copy(tokens, tokens_.begin() + id * block_size_);
  node_of_block_[index(block)] = id;
  ++size_;
  return id;
}

void PrefixIndex::replace_block(PrefixNode node, BlockId block) noexcept {
  node_of_block_[index(nodes_[index(node)].block)] = kNotFound;
  node_of_block_[index(block)] = node;
  nodes_[index(node)].block = block;
}

void PrefixIndex::erase_leaf(PrefixNode id) noexcept {
  Node& node = nodes_[index(id)];
  if (node.num_tokens == block_size_) {
    const auto it = by_hash_.find(node.hash);
    PrefixNode* link = &it->second;
    while (*link != id) link = &nodes_[index(*link)].next_same_hash;
    *link = node.next_same_hash;
    if (it->second == kNotFound) by_hash_.erase(it);
  }
  (node.previous_sibling != kNotFound ? nodes_[index(node.previous_sibling)].next_sibling
                                      : first_child(node.parent)) = node.next_sibling;
  if (node.next_sibling != kNotFound)
    nodes_[index(node.next_sibling)].previous_sibling = node.previous_sibling;
  node_of_block_[index(node.block)] = kNotFound;
  if (node.parent < 0) drop_root_if_unused(~node.parent);
  node = Node{};
  free_nodes_.push_back(id);  // never reallocates: it held every node at first
  --size_;
}

void PrefixIndex::check() const {
  std::vector<char> used(nodes_.size(), 1);
  for (PrefixNode node : free_nodes_) {
    require(used[index(node)] == 1, "a node is in the free list twice");
    used[index(node)] = 0;
  }
  require(nodes_.size() - free_nodes_.size() == index(size_), "size is wrong");
  int in_child_lists = 0;
  const auto check_children = [&](PrefixNode parent) {
    PrefixNode previous = kNotFound;
    for (PrefixNode node = first_child(parent); node != kNotFound;
         node = nodes_[index(node)].next_sibling) {
      const Node& it = nodes_[index(node)];
      require(used[index(node)] == 1, "a child is a free node");
      require(it.parent == parent, "a child names another parent");
      require(it.previous_sibling == previous, "sibling links disagree");
      require(++in_child_lists <= size_, "a node is in two child lists");
      previous = node;
    }
  };
  int full_nodes = 0;
  for (PrefixNode id = 0; id < static_cast<PrefixNode>(nodes_.size()); ++id) {
    const Node& node = nodes_[index(id)];
    if (!used[index(id)]) continue;
    check_children(id);
    require(node.num_tokens >= 1 && node.num_tokens <= block_size_, "a node's size is wrong");
    require(node_of_block_[index(node.block)] == id, "a node's block belongs to another node");
    require(child_hash(node.parent, tokens(id)) == node.hash, "a node's hash is not its tokens'");
    if (node.num_tokens < block_size_) {
      require(node.first_child == kNotFound, "a partial block has children");
    } else {
      ++full_nodes;
      require(find(node.parent, tokens(id)) == id, "a full block is not found by its tokens");
    }
  }
  for (int root = 0; root < static_cast<int>(roots_.size()); ++root) {
    const Root& it = roots_[index(root)];
    const bool live = it.users > 0 || it.first_child != kNotFound;
    const auto entry = roots_by_salt_.find(it.salt);
    require(live == (entry != roots_by_salt_.end() && entry->second == root),
            "a salt and its root disagree");
    if (live) check_children(~root);
  }
  require(in_child_lists == size_, "a node is in no child list");
  int in_hash_lists = 0;
  for (const auto& [hash, first] : by_hash_)
    for (PrefixNode node = first; node != kNotFound; node = nodes_[index(node)].next_same_hash)
      require(nodes_[index(node)].hash == hash && ++in_hash_lists <= full_nodes,
              "a hash list is wrong");
  require(in_hash_lists == full_nodes, "a full block is in no hash list");
  require(
      std::ranges::count_if(node_of_block_, [](PrefixNode n) { return n != kNotFound; }) == size_,
      "a block names a node that is gone");
}

}  // namespace specdec
