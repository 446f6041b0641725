#include "sampling/grammar/mask_rows.h"

#include <algorithm>
#include <utility>

#include "sampling/mutation.h"

namespace specdec::grammar {

MaskRows::MaskRows(std::size_t words, std::size_t max_bytes)
    : row_bytes_(words * sizeof(std::uint64_t) + sizeof(Generation::value_type)),
      generation_size_(std::max<std::size_t>(1, max_bytes / 2 / row_bytes_)),
      none_(std::make_shared<std::vector<std::uint64_t>>(words)) {}

MaskRows::Row MaskRows::of(GrammarState state, TokenMasks& masks) {
  if (const auto found = young_.find(state.id); found != young_.end()) return found->second;
  Row row;
  if (auto kept = old_.extract(state.id); !kept.empty()) {
    row = std::move(kept.mapped());
  } else {
    auto bits = std::make_shared<std::vector<std::uint64_t>>(none_->size());
    masks.fill(state, *bits);
    row = std::move(bits);
  }
  if (young_.size() == generation_size_) old_ = std::exchange(young_, {});
  young_.emplace(mutant_active("mask_rows_mixed") ? state.id + 1 : state.id, row);
  return row;
}

}  // namespace specdec::grammar
