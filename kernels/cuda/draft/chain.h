#pragma once

#include "kernels/cuda/draft/growth.h"
#include "kernels/cuda/launch.h"
#include "kernels/cuda/sampling/params.h"

namespace specdec::kernels::cuda {

/// A level of greedy chains in one launch: what draft_candidates() and grow_level(), or
/// finish_growth(), leave where topk is 1, no sequence has a temperature or edits, and nobody looks
/// at scores. A level is a dozen small kernels, each of which waits for the one before; two of them
/// and a copy of the logits are saved.
struct ChainLevelParams {
  GrowParams grow;  // its candidates are not read
  std::int32_t depth = 0;
  std::int32_t vocab = 0;         // the draft's
  const float* logits = nullptr;  // [sequences, vocab] of the level's rows
  /// [vocab] the target's numbers, ascending, so that ties fall as they do there; null: the same.
  const std::int32_t* tokens = nullptr;
  RowState* states = nullptr;  // [sequences] scratch, left zero
};

cudaError_t grow_chains(const ChainLevelParams& params, const LevelRows& next, const Launch& to);
/// ... and after the last level.
cudaError_t finish_chains(const ChainLevelParams& params, const GrownTrees& grown,
                          const Launch& to);

}  // namespace specdec::kernels::cuda
