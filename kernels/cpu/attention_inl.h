#pragma once

// Attention inside one unit of 128 positions, for any vector width; after simd_*.h and math_inl.h.
//
// A score is one chain over the head's dimensions, an output one chain over the unit's positions,
// both ascending; so neither depends on which queries share the loads.

#include "kernels/cpu/kernel_table.h"

namespace specdec::kernels {
namespace {

// Queries and vectors that fill the registers without spilling.
constexpr int kScoreQueries = kVectorRegisters == 32 ? 12 : 5;
constexpr int kWeighQueries = kVectorRegisters == 32 ? 12 : 4;
constexpr int weigh_vectors(int queries) { return kVectorRegisters == 32 && queries <= 6 ? 4 : 2; }

template <typename T>
inline F load_kv(const T* at) {
  if constexpr (sizeof(T) == 4) {
    return load(at);
  } else {
    return load_f16(at);
  }
}
template <typename T>
inline F load_kv_8(const T* at) {
  if constexpr (sizeof(T) == 4) {
    return load_8(at);
  } else {
    return load_f16_8(at);
  }
}

/// The cache line `distance` bytes from `at`. Blocks are scattered over the pool and no larger than
/// a page, which is as far as hardware prefetchers look.
inline void prefetch_at(const void* at, std::ptrdiff_t distance) {
  _mm_prefetch(static_cast<const char*>(at) + distance, _MM_HINT_T1);
}
inline std::ptrdiff_t distance(const void* from, const void* to) {
  return to == nullptr ? 0 : static_cast<const char*>(to) - static_cast<const char*>(from);
}

/// V vectors of positions x Q queries. `next`, `next_keys`: distances to blocks read after this
/// one.
template <typename T, int Q, int V>
inline void score_block(const T* keys, int block_size, int head_dim, const float* q, float* out,
                        std::ptrdiff_t next, std::ptrdiff_t next_keys) {
  F sums[Q][V];
  for (int i = 0; i < Q; ++i) {
    for (int v = 0; v < V; ++v) sums[i][v] = zero();
  }
  for (int d = 0; d < head_dim; ++d, keys += block_size) {
    prefetch_at(keys, next);
    prefetch_at(keys, next_keys);
    F k[V];
    SPECDEC_UNROLL
    for (int v = 0; v < V; ++v) k[v] = load_kv(keys + v * kLanes);
    SPECDEC_UNROLL
    for (int i = 0; i < Q; ++i) {
      const F x = set1(q[i * head_dim + d]);
      SPECDEC_UNROLL
      for (int v = 0; v < V; ++v) sums[i][v] = fma(x, k[v], sums[i][v]);
    }
  }
  for (int i = 0; i < Q; ++i) {
    for (int v = 0; v < V; ++v) store(out + i * kUnit + v * kLanes, sums[i][v]);
  }
}

template <typename T, int Q>
void scores_of(const KvUnit& keys, int begin, int end, const float* q, float* scores) {
  for (int p = begin; p < end; p += 16) {
    const int b = p / keys.block_size;
    const T* block = static_cast<const T*>(keys.blocks[b]) + p % keys.block_size;
    const std::ptrdiff_t next =
        keys.next_blocks == nullptr ? 0 : distance(keys.blocks[b], keys.next_blocks[b]);
    const std::ptrdiff_t next_keys = (b + 1) * keys.block_size < end && keys.next_blocks != nullptr
                                         ? distance(keys.blocks[b], keys.blocks[b + 1])
                                         : 0;
    if constexpr (kLanes == 16) {
      if (p % 32 == 0 && p + 16 < end && keys.block_size >= 32) {
        score_block<T, Q, 2>(block, keys.block_size, keys.head_dim, q, scores + p, next, next_keys);
        p += 16;
      } else {
        score_block<T, Q, 1>(block, keys.block_size, keys.head_dim, q, scores + p, next, next_keys);
      }
    } else {
      score_block<T, Q, 2>(block, keys.block_size, keys.head_dim, q, scores + p, next, next_keys);
    }
  }
}

template <typename T, int Q = kScoreQueries>
void scores_dispatch(const KvUnit& keys, int begin, int end, const float* q, int queries,
                     float* scores) {
  if constexpr (Q > 1) {
    if (queries < Q) return scores_dispatch<T, Q - 1>(keys, begin, end, q, queries, scores);
  }
  scores_of<T, Q>(keys, begin, end, q, scores);
}

/// Splits `queries` evenly into runs of at most `most`.
constexpr int run_length(int queries, int most) {
  const int runs = (queries + most - 1) / most;
  return (queries + runs - 1) / runs;
}

void scores(const KvUnit& unit, int begin, int end, const float* q, int queries, float* out) {
  KvUnit keys = unit;
  const int run = run_length(queries, kScoreQueries);
  for (int i = 0; i < queries; i += run) {
    if (i > 0) keys.next_blocks = nullptr;  // the first run has fetched them
    const int n = queries - i < run ? queries - i : run;
    const float* qi = q + i * keys.head_dim;
    if (keys.type == DataType::f32) {
      scores_dispatch<float>(keys, begin, end, qi, n, out + i * kUnit);
    } else {
      scores_dispatch<std::uint16_t>(keys, begin, end, qi, n, out + i * kUnit);
    }
  }
}

void softmax(float* scores, int queries, const int* counts, float* top, float* sum) {
  for (int i = 0; i < queries; ++i, scores += kUnit) {
    const int count = counts[i];
    F best = set1(-__builtin_inff());
    for (int p = 0; p < count; p += kLanes) {
      const F s = first_lanes(count - p, load(scores + p), set1(-__builtin_inff()));
      best = max(best, s);
    }
    top[i] = reduce_max(best);
    F total = zero();
    for (int p = 0; p < count; p += kLanes) {
      const F e = exp2(sub(load(scores + p), set1(top[i])));
      const F w = first_lanes(count - p, e, zero());
      store(scores + p, w);
      total = add(total, w);
    }
    sum[i] = reduce_add(total);
  }
}

template <typename T, int Q, int V, bool kEight>
inline void weigh_block(const T* values, int head_dim, int count, const float* weights, float* out,
                        std::ptrdiff_t next) {
  F sums[Q][V];
  for (int i = 0; i < Q; ++i) {
    for (int v = 0; v < V; ++v) {
      const float* at = out + i * head_dim + v * kLanes;
      sums[i][v] = kEight ? load_8(at) : load(at);
    }
  }
  for (int p = 0; p < count; ++p, values += head_dim) {
    prefetch_at(values, next);
    if constexpr (sizeof(T) * V * kLanes > 64) prefetch_at(values, next + 64);
    F x[V];
    SPECDEC_UNROLL
    for (int v = 0; v < V; ++v) {
      x[v] = kEight ? load_kv_8(values + v * kLanes) : load_kv(values + v * kLanes);
    }
    SPECDEC_UNROLL
    for (int i = 0; i < Q; ++i) {
      const F w = set1(weights[i * kUnit + p]);
      SPECDEC_UNROLL
      for (int v = 0; v < V; ++v) sums[i][v] = fma(w, x[v], sums[i][v]);
    }
  }
  for (int i = 0; i < Q; ++i) {
    for (int v = 0; v < V; ++v) {
      float* at = out + i * head_dim + v * kLanes;
      kEight ? store_8(at, sums[i][v]) : store(at, sums[i][v]);
    }
  }
}

template <typename T, int Q, int V, bool kEight>
void weigh_dims(const KvUnit& values, int begin, int end, int dim, const float* weights,
                float* out) {
  for (int p = begin; p < end;) {
    const int offset = p % values.block_size;
    const int left = values.block_size - offset;
    const int n = end - p < left ? end - p : left;
    const int b = p / values.block_size;
    const T* rows = static_cast<const T*>(values.blocks[b]) + offset * values.head_dim + dim;
    const std::ptrdiff_t next =
        values.next_blocks == nullptr ? 0 : distance(values.blocks[b], values.next_blocks[b]);
    weigh_block<T, Q, V, kEight>(rows, values.head_dim, n, weights + p, out + dim, next);
    p += n;
  }
}

template <typename T, int Q>
void weigh_of(const KvUnit& values, int begin, int end, const float* weights, float* out) {
  constexpr int kVectors = weigh_vectors(Q);
  int dim = 0;
  for (; dim + kVectors * kLanes <= values.head_dim; dim += kVectors * kLanes) {
    weigh_dims<T, Q, kVectors, false>(values, begin, end, dim, weights, out);
  }
  for (; dim + kLanes <= values.head_dim; dim += kLanes) {
    weigh_dims<T, Q, 1, false>(values, begin, end, dim, weights, out);
  }
  if (dim < values.head_dim) {
    weigh_dims<T, Q, 1, true>(values, begin, end, dim, weights, out);
  }
}

template <typename T, int Q = kWeighQueries>
void weigh_dispatch(const KvUnit& values, int begin, int end, const float* weights, int queries,
                    float* out) {
  if constexpr (Q > 1) {
    if (queries < Q) return weigh_dispatch<T, Q - 1>(values, begin, end, weights, queries, out);
  }
  weigh_of<T, Q>(values, begin, end, weights, out);
}

template <typename T>
void weigh_typed(const KvUnit& unit, int begin, int end, const float* weights, int queries,
                 const int* counts, float* out) {
  KvUnit values = unit;
  const int run = run_length(queries, kWeighQueries);
  for (int i = 0; i < queries; i += run) {
    if (i > 0) values.next_blocks = nullptr;
    const int n = queries - i < run ? queries - i : run;
    int common = end;
    for (int j = i; j < i + n; ++j) common = counts[j] < common ? counts[j] : common;
    if (common < begin) common = begin;
    weigh_dispatch<T>(values, begin, common, weights + i * kUnit, n, out + i * values.head_dim);
    // Positions that only some of the queries see: one query at a time, so that what lies beyond a
    // query's own positions is never touched, not even with weight 0 (it may be NaN).
    for (int j = i; j < i + n; ++j) {
      const int own = counts[j] < end ? counts[j] : end;
      if (own > common) {
        weigh_of<T, 1>(values, common, own, weights + j * kUnit, out + j * values.head_dim);
      }
    }
  }
}

void weigh(const KvUnit& values, int begin, int end, const float* weights, int queries,
           const int* counts, float* out) {
  if (values.type == DataType::f32) {
    weigh_typed<float>(values, begin, end, weights, queries, counts, out);
  } else {
    weigh_typed<std::uint16_t>(values, begin, end, weights, queries, counts, out);
  }
}

void combine(int queries, int head_dim, const float* top, const float* sum, const float* out,
             float* running_top, float* running_sum, float* running_out) {
  for (int i = 0; i < queries; ++i, out += head_dim, running_out += head_dim) {
    const float best = running_top[i] > top[i] ? running_top[i] : top[i];
    const F old_scale = exp2(set1(running_top[i] - best));
    const F new_scale = exp2(set1(top[i] - best));
    alignas(64) float lanes[kLanes];
    store(lanes, fma(set1(sum[i]), new_scale, mul(set1(running_sum[i]), old_scale)));
    running_sum[i] = lanes[0];
    running_top[i] = best;
    for (int d = 0; d < head_dim; d += kLanes) {
      const int n = head_dim - d;
      const F old = mul(load_first(running_out + d, n, 0.0f), old_scale);
      store_first(running_out + d, n, fma(load_first(out + d, n, 0.0f), new_scale, old));
    }
  }
}

void divide(const float* in, float divisor, float* out, int count) {
  for (int i = 0; i < count; i += kLanes) {
    const int n = count - i;
    store_first(out + i, n, div(load_first(in + i, n, 0.0f), set1(divisor)));
  }
}

}  // namespace
}  // namespace specdec::kernels
