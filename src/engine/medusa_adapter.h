#pragma once

#include <memory>
#include <span>
#include <vector>

#include "engine/draft_adapter.h"
#include "engine/feature_store.h"
#include "engine/model/medusa_heads.h"

namespace specdec {

/// Medusa heads as a draft model without KV: each level of a draft is a head's, whatever tokens lie
/// above it. All of them read the target's feature of the token before the root.
class MedusaAdapter final : public FeatureAdapter {
 public:
  /// `max_sequences`: that may hold a feature at a time.
  MedusaAdapter(Backend& backend, std::unique_ptr<MedusaHeads> heads, int max_context,
                int max_sequences);

  void begin(std::span<Sequence* const> sequences) override { sequences_ = sequences; }
  const KvPoolStorage* pool() const noexcept override { return nullptr; }
  int vocab_size() const override { return heads_->vocab_size(); }
  int max_rows() const override { return max_context_; }
  int max_position() const override { return max_context_; }
  int max_depth() const noexcept override { return heads_->num_heads(); }
  /// The rows of a sequence are of one depth.
  std::span<const float> forward(std::span<const DraftRows> batch) override;
  std::span<const float> run(const ForwardBatch& batch) override;

  HiddenStateTap& tap() noexcept override { return *heads_; }
  void keep(Sequence& sequence, int first_entry, std::span<const std::int32_t> rows) override;

 private:
  std::unique_ptr<MedusaHeads> heads_;
  int max_context_;
  FeatureStore features_;
  std::span<Sequence* const> sequences_;
  std::vector<float> logits_;  // [outputs, vocab]
};

}  // namespace specdec
