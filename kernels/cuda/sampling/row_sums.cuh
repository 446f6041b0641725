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

/// Sum of exp((score - max) * scale) over what `cutoff` and `lowest` keep, in the order of
/// row_math::sum_exp, in all threads: half a warp is the 16 lanes of a chunk. Overwrites
/// shared.order.
__device__ inline double sum_exp(const float* scores, const std::uint32_t* keys, int vocab,
                                 const Scale& scale, const Cutoff& cutoff, double lowest,
                                 SelectShared& shared) {
  constexpr int kLanes = row_math::kSumLanes;
  constexpr int kGroups = kSelectThreads / kLanes;
  __shared__ double total;
  auto* const sums = reinterpret_cast<float*>(shared.order);  // [chunks]
  constexpr int kMostSums = 2 * kMostSelected;
  const int chunks = num_chunks(vocab);
  const int lane = static_cast<int>(threadIdx.x) % kLanes;
  __syncthreads();
  if (threadIdx.x == 0) total = 0;
  for (int first = 0; first < chunks; first += kMostSums) {
    __syncthreads();
    const int end = min(chunks, first + kMostSums);
    for (int base = first; base < end; base += kGroups) {
      const int chunk = base + static_cast<int>(threadIdx.x) / kLanes;
      float sum = 0;
      if (chunk < end && keys[chunk] >= cutoff.key) {
#pragma unroll
        for (int i = 0; i < row_math::kChunk / kLanes; ++i) {
          const int token = chunk * row_math::kChunk + i * kLanes + lane;
          const float score = token < vocab ? scores[token] : minus_infinity();
          const bool kept = cutoff.keeps(row_math::order_key(score), token) &&
                            !(lowest > -INFINITY && scale.relative(score) < lowest);
          sum += kept ? row_math::exp_one(scale.in_float(score)) : 0.0f;
        }
      }
#pragma unroll
      for (int width = kLanes / 2; width > 0; width /= 2)
        sum += __shfl_down_sync(kFullWarp, sum, static_cast<unsigned>(width), kLanes);
      if (chunk < end && lane == 0) sums[chunk - first] = sum;
    }
    __syncthreads();
    if (threadIdx.x == 0)
      for (int i = 0; i < end - first; ++i) total += static_cast<double>(sums[i]);
  }
  __syncthreads();
  return total;
}

}  // namespace specdec::kernels::cuda
