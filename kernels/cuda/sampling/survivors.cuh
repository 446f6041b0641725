#pragma once

#include "kernels/cuda/sampling/row_values.cuh"

/// One block finds what top-k, top-p and min-p leave of a row. Every filter keeps a prefix of the
/// tokens in the order (score descending, id ascending), so only the tokens near the top are ever
/// gathered and put in order; the row itself is not sorted.
namespace specdec::kernels::cuda {

constexpr int kSelectThreads = 512;
constexpr int kSelectWarps = kSelectThreads / static_cast<int>(kWarp);
constexpr int kListedChunks = 1024;  // gathered from at a time
constexpr int kMostRanked = 256;     // more tokens than this are sorted by merging

/// Shared memory of the block: gathered tokens, packed as pack_best() does, or one digit's masses.
struct SelectShared {
  union {
    unsigned long long order[kMostSelected];
    unsigned long long digits[kDigitBins];
  };
  std::int32_t chunk_list[kListedChunks];
  unsigned long long warp_sums[kSelectWarps];
  unsigned long long sum;
  unsigned long long before;
  int count;
  int listed;
  int place;
  std::uint32_t key;
};

// Inclusive sum over the block of one value per thread, in thread order; shared.sum is the total.
__device__ inline unsigned long long block_inclusive_sum(unsigned long long value,
                                                         SelectShared& shared) {
  const unsigned lane = threadIdx.x % kWarp;
  const int warp = static_cast<int>(threadIdx.x / kWarp);
#pragma unroll
  for (unsigned offset = 1; offset < kWarp; offset *= 2) {
    const unsigned long long other = __shfl_up_sync(kFullWarp, value, offset);
    if (lane >= offset) value += other;
  }
  __syncthreads();
  if (lane == kWarp - 1) shared.warp_sums[warp] = value;
  __syncthreads();
  unsigned long long total = 0;
  for (int i = 0; i < kSelectWarps; ++i) {
    if (i == warp) value += total;
    total += shared.warp_sums[i];
  }
  if (threadIdx.x == 0) shared.sum = total;
  __syncthreads();
  return value;
}

// The k-th largest chunk maximum, 1 <= k <= chunks: k chunks hold a token that reaches it, so the
// k-th best token does too. Bit by bit: the largest key that at least k chunks reach.
__device__ inline std::uint32_t kth_chunk_key(const std::uint32_t* keys, int chunks, int k) {
  constexpr int kHeld = 2;  // keys that a thread keeps in registers
  std::uint32_t held[kHeld];
#pragma unroll
  for (int i = 0; i < kHeld; ++i) {
    const int chunk = static_cast<int>(threadIdx.x) + i * kSelectThreads;
    held[i] = chunk < chunks ? keys[chunk] : 0;
  }
  std::uint32_t reached = 0;
  for (std::uint32_t bit = 0x80000000u; bit != 0; bit >>= 1) {
    const std::uint32_t wanted = reached | bit;
    int count = __syncthreads_count(held[0] >= wanted ? 1 : 0);
    if (chunks > kSelectThreads) count += __syncthreads_count(held[1] >= wanted ? 1 : 0);
    for (int begin = kHeld * kSelectThreads; begin < chunks; begin += kSelectThreads) {
      const int chunk = begin + static_cast<int>(threadIdx.x);
      count += __syncthreads_count(chunk < chunks && keys[chunk] >= wanted ? 1 : 0);
    }
    if (count >= k) reached = wanted;
  }
  return reached;
}

/// Gathers what `cutoff` keeps, in no order. Returns how many there are; only the first
/// kMostSelected to arrive are stored.
__device__ inline int gather(const float* scores, const std::uint32_t* keys, int vocab,
                             const Cutoff& cutoff, SelectShared& shared) {
  const unsigned lane = threadIdx.x % kWarp;
  const int chunks = num_chunks(vocab);
  __syncthreads();
  if (threadIdx.x == 0) shared.count = 0;
  for (int first = 0; first < chunks; first += kListedChunks) {
    if (threadIdx.x == 0) shared.listed = 0;
    __syncthreads();
    const int end = min(chunks, first + kListedChunks);
    for (int chunk = first + static_cast<int>(threadIdx.x); chunk < end; chunk += kSelectThreads)
      if (keys[chunk] >= cutoff.key) shared.chunk_list[atomicAdd(&shared.listed, 1)] = chunk;
    __syncthreads();
    for (int i = static_cast<int>(threadIdx.x / kWarp); i < shared.listed; i += kSelectWarps) {
      const int chunk = shared.chunk_list[i];
      const LaneValues values = load_lane(scores, vocab, chunk, lane);
      unsigned kept[kLaneTokens];
      int total = 0;
#pragma unroll
      for (int j = 0; j < kLaneTokens; ++j) {
        const bool keep =
            cutoff.keeps(row_math::order_key(values.at[j]), lane_token(chunk, lane, j));
        kept[j] = __ballot_sync(kFullWarp, keep);
        total += __popc(kept[j]);
      }
      if (total == 0) continue;
      int place = 0;
      if (lane == 0) place = atomicAdd(&shared.count, total);
      place = __shfl_sync(kFullWarp, place, 0);
#pragma unroll
      for (int j = 0; j < kLaneTokens; ++j) {
        const int mine = place + __popc(kept[j] & ((1u << lane) - 1));
        if ((kept[j] >> lane & 1u) != 0 && mine < kMostSelected)
          shared.order[mine] =
              pack_best(row_math::order_key(values.at[j]), lane_token(chunk, lane, j));
        place += __popc(kept[j]);
      }
    }
    __syncthreads();
  }
  return shared.count;
}

/// Puts what was gathered in order, best first: few by counting who is better, more by a bitonic
/// sort.
__device__ inline void sort_gathered(int count, SelectShared& shared) {
  if (count <= kMostRanked) {
    unsigned long long mine = 0;
    int rank = 0;
    const bool owner = static_cast<int>(threadIdx.x) < count;
    if (owner) {
      mine = shared.order[threadIdx.x];
      for (int i = 0; i < count; ++i) rank += shared.order[i] > mine ? 1 : 0;
    }
    __syncthreads();
    if (owner) shared.order[rank] = mine;
    __syncthreads();
    return;
  }
  int size = 2;
  while (size < count) size *= 2;
  for (int i = count + static_cast<int>(threadIdx.x); i < size; i += kSelectThreads)
    shared.order[i] = 0;
  __syncthreads();
  for (int run = 2; run <= size; run *= 2) {
    for (int step = run / 2; step > 0; step /= 2) {
      for (int i = static_cast<int>(threadIdx.x); i < size / 2; i += kSelectThreads) {
        const int low = 2 * i - (i & (step - 1));
        const int high = low + step;
        const unsigned long long a = shared.order[low];
        const unsigned long long b = shared.order[high];
        if ((a < b) == ((low & run) == 0)) {
          shared.order[low] = b;
          shared.order[high] = a;
        }
      }
      __syncthreads();
    }
  }
}

/// The digit at which the sum from the top first reaches shared `target`; sets shared.place to it
/// (-1: never) and shared.before to the sum above it. Reads shared.digits, or `digits` if given.
__device__ inline void find_digit(const unsigned long long* digits, int bins,
                                  unsigned long long target, SelectShared& shared) {
  const int share = (bins + kSelectThreads - 1) / kSelectThreads;
  const int top = bins - 1 - static_cast<int>(threadIdx.x) * share;
  unsigned long long mine = 0;
  for (int i = 0; i < share && top - i >= 0; ++i) mine += digits[top - i];
  if (threadIdx.x == 0) shared.place = -1;
  const unsigned long long upto = block_inclusive_sum(mine, shared);
  unsigned long long sum = upto - mine;
  if (sum < target && upto >= target) {
    for (int digit = top; digit >= 0; --digit) {
      if (sum + digits[digit] >= target) {
        shared.place = digit;
        shared.before = sum;
        break;
      }
      sum += digits[digit];
    }
  }
  __syncthreads();
}

/// The smallest prefix of what `within` keeps whose weights reach `target`, for rows where too many
/// tokens compete to be gathered: a radix selection over the row in digits of 11, 11 and 10 bits
/// (WeightedSelection). `weigh(score)` >= 0; `within` if they never reach it.
template <typename Weigh>
__device__ Cutoff radix_select(const float* scores, const std::uint32_t* keys, int vocab,
                               const Cutoff& within, unsigned long long target, const Weigh& weigh,
                               SelectShared& shared) {
  const unsigned lane = threadIdx.x % kWarp;
  const int warp = static_cast<int>(threadIdx.x / kWarp);
  const int chunks = num_chunks(vocab);
  std::uint32_t prefix = 0;
  std::uint32_t open = 0;  // bits of the key that `prefix` fixes
  for (int shift = 21;; shift = shift == 21 ? 10 : 0) {
    const std::uint32_t mask = shift == 0 ? 0x3FFu : 0x7FFu;
    __syncthreads();
    for (int i = static_cast<int>(threadIdx.x); i <= static_cast<int>(mask); i += kSelectThreads)
      shared.digits[i] = 0;
    __syncthreads();
    for (int chunk = warp; chunk < chunks; chunk += kSelectWarps) {
      if (keys[chunk] < within.key || keys[chunk] < prefix) continue;
      const LaneValues values = load_lane(scores, vocab, chunk, lane);
      for (int i = 0; i < kLaneTokens; ++i) {
        const std::uint32_t key = row_math::order_key(values.at[i]);
        if (!within.keeps(key, lane_token(chunk, lane, i)) || (key & open) != prefix) continue;
        const unsigned long long weight = weigh(values.at[i]);
        if (weight > 0) atomicAdd(&shared.digits[(key >> shift) & mask], weight);
      }
    }
    __syncthreads();
    find_digit(shared.digits, static_cast<int>(mask) + 1, target, shared);
    if (shared.place < 0) return within;
    prefix |= static_cast<std::uint32_t>(shared.place) << shift;
    open |= mask << shift;
    target -= shared.before;
    if (shift == 0) break;
  }
  // All that is open has one key and one weight: the lowest ids go first.
  const unsigned long long weight = weigh(row_math::float_of_key(prefix));
  unsigned long long needed = (target + weight - 1) / weight;
  __syncthreads();
  if (threadIdx.x == 0) shared.place = INT_MAX;
  for (int begin = 0; begin < vocab; begin += kSelectThreads) {
    const int token = begin + static_cast<int>(threadIdx.x);
    const bool tied = token < vocab && row_math::order_key(scores[token]) == prefix &&
                      within.keeps(prefix, token);
    const unsigned long long upto = block_inclusive_sum(tied ? 1 : 0, shared);
    if (tied && upto == needed) shared.place = token;
    if (shared.sum >= needed) break;
    needed -= shared.sum;
  }
  __syncthreads();
  return {prefix, shared.place};
}

/// What the filters leave.
struct Survivors {
  bool dense = false;  // too many to gather: `cutoff` and `lowest` say which
  int count = 0;       // else shared.order[0, count), best first
  Cutoff cutoff;
  double lowest = -INFINITY;
};

__device__ inline bool has_top_k(const RowSampling& options, int vocab) {
  return options.top_k > 0 && options.top_k < vocab;
}

/// Whether the row needs its masses by first digit.
__device__ inline bool is_nucleus(const RowSampling& options, int vocab) {
  return options.inverse_temperature > 0 && options.top_p < 1 && !has_top_k(options, vocab);
}

/// LogitsPipeline::apply_filters. `digits` [kDigitBins]: masses of the row by first digit, where
/// top_p is on without top_k.
__device__ inline Survivors find_survivors(const RowSampling& options, const Scale& scale,
                                           const float* scores, const std::uint32_t* keys,
                                           int vocab, const unsigned long long* digits,
                                           SelectShared& shared) {
  Survivors left;
  const bool min_p = options.min_p > 0;
  bool top_k = has_top_k(options, vocab);
  bool top_p = options.top_p < 1;
  if (min_p) left.lowest = fixed_log(options.min_p);
  if (!top_k && !top_p && !min_p) {
    left.dense = true;
    return left;
  }
  const auto mass = [&](float score) {
    return static_cast<unsigned long long>(row_math::mass_one(scale.in_float(score)));
  };
  const auto nucleus_target = [&](unsigned long long total) {
    const auto wanted = static_cast<long long>(ceil(options.top_p * static_cast<double>(total)));
    return static_cast<unsigned long long>(wanted > 1 ? wanted : 1);
  };
  unsigned long long total = 0;  // of the masses that top_p sees
  const int chunks = num_chunks(vocab);
  if (top_k) {
    if (options.top_k <= chunks)
      left.cutoff.key = max(kLowestKey, kth_chunk_key(keys, chunks, options.top_k));
  } else if (top_p) {
    find_digit(digits, kDigitBins, ~0ull, shared);  // for the sum alone
    total = shared.sum;
    find_digit(digits, kDigitBins, nucleus_target(total), shared);
    left.cutoff.key = max(kLowestKey, static_cast<std::uint32_t>(max(shared.place, 0)) << 21);
  } else {
    const double score = scale.max + left.lowest / scale.inverse_temperature;
    const double slack = 1e-6 * (fabs(static_cast<double>(scale.max)) + fabs(score));
    left.cutoff.key =
        row_math::order_key(static_cast<float>(fmax(static_cast<double>(-FLT_MAX), score - slack)));
  }
  int count = gather(scores, keys, vocab, left.cutoff, shared);
  if (count > kMostSelected && top_k) {
    left.cutoff = radix_select(
        scores, keys, vocab, left.cutoff, static_cast<unsigned long long>(options.top_k),
        [](float) { return 1ull; }, shared);
    top_k = false;
    count = gather(scores, keys, vocab, left.cutoff, shared);
    if (count > kMostSelected && top_p) {  // the masses of what top_k left
      unsigned long long mine = 0;
      for (int token = static_cast<int>(threadIdx.x); token < vocab; token += kSelectThreads)
        if (left.cutoff.keeps(row_math::order_key(scores[token]), token))
          mine += mass(scores[token]);
      block_inclusive_sum(mine, shared);
      total = shared.sum;
    }
  }
  if (count > kMostSelected && top_p) {
    left.cutoff =
        radix_select(scores, keys, vocab, left.cutoff, nucleus_target(total), mass, shared);
    top_p = false;
    count = gather(scores, keys, vocab, left.cutoff, shared);
  }
  if (count > kMostSelected) {
    left.dense = true;
    return left;
  }

  sort_gathered(count, shared);
  if (top_k) count = min(count, options.top_k);
  const auto score_at = [&](int i) { return row_math::float_of_key(key_of(shared.order[i])); };
  if (top_p) {
    const int share = (count + kSelectThreads - 1) / kSelectThreads;
    const int begin = static_cast<int>(threadIdx.x) * share;
    const int end = min(begin + share, count);
    unsigned long long mine = 0;
    for (int i = begin; i < end; ++i) mine += mass(score_at(i));
    unsigned long long before = block_inclusive_sum(mine, shared) - mine;
    const unsigned long long target =
        nucleus_target(has_top_k(options, vocab) ? shared.sum : total);
    __syncthreads();
    if (threadIdx.x == 0) shared.count = 0;
    __syncthreads();
    int kept = 0;  // those whose predecessors do not reach the target yet
    for (int i = begin; i < end; ++i) {
      kept += before < target ? 1 : 0;
      before += mass(score_at(i));
    }
    if (kept > 0) atomicAdd(&shared.count, kept);
    __syncthreads();
    count = shared.count;
  }
  if (min_p) {
    __syncthreads();
    if (threadIdx.x == 0) shared.count = 0;
    __syncthreads();
    int kept = 0;
    for (int i = static_cast<int>(threadIdx.x); i < count; i += kSelectThreads)
      kept += scale.relative(score_at(i)) < left.lowest ? 0 : 1;
    if (kept > 0) atomicAdd(&shared.count, kept);
    __syncthreads();
    count = shared.count;
  }
  left.count = count;
  return left;
}

/// Exact score + noise of a token, as RowSampler::offer().
__device__ inline Noisy noisy(const Scale& scale, const RandomStream& stream, float score,
                              std::int32_t token) {
  if (score == minus_infinity()) return {};
  return {scale.relative(score) + gumbel(stream.word(static_cast<std::uint32_t>(token))), token};
}

}  // namespace specdec::kernels::cuda
