#pragma once

#include <cstdint>
#include <span>

#include "engine/draft_adapter.h"
#include "engine/model/transformer.h"
#include "engine/sequence.h"

namespace specdec {

/// Brings a draft model up to date with tokens that were committed without it: the entries of its
/// KV, and the target's hidden states where it makes them of those. Belongs to the stepping thread.
class DraftCatchUp {
 public:
  /// Features that a sequence may carry along without drafting, before they are made into KV.
  static constexpr int kMostPending = 16;

  /// A draft that needs nothing but tokens.
  explicit DraftCatchUp(DraftAdapter& adapter);
  /// One that reads hidden states of `target`; both must outlive this.
  DraftCatchUp(FeatureAdapter& adapter, Transformer& target);

  /// Lets the draft run what it has yet to run of these sequences, but for the last `left` tokens
  /// or features, from sequence.draft_length on, which is kept up to date. Their reservations have
  /// claimed the draft.
  void run(std::span<Sequence* const> sequences, int left);
  /// Makes KV of features that have piled up: those of prompts, and of phases of plain decoding.
  /// Needs no attention, so it costs little. The last is left for the draft that may begin with it.
  void flush(std::span<Sequence* const> sequences);

  /// Whether entries between the draft's KV, so many of them, and these features are missing.
  bool has_gap(const FeatureRows& features, int draft_length) const;
  /// Whether the draft cannot begin at the last token, since it reads hidden states and those that
  /// it needs were not kept.
  bool has_lost(const Sequence& sequence) const;
  /// Committed tokens that bring_back() would run again.
  int num_missed(const Sequence& sequence) const;
  /// Brings the draft back: sets uses_features, runs the target again over the tokens whose hidden
  /// states are missing (it writes their KV anew, with the same bits), and makes the draft's KV of
  /// all but the last. Afterwards has_lost() is false, but where the store of features had no room;
  /// a draft without KV has to wait for the coming step's hidden state. The sequences decode, and
  /// their reservations have claimed the draft; draft_length is its KV's and is kept up to date.
  void bring_back(std::span<Sequence* const> sequences);
  /// A pass as bring_back() makes them, for its costs.
  void run_again(const ForwardBatch& batch);

  /// Tokens that bring_back() has run.
  std::int64_t num_run_again() const noexcept { return num_run_again_; }

 private:
  struct Again;
  void fill(std::span<Again> sequences);

  DraftAdapter& adapter_;
  FeatureAdapter* features_ = nullptr;  // adapter_, if it reads hidden states
  Transformer* target_ = nullptr;
  ForwardBatch batch_;
  std::int64_t num_run_again_ = 0;
};

}  // namespace specdec
