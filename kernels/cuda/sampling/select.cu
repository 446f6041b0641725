#include "kernels/cuda/device.cuh"
#include "kernels/cuda/sampling/scan.cuh"
#include "kernels/cuda/sampling/stages.h"
#include "kernels/cuda/sampling/survivors.cuh"

namespace specdec::kernels::cuda {
namespace {

// grid: [slices, rows]; a block adds the masses of one slice, by the first digit of their key, to
// its row's. Masses have 30 bits and a slice 2^12 tokens: halves of 15 bits sum in 32.
__global__ void __launch_bounds__(kScanThreads) add_digits(SampleRowsParams params) {
  wait_for_previous();
  let_next_start();
  const RowView view = view_row(params, static_cast<int>(blockIdx.y));
  if (!view.there() || !is_nucleus(*view.options, params.vocab)) return;
  __shared__ std::uint32_t low[kDigitBins];
  __shared__ std::uint32_t high[kDigitBins];
  for (int i = static_cast<int>(threadIdx.x); i < kDigitBins; i += kScanThreads)
    low[i] = high[i] = 0;
  __syncthreads();
  const RowState& state = params.scratch.states[view.row];
  const Scale scale(*view.options, key_of(state.best));
  const float* const scores = scores_of(params, view);
  const unsigned lane = threadIdx.x % kWarp;
#pragma unroll
  for (int j = 0; j < kChunksPerWarp; ++j) {
    const int chunk = static_cast<int>(blockIdx.x) * kSliceChunks +
                      static_cast<int>(threadIdx.x / kWarp) + j * kScanWarps;
    const LaneValues values = load_lane(scores, params.vocab, chunk, lane);
#pragma unroll
    for (int i = 0; i < kLaneTokens; ++i) {
      const auto mass =
          static_cast<std::uint32_t>(row_math::mass_one(scale.in_float(values.at[i])));
      if (mass == 0) continue;
      const std::uint32_t digit = row_math::order_key(values.at[i]) >> 21;
      atomicAdd(&low[digit], mass & 0x7FFFu);
      if (mass >> 15 != 0) atomicAdd(&high[digit], mass >> 15);
    }
  }
  __syncthreads();
  unsigned long long* const digits =
      params.scratch.digits + static_cast<std::size_t>(view.row) * kDigitBins;
  for (int i = static_cast<int>(threadIdx.x); i < kDigitBins; i += kScanThreads) {
    const unsigned long long sum = (static_cast<unsigned long long>(high[i]) << 15) + low[i];
    if (sum != 0) atomicAdd(&digits[i], sum);
  }
}

// grid: [rows]; a block finds the survivors of its row and, where it can hold them, draws its
// token.
__global__ void __launch_bounds__(kSelectThreads) select_rows(SampleRowsParams params) {
  wait_for_previous();
  let_next_start();
  __shared__ SelectShared shared;
  __shared__ Noisy winner;
  const RowView view = view_row(params, static_cast<int>(blockIdx.x));
  if (!view.there()) return;
  RowState& state = params.scratch.states[view.row];
  const RowStatus status = status_of(state, view.edited);
  const RowSampling& options = *view.options;
  unsigned long long* const digits =
      params.scratch.digits + static_cast<std::size_t>(view.row) * kDigitBins;
  const bool nucleus = is_nucleus(options, params.vocab);
  if (threadIdx.x == 0) {
    params.status[view.row] = status;
    params.tokens[view.row] = token_of(state.best);  // greedy; else to be replaced
  }
  if (status == RowStatus::ok && options.inverse_temperature > 0) {
    const Scale scale(options, key_of(state.best));
    const Survivors left =
        find_survivors(options, scale, scores_of(params, view),
                       chunk_keys_of(params.scratch.chunk_keys, params.vocab, view.row),
                       params.vocab, digits, shared);
    if (left.dense) {
      if (threadIdx.x == 0) {
        state.dense = 1;
        state.cutoff_key = left.cutoff.key;
        state.cutoff_token = left.cutoff.token;
        state.lowest = left.lowest;
      }
    } else {
      const RandomStream stream(options.seed, view.position, RandomPurpose::token_noise);
      k_best<kSelectThreads>(
          left.count, 1,
          [&](int i) {
            const unsigned long long item = shared.order[i];
            return noisy(scale, stream, row_math::float_of_key(key_of(item)), token_of(item));
          },
          &winner);
      if (threadIdx.x == 0) params.tokens[view.row] = winner.token;
    }
  }
  if (!nucleus) return;
  __syncthreads();
  for (int i = static_cast<int>(threadIdx.x); i < kDigitBins; i += kSelectThreads) digits[i] = 0;
}

}  // namespace

cudaError_t launch_digits(const SampleRowsParams& params, const Launch& to) {
  const dim3 grid(static_cast<unsigned>(num_slices(params.vocab)),
                  static_cast<unsigned>(params.tree.num_rows));
  return launch(to, &add_digits, grid, kScanThreads, 0, params);
}

cudaError_t launch_select(const SampleRowsParams& params, const Launch& to) {
  return launch(to, &select_rows, dim3(static_cast<unsigned>(params.tree.num_rows)), kSelectThreads,
                0, params);
}

}  // namespace specdec::kernels::cuda
