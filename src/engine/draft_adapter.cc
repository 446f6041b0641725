#include "engine/draft_adapter.h"

#include <algorithm>

#include "sampling/mutation.h"

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

EarlyExitAdapter::EarlyExitAdapter(Transformer& target, int exit_layer, int max_context)
    : target_(target),
      exit_layer_(exit_layer - (mutant_active("exit_layer_off_by_one") ? 1 : 0)),
      max_position_(std::min(max_context, target.config().max_position)) {}

const KvPoolStorage* EarlyExitAdapter::pool() const noexcept {
  return mutant_active("shared_kv_moved_twice") ? &target_.pool() : nullptr;
}

std::span<const float> EarlyExitAdapter::run(const ForwardBatch& batch) {
  return target_.forward_early(batch, exit_layer_, Stream{});
}

}  // namespace specdec
