#pragma once

#include "kernels/cuda/draft/growth.h"
#include "kernels/cuda/step/batch_rows.cuh"

namespace specdec::kernels::cuda {

/// The root alone, as the frontier of level 0. Called by a warp.
__device__ inline void begin_tree(const GrowParams& params, int sequence) {
  const DraftGrowth& growth = params.growth;
  const int first = sequence * growth.capacity;
  const bool drafts = params.max_depths[sequence] > 0;
  const int length = params.sequences[sequence].length;
  const int row = sequence * growth.topk;
  for (int i = static_cast<int>(threadIdx.x % 32); i < growth.topk; i += 32) {
    growth.sequence_of_row[row + i] = i == 0 && drafts ? sequence : -1;
    growth.node_of_row[row + i] = 0;
  }
  if (threadIdx.x % 32 != 0) return;
  growth.first_nodes[sequence] = first;
  growth.counts[sequence] = 1;
  growth.frontier_sizes[sequence] = drafts ? 1 : 0;
  growth.next_slots[sequence] = length;
  growth.tokens[first] =
      length > 0
          ? params.history[static_cast<std::int64_t>(sequence) * params.history_stride + length - 1]
          : 0;
  growth.parents[first] = -1;
  growth.depths[first] = 0;
  growth.slots[first] = length - 1;
  growth.survival[first] = 0;
}

/// The draft's rows of a sequence's frontier; a lane fills a row. `length`: committed tokens.
/// Called by a warp.
__device__ inline void fill_level(const DraftGrowth& growth, const LevelRows& level, int sequence,
                                  int length) {
  static_assert(kMostCandidates <= 32);
  const DeviceBatch& batch = level.batch;
  const int first = sequence * growth.capacity;
  const int first_row = sequence * growth.topk;
  const int i = static_cast<int>(threadIdx.x % 32);
  const int row = first_row + i;
  if (i == 0) batch.context_lens[sequence] = growth.frontier_sizes[sequence] > 0 ? length : 0;
  const bool there = i < growth.topk && growth.sequence_of_row[row] >= 0;
  const int node = there ? growth.node_of_row[row] : 0;
  if (level.sources != nullptr && i < growth.topk) {
    // The slots of the pass before still lie here; one of them is the parent's.
    int source = (sequence + 1) * level.root_rows - 1;
    const int parent = growth.parents[first + node];
    for (int j = 0; there && parent > 0 && j < growth.topk; ++j)
      if (batch.slots[first_row + j] == growth.slots[first + parent]) source = first_row + j;
    level.sources[row] = there ? source : 0;
  }
  __syncwarp();
  if (i >= growth.topk) return;
  if (!there) {
    write_padding(batch, row);
    return;
  }
  const int depth = growth.depths[first + node];
  write_row(batch, row, growth.tokens[first + node], length - 1 + depth,
            growth.slots[first + node]);
  if (growth.topk == 1) return;  // a chain's nodes lie at their positions
  const int offset = row * level.path_stride;
  batch.path_offsets[row] = offset;
  int place = offset + depth - 1;
  for (int at = node; at > 0; at = growth.parents[first + at])
    batch.path_slots[place--] = growth.slots[first + at];
}

}  // namespace specdec::kernels::cuda
