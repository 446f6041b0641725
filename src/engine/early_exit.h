#pragma once

#include <cstdint>
#include <span>

#include "engine/backend/backend.h"
#include "engine/draft_adapter.h"
#include "engine/slot_states.h"

namespace specdec {

/// The target's first layers, its final norm and its head as a draft (LayerSkip, arXiv 2404.16710).
///
/// It has no KV of its own: the committed context's lies in the target's pool, complete up to the
/// root, so there is never anything to catch up on. What a draft writes there are uncommitted slots
/// of the sequence's reservation, in those layers alone. verify() goes on from there: a row that
/// the draft has run does not go through those layers again, and its KV stays in the draft's slot.
class EarlyExitAdapter final : public TokenAdapter {
 public:
  /// Drafts with the first `exit_layer` layers of `target`, which must outlive it.
  EarlyExitAdapter(Backend& backend, Transformer& target, int exit_layer, int max_context);

  const KvPoolStorage* pool() const noexcept override;
  int vocab_size() const override { return target_.config().vocab_size; }
  int max_rows() const override { return target_.max_rows(); }
  int max_position() const override { return max_position_; }
  void begin(std::span<Sequence* const> sequences) override;
  std::span<const float> forward(std::span<const DraftRows> batch) override;
  std::span<const float> run(const ForwardBatch& batch) override;
  /// Runs rows through the first layers alone: what a row costs that verify() spares.
  void run_first_layers(const ForwardBatch& batch);

  /// Which rows of the step's sequence this draft has run: by slot, from the root's on, what
  /// verify() knows it by; -1, or no entry: not run.
  std::span<const std::int32_t> states(std::size_t sequence) const {
    return states_.rows(sequence);
  }
  /// The target's logits of `batch`, those of Transformer::forward_on_device bit for bit. `states`
  /// [batch.num_rows()]: where a row's token, position and slots are those of a row that the
  /// latest draft has run, what states() has for it; -1 elsewhere. Once after each begin().
  std::span<const float> verify(const ForwardBatch& batch, std::span<const std::int32_t> states);

 private:
  Transformer& target_;
  int exit_layer_;
  int max_position_;
  SlotStates states_;  // behind the first layers
  ForwardBatch rest_;  // the rows of a target's pass that the draft has not run
};

}  // namespace specdec
