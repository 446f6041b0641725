#pragma once

#include "kernels/cuda/draft/growth.h"
#include "kernels/cuda/step/batch_rows.cuh"

namespace specdec::kernels::cuda {

/// The target's rows of one sequence's tree, as fill_target_batch() has them. Called by a whole
/// block, which sees what `trees` holds.
__device__ inline void fill_target_rows(const TreeBuffers& trees, const TargetRows& target,
                                        int sequence, int root_slot) {
  const DeviceBatch& batch = target.batch;
  const int first = sequence * trees.rows_per_sequence;
  const int size = trees.sizes[sequence];
  const auto threads = static_cast<int>(blockDim.x);
  const int thread = static_cast<int>(threadIdx.x);
  if (thread == 0) batch.context_lens[sequence] = size > 0 ? root_slot : 0;
  int branches = 0;
  for (int node = thread + 1; node < size; node += threads)
    branches |= trees.parents[first + node] != node - 1 ? 1 : 0;
  const bool chain = __syncthreads_or(branches) == 0;
  for (int node = thread; node < trees.rows_per_sequence; node += threads) {
    const int row = first + node;
    if (node >= size) {
      write_padding(batch, row);
      continue;
    }
    const int depth = trees.depths[row];
    write_row(batch, row, trees.tokens[row], root_slot + depth, root_slot + node);
    if (chain || node == 0) continue;
    const int offset = row * target.path_stride;
    batch.path_offsets[row] = offset;
    int place = offset + depth;
    for (int at = node; at >= 0; at = trees.parents[first + at])
      batch.path_slots[place--] = root_slot + at;
  }
}

}  // namespace specdec::kernels::cuda
