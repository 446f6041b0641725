#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "specdec/types.h"

namespace specdec {

/// A token that competes for a place among the best: order_key of its score, and what it weighs.
struct WeightedToken {
  std::uint32_t key = 0;
  TokenId token = 0;
  std::int32_t weight = 1;
};

/// The last token that is kept, in the order of (key descending, token ascending).
struct Cutoff {
  std::uint32_t key = 0;
  TokenId token = INT32_MAX;

  bool keeps(std::uint32_t other_key, TokenId other_token) const noexcept {
    return other_key > key || (other_key == key && other_token <= token);
  }
};

/// Finds the smallest prefix, in the order above, whose weights sum to at least `target`; all of
/// the tokens when they never do. Sums are integers, so the result does not depend on the order of
/// summation. No sort: a radix selection in three passes, each over what the one before left open.
class WeightedSelection {
 public:
  /// `tokens` come by ascending token id; weights >= 0, target >= 1.
  Cutoff select(std::span<const WeightedToken> tokens, std::int64_t target);

 private:
  std::vector<std::int64_t> histogram_;
  std::vector<WeightedToken> open_;
};

}  // namespace specdec
