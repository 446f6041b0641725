#pragma once

#include "kernels/cuda/batch.h"
#include "kernels/cuda/draft/growth.h"
#include "kernels/cuda/launch.h"
#include "kernels/cuda/sampling/accept.h"

/// What an EAGLE head's passes need on the device (src/engine/model/eagle_head.h): an entry joins a
/// token with the target's feature of the position before, or in a draft with the head's own output
/// at the token's parent.
namespace specdec::kernels::cuda {

/// Features of the target's last pass whose entries the head has yet to run: those of the last
/// counts[s] committed tokens of a sequence, in order.
struct PendingFeatures {
  std::int32_t capacity = 0;       // of a sequence: the deepest tree + 1
  std::int32_t* counts = nullptr;  // [sequences] < 0: the sequence keeps none
  std::int32_t* rows = nullptr;    // [sequences, capacity] rows of that pass
};

/// The head's rows at level 0: the last counts[s] of `capacity` rows a sequence, the root last.
/// sources [rows] is set to the feature that each joins.
cudaError_t fill_eagle_roots(const GrowParams& params, const PendingFeatures& pending,
                             const DeviceBatch& batch, std::int32_t* sources, const Launch& to);

/// After the sequences have advanced: the features of the nodes on the accepted paths are pending,
/// node n's in row first_rows[s] + n of the pass.
cudaError_t keep_features(const PendingFeatures& pending, int num_sequences,
                          const AcceptedPaths& paths, const std::int32_t* first_rows,
                          const Launch& to);

/// out[i] = source[rows[i]] for rows of `cols` floats, a multiple of 4; not in place.
struct GatherRowsParams {
  int num_rows = 0;
  int cols = 0;
  const float* source = nullptr;
  const std::int32_t* rows = nullptr;  // [num_rows]
  float* out = nullptr;                // [num_rows, cols]
};
cudaError_t gather_rows(const GatherRowsParams& params, const Launch& to);

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
