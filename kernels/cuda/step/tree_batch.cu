#include "kernels/cuda/step/tree_batch.h"

#include "kernels/cuda/device.cuh"
#include "kernels/cuda/step/batch_rows.cuh"

namespace specdec::kernels::cuda {
namespace {

constexpr int kFillThreads = 128;

// grid: [sequences]
__global__ void __launch_bounds__(kFillThreads)
    target_batch(TreeBuffers trees, const SequenceState* sequences, DeviceBatch batch,
                 int path_stride) {
  wait_for_previous();
  let_next_start();
  const int sequence = static_cast<int>(blockIdx.x);
  const int first = sequence * trees.rows_per_sequence;
  const int size = trees.sizes[sequence];
  const int root_slot = sequences[sequence].length - 1;
  const int thread = static_cast<int>(threadIdx.x);
  if (thread == 0) batch.context_lens[sequence] = size > 0 ? root_slot : 0;
  int branches = 0;
  for (int node = thread + 1; node < size; node += kFillThreads)
    branches |= trees.parents[first + node] != node - 1 ? 1 : 0;
  const bool chain = __syncthreads_or(branches) == 0;
  for (int node = thread; node < trees.rows_per_sequence; node += kFillThreads) {
    const int row = first + node;
    if (node >= size) {
      write_padding(batch, row);
      continue;
    }
    const int depth = trees.depths[row];
    write_row(batch, row, trees.tokens[row], root_slot + depth, root_slot + node);
    if (chain || node == 0) continue;
    const int offset = row * path_stride;
    batch.path_offsets[row] = offset;
    int place = offset + depth;
    for (int at = node; at >= 0; at = trees.parents[first + at])
      batch.path_slots[place--] = root_slot + at;
  }
}

// grid: [sequences], one warp
__global__ void draft_roots(GrowParams params, const std::int32_t* draft_lengths,
                            DeviceBatch batch) {
  wait_for_previous();
  let_next_start();
  const int sequence = static_cast<int>(blockIdx.x);
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

// grid: [sequences], one warp: a lane fills a row
__global__ void draft_level(GrowParams params, DeviceBatch batch, int path_stride,
                            DraftSources sources) {
  static_assert(kMostCandidates <= 32);
  wait_for_previous();
  let_next_start();
  const DraftGrowth& growth = params.growth;
  const int sequence = static_cast<int>(blockIdx.x);
  const int first = sequence * growth.capacity;
  const int first_row = sequence * growth.topk;
  const int length = params.sequences[sequence].length;
  const bool chain = growth.topk == 1;
  const int i = static_cast<int>(threadIdx.x);
  const int row = first_row + i;
  if (i == 0) batch.context_lens[sequence] = growth.frontier_sizes[sequence] > 0 ? length : 0;
  const bool there = i < growth.topk && growth.sequence_of_row[row] >= 0;
  const int node = there ? growth.node_of_row[row] : 0;
  if (sources.rows != nullptr && i < growth.topk) {
    // The slots of the pass before still lie here; one of them is the parent's.
    int source = (sequence + 1) * sources.root_rows - 1;
    const int parent = growth.parents[first + node];
    for (int j = 0; there && parent > 0 && j < growth.topk; ++j)
      if (batch.slots[first_row + j] == growth.slots[first + parent]) source = first_row + j;
    sources.rows[row] = there ? source : 0;
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
  if (chain) return;
  const int offset = row * path_stride;
  batch.path_offsets[row] = offset;
  int place = offset + depth - 1;
  for (int at = node; at > 0; at = growth.parents[first + at])
    batch.path_slots[place--] = growth.slots[first + at];
}

}  // namespace

cudaError_t fill_target_batch(const TreeBuffers& trees, const SequenceState* sequences,
                              const DeviceBatch& batch, int path_stride, const Launch& to) {
  return launch(to, &target_batch, dim3(static_cast<unsigned>(trees.num_sequences)), kFillThreads,
                0, trees, sequences, batch, path_stride);
}

cudaError_t fill_draft_roots(const GrowParams& params, const std::int32_t* draft_lengths,
                             const DeviceBatch& batch, const Launch& to) {
  return launch(to, &draft_roots, dim3(static_cast<unsigned>(params.growth.num_sequences)), 32, 0,
                params, draft_lengths, batch);
}

cudaError_t fill_draft_level(const GrowParams& params, const DeviceBatch& batch, int path_stride,
                             const DraftSources& sources, const Launch& to) {
  return launch(to, &draft_level, dim3(static_cast<unsigned>(params.growth.num_sequences)), 32, 0,
                params, batch, path_stride, sources);
}

}  // namespace specdec::kernels::cuda
