#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <unordered_map>
#include <vector>

#include "specdec/types.h"

namespace specdec {

/// Finds where the end of a text occurred before: every position is linked to the previous one that
/// ends with the same two tokens. Append-only; about 16 bytes a token.
///
/// It answers what a suffix tree with counts answers about the latest occurrences, in a tenth of
/// its memory.
class SuffixIndex {
 public:
  /// An earlier place that agrees with the last `match` tokens of a context; `end` is the index of
  /// the token that followed.
  struct Occurrence {
    std::int32_t end = 0;
    int match = 0;
  };

  void append(TokenId token);
  /// No match reaches across it.
  void end_document() { append(kEnd); }
  int size() const noexcept { return static_cast<int>(tokens_.size()); }
  std::size_t bytes() const noexcept;
  /// The token at `index`, or a negative number at a document's end and beyond the last token.
  TokenId token(int index) const noexcept {
    return index < size() ? tokens_[static_cast<std::size_t>(index)] : kEnd;
  }

  /// The latest occurrences of the end of `context` that agree with at least two tokens and are
  /// followed by one, the latest first, at most kMostOccurrences. Matches are counted up to
  /// `longest` tokens.
  void find(std::span<const TokenId> context, int longest, std::vector<Occurrence>& out) const;
  static constexpr int kMostOccurrences = 64;

 private:
  static constexpr TokenId kEnd = -1;
  static std::uint64_t key(TokenId a, TokenId b) noexcept {
    return static_cast<std::uint64_t>(static_cast<std::uint32_t>(a)) << 32U |
           static_cast<std::uint32_t>(b);
  }

  std::vector<TokenId> tokens_;
  std::vector<std::int32_t> previous_;  // [tokens] the one before with the same two tokens, or -1
  std::unordered_map<std::uint64_t, std::int32_t> latest_;  // two tokens -> index of the second
};

}  // namespace specdec
