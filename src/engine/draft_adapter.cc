#include "engine/draft_adapter.h"

#include <algorithm>

namespace specdec {

std::span<const float> TokenAdapter::forward(std::span<const DraftRows> batch) {
  batch_.clear();
  for (const DraftRows& rows : batch) {
    batch_.begin_sequence(rows.context_len,
                          sequences_[static_cast<std::size_t>(rows.sequence)]->kv.block_table());
    for (const DraftRow& row : rows.rows) batch_.add_row(row);
  }
  return run(batch_);
}

TransformerAdapter::TransformerAdapter(std::unique_ptr<Transformer> transformer, int max_context)
    : transformer_(std::move(transformer)),
      max_position_(std::min(max_context, transformer_->config().max_position)) {}

std::span<const float> TransformerAdapter::run(const ForwardBatch& batch) {
  return transformer_->forward(batch, Stream{});
}

}  // namespace specdec
