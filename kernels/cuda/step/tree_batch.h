#pragma once

#include "kernels/cuda/draft/growth.h"
#include "kernels/cuda/launch.h"

namespace specdec::kernels::cuda {

/// Writes the rows of a forward pass where they lie on the device, as Step::forward and
/// DraftStage::Adapter do on the host. What never changes (row_sequences, sequence_begins,
/// output_rows, block_tables) is there already.

/// The target's rows of trees that were not grown level by level.
cudaError_t fill_target_batch(const TreeBuffers& trees, const SequenceState* sequences,
                              const TargetRows& target, const Launch& to);

/// Begins the trees: the root alone, as the frontier of level 0, and the draft's rows there: two a
/// sequence, the token before the root where the draft has not run it (draft_lengths [sequences]
/// says) and the root.
cudaError_t fill_draft_roots(const GrowParams& params, const std::int32_t* draft_lengths,
                             const DeviceBatch& batch, const Launch& to);

}  // namespace specdec::kernels::cuda
