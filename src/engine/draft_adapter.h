#pragma once

#include <cstdint>
#include <limits>
#include <memory>
#include <span>
#include <vector>

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
  /// The draft's own slices of the cache's blocks; null: it keeps no KV beside the target's.
  virtual const KvPoolStorage* pool() const noexcept = 0;
  /// The deepest level that it can draft.
  virtual int max_depth() const noexcept { return std::numeric_limits<int>::max(); }
  /// Runs rows as they are and returns their logits: forward() without sequences, or what shows the
  /// cost of a pass.
  virtual std::span<const float> run(const ForwardBatch& batch) = 0;
};

/// A draft that reads the target's hidden states.
class FeatureAdapter : public DraftAdapter {
 public:
  /// For the target's next pass.
  virtual HiddenStateTap& tap() noexcept = 0;
  /// Keeps features of that pass, its `rows`, for the entries of `sequence` from first_entry on: an
  /// entry joins a token with the feature of the token before.
  virtual void keep(Sequence& sequence, int first_entry, std::span<const std::int32_t> rows) = 0;
};

/// A draft that needs nothing but tokens and KV.
class TokenAdapter : public DraftAdapter {
 public:
  void begin(std::span<Sequence* const> sequences) override { sequences_ = sequences; }
  std::span<const float> forward(std::span<const DraftRows> batch) override;

 protected:
  /// The latest pass of forward().
  const ForwardBatch& batch() const noexcept { return batch_; }

 private:
  std::span<Sequence* const> sequences_;
  ForwardBatch batch_;
};

/// A Llama model as a draft, with the head of all tokens or of some (FR-Spec, arXiv 2502.14856).
class TransformerAdapter final : public TokenAdapter {
 public:
  TransformerAdapter(std::unique_ptr<Transformer> transformer, int max_context);

  const KvPoolStorage* pool() const noexcept override { return &transformer_->pool(); }
  int vocab_size() const override { return transformer_->config().vocab_size; }
  std::span<const TokenId> tokens() const override { return transformer_->head_tokens(); }
  int max_rows() const override { return transformer_->max_rows(); }
  int max_position() const override { return max_position_; }
  std::span<const float> run(const ForwardBatch& batch) override;

 private:
  std::unique_ptr<Transformer> transformer_;
  int max_position_;
};

}  // namespace specdec
