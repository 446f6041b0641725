#include "engine/medusa_adapter.h"

#include <algorithm>
#include <utility>

#include "sampling/mutation.h"

namespace specdec {

MedusaAdapter::MedusaAdapter(Backend& backend, std::unique_ptr<MedusaHeads> heads, int max_context,
                             int max_sequences)
    : heads_(std::move(heads)),
      max_context_(max_context),
      features_(backend, max_sequences, heads_->hidden_size()) {}

void MedusaAdapter::keep(Sequence& sequence, int first_entry, std::span<const std::int32_t> rows) {
  const std::size_t last = rows.size() - 1;
  const std::size_t kept = mutant_active("medusa_feature_before") && last > 0 ? last - 1 : last;
  sequence.features.clear();
  features_.append(sequence.features, first_entry + static_cast<int>(last), heads_->features(),
                   rows.subspan(kept, 1), Stream{});
}

std::span<const float> MedusaAdapter::forward(std::span<const DraftRows> batch) {
  logits_.clear();
  // The sequences of a pass may be at different depths only in principle: each run of equal ones is
  // a pass of its head.
  for (std::size_t begin = 0; begin < batch.size();) {
    const auto depth_of = [&](const DraftRows& rows) {
      return rows.rows.back().position -
             (sequences_[static_cast<std::size_t>(rows.sequence)]->size() - 1);
    };
    const int depth = depth_of(batch[begin]);
    std::size_t end = begin;
    std::vector<std::int32_t> features;
    for (; end < batch.size() && depth_of(batch[end]) == depth; ++end) {
      const FeatureRows& kept = sequences_[static_cast<std::size_t>(batch[end].sequence)]->features;
      features.push_back(kept.row(kept.end() - 1));
    }
    const std::span<const float> logits =
        heads_->forward(depth, features_.data(), features, Stream{});
    const auto vocab = static_cast<std::size_t>(vocab_size());
    for (std::size_t i = begin; i < end; ++i) {
      const std::span<const float> row = logits.subspan((i - begin) * vocab, vocab);
      for (const DraftRow& wanted : batch[i].rows)
        if (wanted.wants_logits) logits_.insert(logits_.end(), row.begin(), row.end());
    }
    begin = end;
  }
  return logits_;
}

std::span<const float> MedusaAdapter::run(const ForwardBatch& batch) {
  // As a tree's level: one sequence's feature, and as many rows as ask for it.
  const std::int32_t feature = 0;
  const std::span<const float> row =
      heads_->forward(0, features_.data(), std::span(&feature, 1), Stream{});
  logits_.clear();
  for (int i = 0; i < batch.num_outputs(); ++i)
    logits_.insert(logits_.end(), row.begin(), row.end());
  return logits_;
}

}  // namespace specdec
