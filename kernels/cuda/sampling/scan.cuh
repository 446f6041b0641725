#pragma once

#include "kernels/cuda/device.cuh"
#include "kernels/cuda/sampling/row_values.cuh"

namespace specdec::kernels::cuda {

constexpr int kScanWarps = 8;
constexpr int kScanThreads = kScanWarps * static_cast<int>(kWarp);
constexpr int kChunksPerWarp = kSliceChunks / kScanWarps;
constexpr int kSliceTokens = kSliceChunks * row_math::kChunk;
constexpr int kMostPath = 256;  // draft tokens above a node, as penalties count them

__device__ inline float repeated(float score, float penalty) {
  return score > 0 ? score / penalty : score * penalty;
}

/// Tokens of the path from below the root to the row's node, in any order.
__device__ inline int collect_path(const TreeRows& tree, const RowView& view, std::int32_t* path) {
  const int first = tree.first_rows[view.sequence];
  int count = 0;
  for (int node = view.node; node > 0 && count < kMostPath; node = tree.parents[first + node])
    path[count++] = tree.tokens[first + node];
  return count;
}

/// src/sampling/penalties.cc for one slice of a row, whose tokens lie in `scores` [kSliceTokens].
/// Called by the whole block.
__device__ inline void edit_slice(const SampleRowsParams& params, const RowView& view, int begin,
                                  float* scores, const std::int32_t* path, int path_length) {
  const RowSampling& options = *view.options;
  const int count = min(kSliceTokens, params.vocab - begin);
  if (options.token_counts != nullptr) {
    for (int i = static_cast<int>(threadIdx.x); i < count; i += kScanThreads) {
      const std::uint32_t word = options.token_counts[begin + i];
      std::uint32_t occurrences = word & ~RowSampling::kInPrompt;
      for (int j = 0; j < path_length; ++j) occurrences += path[j] == begin + i ? 1u : 0u;
      float score = scores[i];
      if (options.repetition_penalty != 1.0f && word + occurrences != 0)
        score = repeated(score, options.repetition_penalty);
      if (occurrences != 0) {
        score -= options.frequency_penalty * static_cast<float>(occurrences);
        score -= options.presence_penalty;
      }
      scores[i] = score;
    }
    __syncthreads();
  }
  for (int i = static_cast<int>(threadIdx.x); i < options.num_bias; i += kScanThreads) {
    const int place = options.bias_tokens[i] - begin;
    if (place >= 0 && place < count) scores[place] += options.bias_values[i];
  }
  __syncthreads();
  if (const std::uint32_t* const mask = mask_of(params, view.row); mask != nullptr) {
    for (int i = static_cast<int>(threadIdx.x); i < count; i += kScanThreads) {
      const int token = begin + i;
      if ((mask[token / 32] >> (token % 32) & 1u) == 0) scores[i] = minus_infinity();
    }
  }
  const SequenceState state = params.sequences[view.sequence];
  if (state.num_output + view.depth < options.min_tokens) {
    for (int i = static_cast<int>(threadIdx.x); i < options.num_end_tokens; i += kScanThreads) {
      const int place = options.end_tokens[i] - begin;
      if (place >= 0 && place < count) scores[place] = minus_infinity();
    }
  }
  __syncthreads();
}

// The best of a block's chunks into `best`, NaN into `flags`, chunk maxima into `chunk_keys`.
// Called by the whole block, with a barrier of the block between two calls.
__device__ inline void reduce_chunks(const LaneValues (&values)[kChunksPerWarp], int first_chunk,
                                     int num_row_chunks, std::uint32_t* chunk_keys,
                                     unsigned long long* best, std::uint32_t* flags,
                                     std::uint32_t nan_flag) {
  __shared__ unsigned long long bests[kScanWarps];
  const unsigned lane = threadIdx.x % kWarp;
  const int warp = static_cast<int>(threadIdx.x / kWarp);
  unsigned long long mine = 0;
  bool nan = false;
#pragma unroll
  for (int j = 0; j < kChunksPerWarp; ++j) {
    const int chunk = first_chunk + warp + j * kScanWarps;
    if (chunk >= num_row_chunks) break;
    const unsigned long long chunk_top = chunk_best(values[j], chunk, lane);
    if (lane == 0) chunk_keys[chunk] = key_of(chunk_top);
    mine = chunk_top > mine ? chunk_top : mine;
#pragma unroll
    for (int i = 0; i < kLaneTokens; ++i) nan |= values[j].at[i] != values[j].at[i];
  }
  if (__any_sync(kFullWarp, nan) && lane == 0) atomicOr(flags, nan_flag);
  // Atomics of one address wait for one another: one a block.
  if (lane == 0) bests[warp] = mine;
  __syncthreads();
  if (threadIdx.x != 0) return;
#pragma unroll
  for (int i = 1; i < kScanWarps; ++i) mine = bests[i] > mine ? bests[i] : mine;
  if (mine != 0) atomicMax(best, mine);
}

}  // namespace specdec::kernels::cuda
