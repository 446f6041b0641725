#pragma once

#include <memory>
#include <span>
#include <vector>

#include "engine/draft_adapter.h"
#include "engine/feature_store.h"
#include "engine/model/eagle_head.h"
#include "engine/slot_states.h"

namespace specdec {

/// An EAGLE-3 head as a draft model. A row of a committed token joins it with the target's feature
/// of the token before; a row of a draft token with the head's own output at its parent.
class EagleAdapter final : public FeatureAdapter {
 public:
  /// `max_pending`: feature rows that sequences may hold between them.
  EagleAdapter(Backend& backend, std::unique_ptr<EagleHead> head, int max_context, int max_pending);

  void begin(std::span<Sequence* const> sequences) override;
  const KvPoolStorage* pool() const noexcept override { return &head_->pool(); }
  int vocab_size() const override { return head_->vocab_size(); }
  std::span<const TokenId> tokens() const override { return head_->target_tokens(); }
  int max_rows() const override { return head_->max_rows(); }
  int max_position() const override { return max_position_; }
  /// Rows of position 0 are not allowed: the head has no such entry.
  std::span<const float> forward(std::span<const DraftRows> batch) override;
  std::span<const float> run(const ForwardBatch& batch) override {
    return head_->forward(batch, Stream{});
  }

  HiddenStateTap& tap() noexcept override { return *head_; }
  void keep(Sequence& sequence, int first_entry, std::span<const std::int32_t> rows) override;
  /// Puts the features of `sequence` back into rows of the head's own, in order.
  void restore(const Sequence& sequence, std::span<const std::int32_t> rows);
  EagleHead& head() noexcept { return *head_; }

 private:
  void fill_hidden();

  Backend& backend_;
  std::unique_ptr<EagleHead> head_;
  int max_position_;
  FeatureStore features_;
  std::span<Sequence* const> sequences_;
  ForwardBatch batch_;

  // Where the rows of a pass take their hidden states from.
  struct Gather {
    std::vector<std::int32_t> from;
    std::vector<std::int32_t> to;
  };
  Gather from_features_;
  Gather from_outputs_;
  SlotStates outputs_;  // the head's, since begin()
};

}  // namespace specdec
