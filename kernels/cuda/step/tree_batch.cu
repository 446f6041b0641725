#include "kernels/cuda/step/tree_batch.h"

#include "kernels/cuda/device.cuh"
#include "kernels/cuda/draft/growth.cuh"
#include "kernels/cuda/step/target_rows.cuh"

namespace specdec::kernels::cuda {
namespace {

constexpr int kFillThreads = 128;

// grid: [sequences]
__global__ void __launch_bounds__(kFillThreads)
    target_batch(TreeBuffers trees, const SequenceState* sequences, TargetRows target) {
  wait_for_previous();
  let_next_start();
  const int sequence = static_cast<int>(blockIdx.x);
  fill_target_rows(trees, target, sequence, sequences[sequence].length - 1);
}

// grid: [sequences], one warp
__global__ void draft_roots(GrowParams params, const std::int32_t* draft_lengths,
                            DeviceBatch batch) {
  wait_for_previous();
  let_next_start();
  const int sequence = static_cast<int>(blockIdx.x);
  begin_tree(params, sequence);
  if (threadIdx.x != 0) return;
  const int length = params.sequences[sequence].length;
  const int row = 2 * sequence;
  const bool drafts = params.max_depths[sequence] > 0;
  const std::int32_t* const history =
      params.history + static_cast<std::int64_t>(sequence) * params.history_stride;
  const int pending = length - draft_lengths[sequence];
  batch.context_lens[sequence] = drafts ? draft_lengths[sequence] : 0;
  if (drafts && pending > 1)
    write_row(batch, row, history[length - 2], length - 2, length - 2);
  else
    write_padding(batch, row);
  if (drafts)
    write_row(batch, row + 1, history[length - 1], length - 1, length - 1);
  else
    write_padding(batch, row + 1);
}

}  // namespace

cudaError_t fill_target_batch(const TreeBuffers& trees, const SequenceState* sequences,
                              const TargetRows& target, const Launch& to) {
  return launch(to, &target_batch, dim3(static_cast<unsigned>(trees.num_sequences)), kFillThreads,
                0, trees, sequences, target);
}

cudaError_t fill_draft_roots(const GrowParams& params, const std::int32_t* draft_lengths,
                             const DeviceBatch& batch, const Launch& to) {
  return launch(to, &draft_roots, dim3(static_cast<unsigned>(params.growth.num_sequences)), 32, 0,
                params, draft_lengths, batch);
}

}  // namespace specdec::kernels::cuda
