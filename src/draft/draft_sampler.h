#pragma once

#include <span>
#include <vector>

#include "sampling/sampler.h"

namespace specdec {

/// Draws from logits rows of a draft model that may know some of the target's tokens only: a row
/// then has a logit for each of these, and all others have probability 0. What is drawn has the
/// target's numbers. As RowSampler: a pure function of the row, one instance per thread.
class DraftSampler {
 public:
  /// `tokens` [draft vocabulary]: the target's number of each logit; empty: all of them, in order.
  DraftSampler(int vocab_size, std::span<const TokenId> tokens);

  /// RowSampler::coupled_candidates. At temperature 0 without edits the row is read as it is, a
  /// fraction of the target's vocabulary; ties go to the first logit.
  void coupled_candidates(std::span<const float> logits, const RowContext& row, int k,
                          std::vector<DraftCandidate>& out);
  /// RowSampler::confidence.
  float confidence(std::span<const float> logits, const RowContext& row);
  /// RowSampler::probabilities: out [the target's vocabulary].
  void probabilities(std::span<const float> logits, const RowContext& row, std::span<float> out);

 private:
  bool reads_directly(const RowContext& row) const;
  /// The row under the target's numbers.
  std::span<const float> spread(std::span<const float> logits);

  std::span<const TokenId> tokens_;
  RowSampler whole_;
  RowSampler direct_;
  std::vector<float> spread_;  // [vocab]; minus infinity where the draft has no token
};

}  // namespace specdec
