#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "specdec/types.h"

namespace specdec {

/// One merge rule; its rank is its index: the lowest rank merges first.
struct BpeMerge {
  TokenId left;
  TokenId right;
  TokenId merged;
};

/// The merge rules of a byte-level BPE model, found by the pair of ids that they join.
class BpeMerges {
 public:
  static constexpr std::uint32_t kNone = UINT32_MAX;

  explicit BpeMerges(std::vector<BpeMerge> merges);

  /// The rank of the rule that joins `left` and `right`, or kNone.
  std::uint32_t rank(TokenId left, TokenId right) const noexcept;
  const BpeMerge& operator[](std::uint32_t rank) const noexcept { return merges_[rank]; }
  /// The first rule whose pair an earlier rule joins already, or kNone.
  std::uint32_t first_duplicate() const noexcept { return first_duplicate_; }

  /// Merges `symbols` until no rule applies and appends the result to `tokens`: again and again the
  /// rule of lowest rank, at its leftmost place (Sennrich et al. 2016, arXiv 1508.07909, as
  /// Python's `tokenizers` runs it). O(n log n) in the number of symbols; overwrites `symbols`.
  void apply(std::span<TokenId> symbols, std::vector<TokenId>& tokens) const;

 private:
  void apply_short(std::span<TokenId> symbols, std::vector<TokenId>& tokens) const;
  void apply_long(std::span<TokenId> symbols, std::vector<TokenId>& tokens) const;
  std::size_t slot(TokenId left, TokenId right) const noexcept;

  std::vector<BpeMerge> merges_;  // [rank]
  std::vector<std::uint32_t>
      table_;  // [power of two >= 2 * merges]; rank or kNone, open addressing
  std::uint32_t first_duplicate_ = kNone;
  int shift_ = 63;
};

}  // namespace specdec
