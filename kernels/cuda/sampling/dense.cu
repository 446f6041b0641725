#include "kernels/cuda/device.cuh"
#include "kernels/cuda/sampling/scan.cuh"
#include "kernels/cuda/sampling/stages.h"

namespace specdec::kernels::cuda {
namespace {

// grid: [slices, rows]; a block finds the k best score + noise among a slice's survivors. Exact
// pruning, as in RowSampler::best_perturbed_dense: a float bound that never understates picks the
// few tokens that are evaluated in double. The token with each warp's largest bound is evaluated
// first; the k-th best of those sets the threshold for the rest.
__global__ void __launch_bounds__(kScanThreads, 4) dense_best(SampleRowsParams params, int k) {
  wait_for_previous();
  let_next_start();
  __shared__ double tops[kScanWarps];  // exact, of the token with each warp's largest bound
  __shared__ double reached;           // k tokens of the slice reach it
  __shared__ int listed;
  __shared__ std::int32_t list[kSliceTokens];
  __shared__ Noisy winners[kMostCandidates];
  const RowView view = view_row(params, static_cast<int>(blockIdx.y));
  if (!view.there()) return;
  const RowState& state = params.scratch.states[view.row];
  if (state.dense == 0) return;
  if (threadIdx.x == 0) listed = 0;
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
  const auto evaluate = [&](std::int32_t token) {
    return Noisy{
        scale.relative(scores[token]) + gumbel(stream.word(static_cast<std::uint32_t>(token))),
        token};
  };

  const auto token_at = [&](int j, int i) {
    return lane_token(static_cast<int>(blockIdx.x) * kSliceChunks + warp + j * kScanWarps, lane, i);
  };

  float bounds[kChunksPerWarp][kLaneTokens];
  float best_bound = minus_infinity();
#pragma unroll
  for (int j = 0; j < kChunksPerWarp; ++j) {
    const int chunk = static_cast<int>(blockIdx.x) * kSliceChunks + warp + j * kScanWarps;
    bool worth = chunk < num_chunks(params.vocab) && keys[chunk] >= cutoff.key;
    if (worth)  // the row's best score reaches kMinGumbel
      worth =
          scale.in_float(row_math::float_of_key(keys[chunk])) + static_cast<float>(kMaxGumbel) >=
          row_math::prune_below(kMinGumbel);
    if (!worth) {
#pragma unroll
      for (int i = 0; i < kLaneTokens; ++i) bounds[j][i] = minus_infinity();
      continue;
    }
    const LaneValues values = load_lane(scores, params.vocab, chunk, lane);
#pragma unroll
    for (int i = 0; i < kLaneTokens; i += 4) {
      const auto first = static_cast<std::uint32_t>(lane_token(chunk, lane, i));
      const PhiloxBlock block = stream.block(first / 4);
#pragma unroll
      for (int k = 0; k < 4; ++k) {
        const float score = values.at[i + k];
        const bool survives =
            cutoff.keeps(row_math::order_key(score), static_cast<std::int32_t>(first) + k) &&
            !(lowest > -INFINITY && scale.relative(score) < lowest);
        const float bound =
            scale.in_float(score) + row_math::noise_bound(block[static_cast<unsigned>(k)]);
        bounds[j][i + k] = survives ? bound : minus_infinity();
        best_bound = fmaxf(best_bound, bounds[j][i + k]);
      }
    }
  }
  const std::uint32_t warp_top = __reduce_max_sync(kFullWarp, row_math::order_key(best_bound));
  const float top = row_math::float_of_key(warp_top);
  int top_token = INT_MAX;
  if (best_bound == top && top > minus_infinity()) {
#pragma unroll
    for (int j = 0; j < kChunksPerWarp; ++j)
#pragma unroll
      for (int i = 0; i < kLaneTokens; ++i)
        if (bounds[j][i] == top) top_token = min(top_token, token_at(j, i));
  }
  top_token = __reduce_min_sync(kFullWarp, top_token);
  if (lane == 0)
    tops[warp] = top_token == INT_MAX ? -static_cast<double>(INFINITY) : evaluate(top_token).score;
  __syncthreads();
  if (threadIdx.x < kScanWarps) {
    int rank = 0;
    for (int i = 0; i < kScanWarps; ++i)
      rank += tops[i] > tops[threadIdx.x] ||
                      (tops[i] == tops[threadIdx.x] && i < static_cast<int>(threadIdx.x))
                  ? 1
                  : 0;
    if (rank == min(k, kScanWarps) - 1)
      reached = k <= kScanWarps ? tops[threadIdx.x] : -static_cast<double>(INFINITY);
  }
  __syncthreads();
  const float threshold = fmaxf(row_math::prune_below(reached), -FLT_MAX);
#pragma unroll
  for (int j = 0; j < kChunksPerWarp; ++j)
#pragma unroll
    for (int i = 0; i < kLaneTokens; ++i)
      if (bounds[j][i] >= threshold) list[atomicAdd(&listed, 1)] = token_at(j, i);
  __syncthreads();
  const int found = k_best<kScanThreads>(
      listed, k, [&](int i) { return evaluate(list[i]); }, winners);
  SliceBest* const out =
      params.scratch.slice_best +
      (static_cast<std::size_t>(view.row) * gridDim.x + blockIdx.x) * static_cast<std::size_t>(k);
  for (int i = static_cast<int>(threadIdx.x); i < k; i += kScanThreads) {
    const Noisy winner = i < found ? winners[i] : Noisy{};
    out[i] = {winner.score, winner.token};
  }
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

cudaError_t launch_dense(const SampleRowsParams& params, int k, const Launch& to) {
  const dim3 grid(static_cast<unsigned>(num_slices(params.vocab)),
                  static_cast<unsigned>(params.tree.num_rows));
  return launch(to, &dense_best, grid, kScanThreads, 0, params, k);
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
  if (error == cudaSuccess && needs.dense) error = launch_dense(rows, 1, to);
  if (error == cudaSuccess) error = launch_walk(rows, paths, to);
  return error;
}

}  // namespace specdec::kernels::cuda
