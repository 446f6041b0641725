#include "kernels/cuda/device.cuh"
#include "kernels/cuda/sampling/scan.cuh"
#include "kernels/cuda/sampling/stages.h"

namespace specdec::kernels::cuda {
namespace {

// Doubles in an order that atomicMax knows.
__device__ unsigned long long ordered(double value) {
  const auto bits = static_cast<unsigned long long>(__double_as_longlong(value));
  return bits >> 63 != 0 ? ~bits : bits | 1ull << 63;
}
__device__ double unordered(unsigned long long key) {
  const unsigned long long bits = key >> 63 != 0 ? key & ~(1ull << 63) : ~key;
  return __longlong_as_double(static_cast<long long>(bits));
}

// grid: [slices, rows]; a block finds the best score + noise among a slice's survivors. Exact
// pruning, as in RowSampler::best_perturbed_dense: a float bound that never understates picks the
// few tokens that are evaluated in double.
__global__ void __launch_bounds__(kScanThreads) dense_best(SampleRowsParams params) {
  wait_for_previous();
  let_next_start();
  __shared__ unsigned long long reached;
  __shared__ Noisy winners[kScanWarps];
  const RowView view = view_row(params, static_cast<int>(blockIdx.y));
  if (!view.there()) return;
  const RowState& state = params.scratch.states[view.row];
  if (state.dense == 0) return;
  if (threadIdx.x == 0) reached = ordered(kMinGumbel);  // the row's best score reaches that
  __syncthreads();

  const Scale scale(*view.options, key_of(state.best));
  const Cutoff cutoff{state.cutoff_key, state.cutoff_token};
  const double lowest = state.lowest;
  const float* const scores = scores_of(params, view);
  const std::uint32_t* const keys =
      chunk_keys_of(params.scratch.chunk_keys, params.vocab, view.row);
  const RandomStream stream(view.options->seed, view.position, RandomPurpose::token_noise);
  const unsigned lane = threadIdx.x % kWarp;
  const int warp = static_cast<int>(threadIdx.x / kWarp);
  const auto exact = [&](float score, std::uint32_t word, std::int32_t token) {
    return Noisy{scale.relative(score) + gumbel(word), token};
  };

  LaneValues values[kChunksPerWarp];
  std::uint32_t words[kChunksPerWarp][kLaneTokens];
  float bounds[kChunksPerWarp][kLaneTokens];
  float top_bound = minus_infinity();
  Noisy best;
#pragma unroll
  for (int j = 0; j < kChunksPerWarp; ++j) {
    const int chunk = static_cast<int>(blockIdx.x) * kSliceChunks + warp + j * kScanWarps;
    bool worth = chunk < num_chunks(params.vocab) && keys[chunk] >= cutoff.key;
    if (worth)
      worth =
          scale.in_float(row_math::float_of_key(keys[chunk])) + static_cast<float>(kMaxGumbel) >=
          row_math::prune_below(kMinGumbel);
    if (!worth) {
#pragma unroll
      for (int i = 0; i < kLaneTokens; ++i) bounds[j][i] = minus_infinity();
      continue;
    }
    values[j] = load_lane(scores, params.vocab, chunk, lane);
#pragma unroll
    for (int i = 0; i < kLaneTokens; ++i) {
      const int token = lane_token(chunk, lane, i);
      if (i % 4 == 0) {
        const PhiloxBlock block = stream.block(static_cast<std::uint32_t>(token) / 4);
        for (unsigned k = 0; k < 4; ++k) words[j][i + static_cast<int>(k)] = block[k];
      }
      const float score = values[j].at[i];
      const bool survives = cutoff.keeps(row_math::order_key(score), token) &&
                            !(lowest > -INFINITY && scale.relative(score) < lowest);
      bounds[j][i] =
          survives ? scale.in_float(score) + row_math::noise_bound(words[j][i]) : minus_infinity();
      top_bound = fmaxf(top_bound, bounds[j][i]);
    }
  }
  // The warp's largest bound first: it makes a high threshold for the others.
  const std::uint32_t warp_key = __reduce_max_sync(kFullWarp, row_math::order_key(top_bound));
  const float warp_top = row_math::float_of_key(warp_key);
  if (warp_top > minus_infinity()) {
#pragma unroll
    for (int j = 0; j < kChunksPerWarp; ++j) {
      const int chunk = static_cast<int>(blockIdx.x) * kSliceChunks + warp + j * kScanWarps;
#pragma unroll
      for (int i = 0; i < kLaneTokens; ++i) {
        if (bounds[j][i] != warp_top) continue;
        const Noisy mine = exact(values[j].at[i], words[j][i], lane_token(chunk, lane, i));
        atomicMax(&reached, ordered(mine.score));
        if (mine.better_than(best)) best = mine;
      }
    }
  }
  __syncthreads();
  const float threshold = row_math::prune_below(unordered(reached));
#pragma unroll
  for (int j = 0; j < kChunksPerWarp; ++j) {
    const int chunk = static_cast<int>(blockIdx.x) * kSliceChunks + warp + j * kScanWarps;
#pragma unroll
    for (int i = 0; i < kLaneTokens; ++i) {
      if (bounds[j][i] == minus_infinity() || bounds[j][i] < threshold) continue;
      const Noisy mine = exact(values[j].at[i], words[j][i], lane_token(chunk, lane, i));
      if (mine.better_than(best)) best = mine;
    }
  }
  best = warp_best(best);
  if (lane == 0) winners[warp] = best;
  __syncthreads();
  if (threadIdx.x != 0) return;
  for (int i = 1; i < kScanWarps; ++i)
    if (winners[i].better_than(best)) best = winners[i];
  params.scratch.slice_best[static_cast<std::size_t>(view.row) * gridDim.x + blockIdx.x] = {
      best.score, best.token};
}

constexpr int kWalkThreads = 128;

// grid: [sequences]; a block settles the tokens of its dense rows, then its first warp walks.
__global__ void __launch_bounds__(kWalkThreads)
    walk_trees(SampleRowsParams params, AcceptedPaths paths) {
  wait_for_previous();
  let_next_start();
  __shared__ SharedTree tree;
  const int sequence = static_cast<int>(blockIdx.x);
  const int first = params.tree.first_rows[sequence];
  const int size = params.tree.sizes[sequence];
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
  if (threadIdx.x < kWarp)
    walk_coupled(params.tree, sequence, params.status, paths, lane, tree,
                 [&](int row) { return params.tokens[row]; });
}

}  // namespace

cudaError_t launch_dense(const SampleRowsParams& params, const Launch& to) {
  const dim3 grid(static_cast<unsigned>(num_slices(params.vocab)),
                  static_cast<unsigned>(params.tree.num_rows));
  return launch(to, &dense_best, grid, kScanThreads, 0, params);
}

cudaError_t launch_walk(const SampleRowsParams& params, const AcceptedPaths& paths,
                        const Launch& to) {
  return launch(to, &walk_trees, dim3(static_cast<unsigned>(params.tree.num_sequences)),
                kWalkThreads, 0, params, paths);
}

cudaError_t sample_and_accept(const SampleRowsParams& params, const SamplingNeeds& needs,
                              const AcceptedPaths& paths, const Launch& to) {
  SampleRowsParams rows = params;
  if (!needs.edits) rows.scratch.scores = nullptr;  // what view_row() goes by
  cudaError_t error = launch_scan(rows, needs, needs.sampled ? nullptr : &paths, to);
  if (!needs.sampled) return error;
  if (error == cudaSuccess && needs.nucleus) error = launch_digits(rows, to);
  if (error == cudaSuccess) error = launch_select(rows, to);
  if (error == cudaSuccess && needs.dense) error = launch_dense(rows, to);
  if (error == cudaSuccess) error = launch_walk(rows, paths, to);
  return error;
}

}  // namespace specdec::kernels::cuda
