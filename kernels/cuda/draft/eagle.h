#pragma once

#include "kernels/cuda/batch.h"
#include "kernels/cuda/draft/growth.h"
#include "kernels/cuda/launch.h"

/// What an EAGLE head's passes need on the device (src/engine/model/eagle_head.h): an entry joins a
/// token with the target's feature of the position before, or in a draft with the head's own output
/// at the token's parent.
namespace specdec::kernels::cuda {

/// Begins the trees: the root alone, as the frontier of level 0, and the head's rows there: the
/// last counts[s] of `capacity` rows a sequence, the root last. sources [rows] is set to the
/// feature that each joins.
cudaError_t fill_eagle_roots(const GrowParams& params, const PendingFeatures& pending,
                             const DeviceBatch& batch, std::int32_t* sources, const Launch& to);

/// Logits over a reduced vocabulary under the target's numbers: out[i, tokens[j]] = logits[i, j].
/// What other tokens have in `out` stays.
struct SpreadLogitsParams {
  int num_rows = 0;
  int draft_vocab = 0;
  int vocab = 0;
  const float* logits = nullptr;         // [num_rows, draft_vocab]
  const std::int32_t* tokens = nullptr;  // [draft_vocab], distinct
  float* out = nullptr;                  // [num_rows, vocab]
};
cudaError_t spread_logits(const SpreadLogitsParams& params, const Launch& to);

}  // namespace specdec::kernels::cuda
