#pragma once

#include <cfloat>

#include "kernels/cuda/device.cuh"
#include "kernels/cuda/sampling/params.h"
#include "kernels/sampling/gumbel.h"
#include "kernels/sampling/philox.h"

/// What the kernels that read a logits row share. Built without contraction of a * b + c
/// (-fmad=false), so that the definitions in kernels/sampling have the same bits as on the host.
namespace specdec::kernels::cuda {

constexpr unsigned kWarp = 32;
constexpr int kLaneTokens = row_math::kChunk / static_cast<int>(kWarp);  // 8
constexpr std::uint32_t kLowestKey = row_math::order_key(-FLT_MAX);
constexpr std::uint32_t kInfinityKey = 0xFF800000u;        // order_key(+infinity)
constexpr std::uint32_t kMinusInfinityKey = ~0xFF800000u;  // order_key(-infinity)
constexpr double kMinGumbel = -3.14;                       // no noise is below: u >= 2^-33

__device__ inline float minus_infinity() { return __int_as_float(static_cast<int>(0xFF800000u)); }

/// The token at place `i` of a lane's share of a chunk: two runs of four, so that loads are 16
/// bytes.
__device__ inline int lane_token(int chunk, unsigned lane, int i) {
  return chunk * row_math::kChunk + (i / 4) * (row_math::kChunk / 2) + static_cast<int>(lane) * 4 +
         i % 4;
}

struct LaneValues {
  float at[kLaneTokens];
};

/// A lane's share of a chunk; -infinity past the row's end.
__device__ inline LaneValues load_lane(const float* row, int vocab, int chunk, unsigned lane) {
  LaneValues values;
  const bool whole = (vocab % 4 == 0) && (chunk + 1) * row_math::kChunk <= vocab;
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const int token = lane_token(chunk, lane, half * 4);
    if (whole) {
      const float4 four = *reinterpret_cast<const float4*>(row + token);
      values.at[half * 4] = four.x;
      values.at[half * 4 + 1] = four.y;
      values.at[half * 4 + 2] = four.z;
      values.at[half * 4 + 3] = four.w;
    } else {
#pragma unroll
      for (int i = 0; i < 4; ++i)
        values.at[half * 4 + i] = token + i < vocab ? row[token + i] : minus_infinity();
    }
  }
  return values;
}

__device__ inline unsigned long long pack_best(std::uint32_t key, std::int32_t token) {
  return (static_cast<unsigned long long>(key) << 32) | ~static_cast<std::uint32_t>(token);
}
__device__ inline std::uint32_t key_of(unsigned long long best) {
  return static_cast<std::uint32_t>(best >> 32);
}
__device__ inline std::int32_t token_of(unsigned long long best) {
  return static_cast<std::int32_t>(~static_cast<std::uint32_t>(best));
}

/// The best of a chunk, in all lanes: largest score, lowest token.
__device__ inline unsigned long long chunk_best(const LaneValues& values, int chunk,
                                                unsigned lane) {
  float best = minus_infinity();
#pragma unroll
  for (int i = 0; i < kLaneTokens; ++i) best = fmaxf(best, values.at[i]);
  const std::uint32_t key = __reduce_max_sync(kFullWarp, row_math::order_key(best));
  const float score = row_math::float_of_key(key);
  int first = INT_MAX;
#pragma unroll
  for (int i = kLaneTokens - 1; i >= 0; --i)
    if (values.at[i] == score) first = lane_token(chunk, lane, i);
  first = __reduce_min_sync(kFullWarp, first);
  return pack_best(key, first);
}

/// Everything about a row but its logits.
struct RowView {
  int row = -1;
  int sequence = -1;
  int node = 0;
  int depth = 0;
  const RowSampling* options = nullptr;
  std::int64_t position = 0;  // of the token to draw
  bool edited = false;

  __device__ bool there() const { return sequence >= 0; }
};

/// The mask that a row is under; null: none.
__device__ inline const std::uint32_t* mask_of(const SampleRowsParams& params, int row) {
  const std::int32_t mask = params.mask_of_row == nullptr ? -1 : params.mask_of_row[row];
  return mask < 0 ? nullptr
                  : params.masks + static_cast<std::size_t>(mask) *
                                       static_cast<std::size_t>(mask_words(params.vocab));
}

__device__ inline RowView view_row(const SampleRowsParams& params, int row) {
  RowView view;
  const int sequence = params.tree.sequence_of_row[row];
  if (sequence < 0) return view;
  view.row = row;
  view.sequence = sequence;
  const int first = params.tree.first_rows[sequence];
  view.node = params.tree.node_of_row != nullptr ? params.tree.node_of_row[row] : row - first;
  view.depth = params.tree.depths[first + view.node];
  view.options = params.options + sequence;
  const SequenceState state = params.sequences[sequence];
  view.position = static_cast<std::int64_t>(state.length) + view.depth;
  const RowSampling& options = *view.options;
  view.edited =
      params.scratch.scores != nullptr &&
      (options.token_counts != nullptr || options.num_bias > 0 || mask_of(params, row) != nullptr ||
       (options.num_end_tokens > 0 && state.num_output + view.depth < options.min_tokens));
  return view;
}

__device__ inline const float* raw_row(const SampleRowsParams& params, int row) {
  return params.logits + static_cast<std::size_t>(row) * static_cast<std::size_t>(params.vocab);
}
__device__ inline const float* scores_of(const SampleRowsParams& params, const RowView& view) {
  const std::size_t begin =
      static_cast<std::size_t>(view.row) * static_cast<std::size_t>(params.vocab);
  return (view.edited ? params.scratch.scores : params.logits) + begin;
}
__device__ inline std::uint32_t* chunk_keys_of(std::uint32_t* keys, int vocab, int row) {
  return keys + static_cast<std::size_t>(row) * static_cast<std::size_t>(num_chunks(vocab));
}

__device__ inline RowStatus status_of(const RowState& state, bool edited) {
  const std::uint32_t raw = key_of(edited ? state.raw_best : state.best);
  if ((state.flags & RowState::kRawNan) != 0 || raw >= kInfinityKey) return RowStatus::bad_logits;
  if (raw <= kMinusInfinityKey) return RowStatus::no_logits;
  if (!edited) return RowStatus::ok;
  if ((state.flags & RowState::kEditedNan) != 0 || key_of(state.best) >= kInfinityKey)
    return RowStatus::bad_edits;
  return key_of(state.best) <= kMinusInfinityKey ? RowStatus::all_banned : RowStatus::ok;
}

/// The scores of a row relative to its best, in units of temperature, as ProcessedRow has them.
struct Scale {
  float max;
  float scale;
  double inverse_temperature;

  __device__ Scale(const RowSampling& options, std::uint32_t max_key)
      : max(row_math::float_of_key(max_key)),
        scale(static_cast<float>(fmin(options.inverse_temperature, static_cast<double>(FLT_MAX)))),
        inverse_temperature(options.inverse_temperature) {}
  __device__ float in_float(float score) const { return (score - max) * scale; }
  __device__ double relative(float score) const {
    return (static_cast<double>(score) - max) * inverse_temperature;
  }
};

struct Cutoff {
  std::uint32_t key = kLowestKey;
  std::int32_t token = INT_MAX;
  __device__ bool keeps(std::uint32_t other_key, std::int32_t other_token) const {
    return other_key > key || (other_key == key && other_token <= token);
  }
};

/// A token with its exact score + noise; better: larger, ties to the lowest token.
struct Noisy {
  double score = -INFINITY;
  std::int32_t token = INT_MAX;
  __device__ bool better_than(const Noisy& other) const {
    return score > other.score || (score == other.score && token < other.token);
  }
};

__device__ inline Noisy warp_best(Noisy best) {
#pragma unroll
  for (unsigned offset = kWarp / 2; offset > 0; offset /= 2) {
    Noisy other;
    other.score = __shfl_xor_sync(kFullWarp, best.score, offset);
    other.token = __shfl_xor_sync(kFullWarp, best.token, offset);
    if (other.better_than(best)) best = other;
  }
  return best;
}

/// The k best of item(0..count) by a block of kThreads, best first, into `winners` (shared, at
/// least k). Returns how many there are. A thread keeps its first item; further ones are asked for
/// anew in each round, so `count` should rarely pass kThreads where an item is dear.
template <int kThreads, typename Item>
__device__ int k_best(int count, int k, const Item& item, Noisy* winners) {
  __shared__ Noisy warp_winners[kThreads / static_cast<int>(kWarp)];
  const int thread = static_cast<int>(threadIdx.x);
  const Noisy first = thread < count ? item(thread) : Noisy{};
  Noisy last{INFINITY, -1};
  int found = 0;
  for (; found < k; ++found) {
    Noisy best;
    const auto offer = [&](const Noisy& other) {
      if (last.better_than(other) && other.better_than(best)) best = other;
    };
    offer(first);
    for (int i = thread + kThreads; i < count; i += kThreads) offer(item(i));
    best = warp_best(best);
    if (thread % static_cast<int>(kWarp) == 0)
      warp_winners[thread / static_cast<int>(kWarp)] = best;
    __syncthreads();
    if (thread == 0) {
      for (int i = 1; i < kThreads / static_cast<int>(kWarp); ++i)
        if (warp_winners[i].better_than(best)) best = warp_winners[i];
      winners[found] = best;
    }
    __syncthreads();
    last = winners[found];
    if (last.token == INT_MAX) break;
  }
  return found;
}

}  // namespace specdec::kernels::cuda
