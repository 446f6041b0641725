#pragma once

#include <span>

#include "draft/draft_model.h"
#include "engine/backend/kv_pool.h"
#include "engine/model/transformer.h"
#include "engine/sequence.h"

namespace specdec {

/// A draft model together with the sequences of the step that it drafts for.
class DraftAdapter : public DraftModel {
 public:
  /// The sequences that DraftRows::sequence counts, until the next call.
  virtual void begin(std::span<Sequence* const> sequences) = 0;
  /// The draft's slices of the cache's blocks.
  virtual const KvPoolStorage& pool() const noexcept = 0;
  /// Runs rows as they are, to see what a pass costs.
  virtual void run(const ForwardBatch& batch) = 0;
};

/// A Llama model as a draft.
class TransformerAdapter final : public DraftAdapter {
 public:
  TransformerAdapter(std::unique_ptr<Transformer> transformer, int max_context);

  void begin(std::span<Sequence* const> sequences) override { sequences_ = sequences; }
  const KvPoolStorage& pool() const noexcept override { return transformer_->pool(); }
  int vocab_size() const override { return transformer_->config().vocab_size; }
  int max_rows() const override { return transformer_->max_rows(); }
  int max_position() const override { return max_position_; }
  std::span<const float> forward(std::span<const DraftRows> batch) override;
  void run(const ForwardBatch& batch) override { transformer_->forward(batch, Stream{}); }

 private:
  std::unique_ptr<Transformer> transformer_;
  int max_position_;
  std::span<Sequence* const> sequences_;
  ForwardBatch batch_;
};

}  // namespace specdec
