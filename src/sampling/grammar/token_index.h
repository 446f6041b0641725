#pragma once

#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

#include "sampling/grammar/regex_pool.h"
#include "sampling/grammar/token_trie.h"

namespace specdec::grammar {

/// A vocabulary, sorted for masks. Inside a JSON string most tokens are of one kind: *plain*, whole
/// UTF-8 characters without quotes, backslashes and control characters. They have a tree of their
/// own and bits made in advance, by their number of characters, so that a lexeme that takes any
/// plain character need not be tried on each. Tokens are *short* or long: short ones cannot tell
/// how far a lexeme's far bounds are. Immutable.
class TokenIndex {
 public:
  static constexpr std::size_t kMaxShortBytes = RegexPool::kNearBytes;

  /// `bytes`: of each token, by id; tokens without bytes are in no place of it.
  explicit TokenIndex(std::span<const std::string_view> bytes);

  std::size_t words() const noexcept { return words_; }
  const TokenTrie& marked() const noexcept { return marked_; }  ///< short, not plain
  const TokenTrie& plain() const noexcept { return plain_; }    ///< short
  const TokenTrie& long_marked() const noexcept { return long_marked_; }
  const TokenTrie& long_plain() const noexcept { return long_plain_; }
  bool is_plain(const TokenTrie& trie) const noexcept {
    return &trie == &plain_ || &trie == &long_plain_;
  }
  /// The short plain tokens of at most `chars` characters, 1 to kMaxShortBytes. [words()]
  std::span<const std::uint64_t> plain_up_to(std::size_t chars) const noexcept {
    return {bits_.data() + (chars - 1) * words_, words_};
  }
  std::span<const std::uint64_t> all_plain() const noexcept { return plain_up_to(kMaxShortBytes); }
  /// The short plain tokens that hold a byte of the kind. [words()]
  std::span<const std::uint64_t> holding(int kind) const noexcept {
    return {holding_.data() + static_cast<std::size_t>(kind) * words_, words_};
  }
  std::size_t memory_bytes() const noexcept {
    return marked_.memory_bytes() + plain_.memory_bytes() + long_marked_.memory_bytes() +
           long_plain_.memory_bytes() +
           (bits_.capacity() + holding_.capacity()) * sizeof(std::uint64_t);
  }

 private:
  std::size_t words_;
  std::vector<std::uint64_t> bits_;     // [kMaxShortBytes, words_]
  std::vector<std::uint64_t> holding_;  // [kNumByteKinds, words_]
  TokenTrie marked_, plain_, long_marked_, long_plain_;
};

}  // namespace specdec::grammar
