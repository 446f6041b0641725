#pragma once

#include "kernels/cuda/sampling/survivors.cuh"

namespace specdec::kernels::cuda {

/// The largest chunk maximum, in all threads of the block.
__device__ inline std::uint32_t best_chunk_key(const std::uint32_t* keys, int chunks,
                                               SelectShared& shared) {
  __syncthreads();
  if (threadIdx.x == 0) shared.key = 0;
  __syncthreads();
  std::uint32_t mine = 0;
  for (int i = static_cast<int>(threadIdx.x); i < chunks; i += kSelectThreads)
    mine = max(mine, keys[i]);
  atomicMax(&shared.key, mine);
  __syncthreads();
  return shared.key;
}

/// One chunk's share of row_math::sum_exp, in the first of the 16 lanes (half a warp) that call it.
__device__ inline float sum_chunk(const float* scores, int vocab, const Scale& scale,
                                  const Cutoff& cutoff, double lowest, int chunk, int lane) {
  constexpr int kLanes = row_math::kSumLanes;
  float sum = 0;
#pragma unroll
  for (int i = 0; i < row_math::kChunk / kLanes; ++i) {
    const int token = chunk * row_math::kChunk + i * kLanes + lane;
    const float score = token < vocab ? scores[token] : minus_infinity();
    const bool kept = cutoff.keeps(row_math::order_key(score), token) &&
                      !(lowest > -INFINITY && scale.relative(score) < lowest);
    sum += kept ? row_math::exp_one(scale.in_float(score)) : 0.0f;
  }
#pragma unroll
  for (int width = kLanes / 2; width > 0; width /= 2)
    sum += __shfl_down_sync(kFullWarp, sum, static_cast<unsigned>(width), kLanes);
  return sum;
}

/// Adds `count` chunks' sums up in double, ascending, in all threads; fill(begin, end, sums) makes
/// sums[i - begin] those of chunks begin to end. Overwrites shared.order.
template <class Fill>
__device__ double add_chunks(int count, const Fill& fill, SelectShared& shared) {
  constexpr int kMostSums = 2 * kMostSelected;
  __shared__ double total;
  auto* const sums = reinterpret_cast<float*>(shared.order);
  __syncthreads();
  if (threadIdx.x == 0) total = 0;
  for (int begin = 0; begin < count; begin += kMostSums) {
    __syncthreads();
    const int end = min(count, begin + kMostSums);
    fill(begin, end, sums);
    __syncthreads();
    if (threadIdx.x == 0) {
      double sum = total;
#pragma unroll 8
      for (int i = 0; i < end - begin; ++i) sum += static_cast<double>(sums[i]);
      total = sum;
    }
  }
  __syncthreads();
  return total;
}

/// Sum of exp((score - max) * scale) over what `cutoff` and `lowest` keep, as row_math::sum_exp.
__device__ inline double sum_exp(const float* scores, const std::uint32_t* keys, int vocab,
                                 const Scale& scale, const Cutoff& cutoff, double lowest,
                                 SelectShared& shared) {
  constexpr int kLanes = row_math::kSumLanes;
  constexpr int kGroups = kSelectThreads / kLanes;
  const int lane = static_cast<int>(threadIdx.x) % kLanes;
  return add_chunks(
      num_chunks(vocab),
      [&](int begin, int end, float* sums) {
        for (int base = begin; base < end; base += kGroups) {
          const int chunk = base + static_cast<int>(threadIdx.x) / kLanes;
          const bool any = chunk < end && keys[chunk] >= cutoff.key;
          float sum = 0;
          if (__any_sync(kFullWarp, any))
            sum = sum_chunk(scores, vocab, scale, cutoff, lowest, chunk, lane);
          if (chunk < end && lane == 0) sums[chunk - begin] = sum;
        }
      },
      shared);
}

}  // namespace specdec::kernels::cuda
