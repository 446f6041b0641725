#pragma once

#include "kernels/cuda/batch.h"
#include "kernels/cuda/draft/growth.h"
#include "kernels/cuda/launch.h"

namespace specdec::kernels::cuda {

/// Writes the rows of a forward pass where they lie on the device, as Step::forward and
/// DraftStage::Adapter do on the host. What never changes (row_sequences, sequence_begins,
/// output_rows, block_tables) is there already.

/// The target's rows: row i of `trees` is row i of the batch; node n of a sequence takes slot
/// root + n. path_slots has `path_stride` places a row: the deepest tree + 1.
cudaError_t fill_target_batch(const TreeBuffers& trees, const SequenceState* sequences,
                              const DeviceBatch& batch, int path_stride, const Launch& to);

/// The draft's rows at level 0: two a sequence, the token before the root where the draft has not
/// run it (draft_lengths [sequences] says) and the root.
cudaError_t fill_draft_roots(const GrowParams& params, const std::int32_t* draft_lengths,
                             const DeviceBatch& batch, const Launch& to);
/// For a head whose rows go on from its own outputs: the row of the pass before that each row's
/// parent had. The root has the last of `root_rows` rows a sequence.
struct DraftSources {
  std::int32_t* rows = nullptr;  // [sequences * topk]; null: not wanted
  std::int32_t root_rows = 0;
};
/// ... and at the levels below: topk rows a sequence, its frontier. With sources, `batch` has been
/// filled for the level before (from the second one on).
cudaError_t fill_draft_level(const GrowParams& params, const DeviceBatch& batch, int path_stride,
                             const DraftSources& sources, const Launch& to);

}  // namespace specdec::kernels::cuda
