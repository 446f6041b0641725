#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <unordered_map>
#include <vector>

#include "sampling/grammar/token_masks.h"

namespace specdec::grammar {

/// Masks as shared rows, by state: a state met again costs a look-up, and equal states of a draft
/// tree, of two steps or of two requests have one row among them. Two generations bound what is
/// kept: a row that is not asked for while the younger one fills goes with the older. Whoever
/// holds a row keeps it. Not thread-safe.
class MaskRows {
 public:
  using Row = std::shared_ptr<const std::vector<std::uint64_t>>;

  static constexpr std::size_t kMaxBytes = std::size_t{4} << 20;

  /// `words`: of a mask.
  explicit MaskRows(std::size_t words, std::size_t max_bytes = kMaxBytes);

  /// The mask of `state`. Throws what TokenMasks::fill throws.
  Row of(GrammarState state, TokenMasks& masks);
  /// No token.
  const Row& none() const noexcept { return none_; }
  std::size_t size() const noexcept { return young_.size() + old_.size(); }
  std::size_t memory_bytes() const noexcept { return size() * row_bytes_; }

 private:
  using Generation = std::unordered_map<std::uint32_t, Row>;  // by the state's id

  std::size_t row_bytes_;
  std::size_t generation_size_;
  Row none_;
  Generation young_;
  Generation old_;
};

}  // namespace specdec::grammar
