#include "kernels/cuda/device.cuh"
#include "kernels/cuda/sampling/row_values.cuh"
#include "kernels/cuda/sampling/stages.h"
#include "kernels/cuda/sampling/walk.cuh"

namespace specdec::kernels::cuda {
namespace {

// grid: [sequences]; a block settles what rows are left to settle, then walks.
template <bool kGreedy>
__global__ void __launch_bounds__(kWalkThreads)
    walk_trees(SampleRowsParams params, AcceptedPaths paths) {
  __shared__ SharedTree tree;
  const int sequence = static_cast<int>(blockIdx.x);
  const WalkTree own(params.tree, sequence);
  const int first = own.first;
  const int size = own.size;
  wait_for_previous();
  let_next_start();
  if constexpr (kGreedy) {
    for (int row = first + static_cast<int>(threadIdx.x); row < first + size; row += kWalkThreads) {
      const RowState state = params.scratch.states[row];
      const bool edited = params.scratch.scores != nullptr && view_row(params, row).edited;
      const std::int32_t token = token_of(state.best);
      const RowStatus status = status_of(state, edited);
      params.tokens[row] = token;
      params.status[row] = status;
      params.scratch.states[row] = RowState{};
      if (own.small()) tree.set(row - first, token, status);
    }
  } else {
    const unsigned lane = threadIdx.x % kWarp;
    const int slices = num_slices(params.vocab);
    for (int row = first + static_cast<int>(threadIdx.x / kWarp); row < first + size;
         row += kWalkThreads / static_cast<int>(kWarp)) {
      if (params.scratch.states[row].dense != 0) {
        Noisy best;
        for (int i = static_cast<int>(lane); i < slices; i += static_cast<int>(kWarp)) {
          const SliceBest slice =
              params.scratch.slice_best[static_cast<std::size_t>(row) * slices + i];
          const Noisy other{slice.score, slice.token};
          if (other.better_than(best)) best = other;
        }
        best = warp_best(best);
        if (lane == 0) params.tokens[row] = best.token;
      }
      __syncwarp();
      if (lane == 0) params.scratch.states[row] = RowState{};
    }
    __syncthreads();
    fill_shared(params, own, tree);
  }
  walk_coupled(params, sequence, own, paths, tree);
}

}  // namespace

cudaError_t launch_walk(const SampleRowsParams& params, const SamplingNeeds& needs,
                        const AcceptedPaths& paths, const Launch& to) {
  const auto kernel = needs.sampled ? &walk_trees<false> : &walk_trees<true>;
  return launch(to, kernel, dim3(static_cast<unsigned>(params.tree.num_sequences)), kWalkThreads, 0,
                params, paths);
}

cudaError_t sample_and_accept(const SampleRowsParams& params, const SamplingNeeds& needs,
                              const AcceptedPaths& paths, const Launch& to) {
  SampleRowsParams rows = params;
  if (!needs.edits) rows.scratch.scores = nullptr;  // what view_row() goes by
  cudaError_t error = launch_scan(rows, needs, to);
  if (error == cudaSuccess && needs.nucleus) error = launch_digits(rows, to);
  if (error == cudaSuccess && needs.sampled) error = launch_select(rows, to);
  if (error == cudaSuccess && needs.dense) error = launch_dense(rows, 1, to);
  if (error == cudaSuccess) error = launch_walk(rows, needs, paths, to);
  return error;
}

}  // namespace specdec::kernels::cuda
