#include "kernels/cuda/device.cuh"
#include "kernels/cuda/sampling/scan.cuh"
#include "kernels/cuda/sampling/stages.h"

namespace specdec::kernels::cuda {
namespace {

// grid: [slices, rows]; a block finds the k best score + noise among a slice's survivors. Exact
// pruning, as in RowSampler::best_perturbed_dense: a float bound that never understates picks the
// few tokens that are evaluated in double. Where the bound is tight it also says what is surely
// reached, which sets the threshold.
__global__ void __launch_bounds__(kScanThreads, 4) dense_best(SampleRowsParams params, int k) {
  wait_for_previous();
  let_next_start();
  __shared__ float tops[kScanWarps];  // some token of each warp reaches it
  __shared__ float reached;           // k tokens of the slice do
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
  float sure_bound = minus_infinity();  // the largest that overstates by the slack at most
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
      for (int n = 0; n < 4; ++n) {
        const float score = values.at[i + n];
        const bool survives =
            cutoff.keeps(row_math::order_key(score), static_cast<std::int32_t>(first) + n) &&
            !(lowest > -INFINITY && scale.relative(score) < lowest);
        const float noise = row_math::noise_bound(block[static_cast<unsigned>(n)]);
        const float bound = survives ? scale.in_float(score) + noise : minus_infinity();
        bounds[j][i + n] = bound;
        if (noise >= row_math::kTightNoise && noise < row_math::kTightNoiseEnd)
          sure_bound = fmaxf(sure_bound, bound);
      }
    }
  }
  const std::uint32_t warp_top = __reduce_max_sync(kFullWarp, row_math::order_key(sure_bound));
  if (lane == 0) tops[warp] = row_math::float_of_key(warp_top) - row_math::kNoiseBoundSlack;
  __syncthreads();
  if (threadIdx.x < kScanWarps) {
    int rank = 0;
    for (int i = 0; i < kScanWarps; ++i)
      rank += tops[i] > tops[threadIdx.x] ||
                      (tops[i] == tops[threadIdx.x] && i < static_cast<int>(threadIdx.x))
                  ? 1
                  : 0;
    if (rank == min(k, kScanWarps) - 1)
      reached = k <= kScanWarps ? tops[threadIdx.x] : minus_infinity();
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

}  // namespace

cudaError_t launch_dense(const SampleRowsParams& params, int k, const Launch& to) {
  const dim3 grid(static_cast<unsigned>(num_slices(params.vocab)),
                  static_cast<unsigned>(params.tree.num_rows));
  return launch(to, &dense_best, grid, kScanThreads, 0, params, k);
}

}  // namespace specdec::kernels::cuda
