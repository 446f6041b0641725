#pragma once

#include <array>
#include <cstdint>
#include <string_view>
#include <vector>

#include "specdec/types.h"

namespace specdec {

/// Finds the text of special tokens: a trie over bytes.
class SpecialTokens {
 public:
  SpecialTokens();

  /// `text` must not be empty. False when the text is there already.
  bool add(std::string_view text, TokenId token, bool is_text);

  struct Match {
    std::size_t begin = 0;
    std::size_t end = 0;
    TokenId token = -1;
  };
  /// The leftmost match at or after `from`, the longest of those that begin there (as Python's
  /// `tokenizers` cuts added tokens); token -1 with begin = end = text.size() when there is none.
  /// `text_only`: tokens added with is_text alone.
  Match find(std::string_view text, std::size_t from, bool text_only) const;

 private:
  struct Node {
    std::uint32_t first_child = 0;  // 0: none
    std::uint32_t next_sibling = 0;
    TokenId token = -1;
    char byte = 0;
    bool is_text = false;
  };
  std::uint32_t child(std::uint32_t node, char byte) const;

  std::vector<Node> nodes_;               // [0] is unused
  std::array<std::uint32_t, 256> roots_;  // by first byte
};

}  // namespace specdec
