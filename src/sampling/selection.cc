#include "sampling/selection.h"

#include <algorithm>

#include "sampling/mutation.h"

namespace specdec {

Cutoff WeightedSelection::select(std::span<const WeightedToken> tokens, std::int64_t target) {
  struct Digit {
    int shift;
    std::uint32_t mask;
  };
  constexpr Digit kDigits[] = {{21, 0x7FF}, {10, 0x7FF}, {0, 0x3FF}};

  std::span<const WeightedToken> open = tokens;
  std::uint32_t prefix = 0;
  std::int64_t sum = 0;  // of the tokens that are certainly kept
  for (const auto& [shift, mask] : kDigits) {
    histogram_.assign(mask + 1, 0);
    std::uint32_t highest = 0;
    for (const WeightedToken& item : open) {
      const std::uint32_t digit = (item.key >> shift) & mask;
      histogram_[digit] += item.weight;
      highest = std::max(highest, digit);
    }
    std::int64_t digit = highest;
    while (digit >= 0 && sum + histogram_[static_cast<std::size_t>(digit)] < target) {
      sum += histogram_[static_cast<std::size_t>(digit)];
      --digit;
    }
    if (digit < 0) return Cutoff{};
    prefix |= static_cast<std::uint32_t>(digit) << shift;
    std::size_t kept = 0;
    if (open.data() == tokens.data()) open_.resize(tokens.size());
    for (const WeightedToken& item : open) {
      if ((item.key >> shift) == (prefix >> shift)) open_[kept++] = item;
    }
    open = std::span(open_).first(kept);
  }

  // All that is open now has one key: the lowest ids go first.
  if (mutant_active("ties_keep_highest_id"))
    std::reverse(open_.begin(), open_.begin() + static_cast<std::ptrdiff_t>(open.size()));
  for (const WeightedToken& item : open) {
    sum += item.weight;
    if (sum >= target) return {prefix, item.token};
  }
  return {prefix, INT32_MAX};
}

}  // namespace specdec
