#include "sampling/grammar/token_trie.h"

#include <algorithm>
#include <utility>

namespace specdec::grammar {

TokenTrie::TokenTrie(std::span<const std::string_view> bytes, std::vector<TokenId> tokens)
    : tokens_(std::move(tokens)) {
  const auto text = [&](TokenId token) { return bytes[static_cast<std::size_t>(token)]; };
  std::sort(tokens_.begin(), tokens_.end(), [&](TokenId a, TokenId b) {
    const int order = text(a).compare(text(b));
    return order != 0 ? order < 0 : a < b;
  });

  nodes_.push_back({});
  kinds_below_.push_back(0);
  std::vector<std::uint32_t> path{0};  // the nodes of the last token's bytes, the root first
  std::string_view last;
  const auto close_to = [&](std::size_t depth) {
    while (path.size() > depth + 1) {
      Node& node = nodes_[path.back()];
      node.end = static_cast<std::uint32_t>(nodes_.size());
      const ByteKinds kinds = kinds_below_[path.back()] | ByteKinds{1} << kind_of(node.byte);
      path.pop_back();
      kinds_below_[path.back()] |= kinds;
      Node& parent = nodes_[path.back()];
      const int height = std::min<int>(node.height + 1, kMaxHeight);
      parent.height = std::max(parent.height, static_cast<std::uint8_t>(height));
    }
  };
  for (std::uint32_t i = 0; i < tokens_.size(); ++i) {
    const std::string_view token = text(tokens_[i]);
    std::size_t shared = 0;
    while (shared < std::min(token.size(), last.size()) && token[shared] == last[shared]) ++shared;
    close_to(shared);
    for (std::size_t at = shared; at < token.size(); ++at) {
      path.push_back(static_cast<std::uint32_t>(nodes_.size()));
      if (at == 0) top_[static_cast<unsigned char>(token[0])] = path.back();
      nodes_.push_back({0, i, static_cast<unsigned char>(token[at])});
      kinds_below_.push_back(0);
    }
    last = token;
  }
  close_to(0);
  nodes_[0].end = static_cast<std::uint32_t>(nodes_.size());
  nodes_.push_back({0, static_cast<std::uint32_t>(tokens_.size()), 0});
}

}  // namespace specdec::grammar
