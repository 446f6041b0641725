#include "engine/text/special_tokens.h"

namespace specdec {

SpecialTokens::SpecialTokens() : nodes_(1) { roots_.fill(0); }

std::uint32_t SpecialTokens::child(std::uint32_t node, char byte) const {
  std::uint32_t at = nodes_[node].first_child;
  while (at != 0 && nodes_[at].byte != byte) at = nodes_[at].next_sibling;
  return at;
}

bool SpecialTokens::add(std::string_view text, TokenId token, bool is_text) {
  const auto create = [&](char byte) {
    nodes_.push_back({.byte = byte});
    return static_cast<std::uint32_t>(nodes_.size() - 1);
  };
  std::uint32_t& root = roots_[static_cast<unsigned char>(text.front())];
  if (root == 0) root = create(text.front());
  std::uint32_t node = root;
  for (const char byte : text.substr(1)) {
    std::uint32_t next = child(node, byte);
    if (next == 0) {
      next = create(byte);
      nodes_[next].next_sibling = nodes_[node].first_child;
      nodes_[node].first_child = next;
    }
    node = next;
  }
  if (nodes_[node].token >= 0) return false;
  nodes_[node].token = token;
  nodes_[node].is_text = is_text;
  return true;
}

SpecialTokens::Match SpecialTokens::find(std::string_view text, std::size_t from,
                                         bool text_only) const {
  for (std::size_t begin = from; begin < text.size(); ++begin) {
    Match best{begin, begin, -1};
    std::uint32_t node = roots_[static_cast<unsigned char>(text[begin])];
    for (std::size_t at = begin + 1; node != 0; ++at) {
      if (nodes_[node].token >= 0 && (nodes_[node].is_text || !text_only)) {
        best.end = at;
        best.token = nodes_[node].token;
      }
      if (at >= text.size()) break;
      node = child(node, text[at]);
    }
    if (best.token >= 0) return best;
  }
  return {text.size(), text.size(), -1};
}

}  // namespace specdec
