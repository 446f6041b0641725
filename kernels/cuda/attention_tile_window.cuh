#pragma once

#include "kernels/cuda/attention_share.cuh"

// A tree's own positions, as the blocks of attention_tiles_kernel attend to them.

namespace specdec::kernels::cuda {

/// A tree's slots when four warps have them between them: the keys in registers, every fourth eight
/// of slots; pairs of dimension tiles. Most trees need half of the window.
template <int kChunks>
struct TileWindow : TreeWindow<kChunks> {
  using Window = TreeWindow<kChunks>;
  static constexpr int kEights = kWindowSlots / 8 / 4;
  static constexpr int kMostly = kEights / 2;
  static constexpr int kPairs = (kChunks + 1) / 2;
  const __half* key_rows[kMostly];
  const __half* value_rows[2];
  uint4 keys[kEights][kChunks];

  __device__ bool needs_all() const { return this->num_slots > kWindowSlots / 2; }
  __device__ const __half* own_key_row(const AttentionWarp<kChunks>& attention, int warp,
                                       int n) const {
    return this->key_row(attention, this->first_slot + (n * 4 + warp) * 8 + attention.lane / 4);
  }
  /// Looks up where most of it lies, before it is there.
  __device__ void locate(const AttentionWarp<kChunks>& attention, int warp) {
#pragma unroll
    for (int n = 0; n < kMostly; ++n) key_rows[n] = own_key_row(attention, warp, n);
#pragma unroll
    for (int n = 0; n < 2; ++n) value_rows[n] = this->value_row(attention, n);
  }
  __device__ void load(const AttentionWarp<kChunks>& attention, int warp) {
    const int lane = attention.lane;
    const auto load_key = [&](int n, const __half* key) {
#pragma unroll
      for (int chunk = 0; chunk < kChunks; ++chunk) {
        const int col = chunk * 32 + lane % 4 * 8;
        const bool there = key != nullptr && col < attention.args.kv.head_dim;
        keys[n][chunk] = load_past_cache(there ? key + col : nullptr);
      }
    };
#pragma unroll
    for (int n = 0; n < kMostly; ++n) load_key(n, key_rows[n]);
    if (needs_all())
#pragma unroll
      for (int n = kMostly; n < kEights; ++n) load_key(n, own_key_row(attention, warp, n));
    this->load_values(attention, warp, lane, [&](int group) {
      return group == 0   ? value_rows[0]
             : group == 1 ? value_rows[1]
                          : this->value_row(attention, group);
    });
  }

  /// Softmax and weighted values of the 64 positions from `base` on, for the selected queries.
  template <class Sums>
  __device__ void attend(const AttentionWarp<kChunks>& attention, int base, int warp,
                         const uint4 (&queries)[kChunks * 2][32], typename Window::Columns& columns,
                         const SoftmaxExchange& exchange, const Sums& partial) const {
    const int lane = attention.lane;
    // Columns past the last slot are nobody's.
#pragma unroll
    for (int first = 0; first < kEights; first += kMostly) {
      if (first > 0 && !needs_all()) break;
      float sums[kMostly][4];
      score_set<kChunks>(
          queries, lane, [&](int n, int chunk) { return keys[first + n][chunk]; }, sums);
#pragma unroll
      for (int n = 0; n < kMostly; ++n)
        Window::put_scores(columns, ((first + n) * 4 + warp) * 8, lane, sums[n]);
    }
    __syncthreads();
    float own[2][4];
    this->pick_scores(attention, base, warp, columns, own);
    std::uint32_t weights[4][4];
    float tops[2];
    share_softmax<2>(attention, base, warp, own, exchange, weights, tops);
    // Steps of positions that nobody sees add nothing.
    const int steps = base + kAttentionTile / 2 > attention.tile.last ? 2 : 4;
    float out[kPairs][2][4] = {};
#pragma unroll 2
    for (int token = attention.first_token; token < attention.end_token; ++token) {
      float sum[kPairs][2][4] = {};
#pragma unroll
      for (int step = 0; step < 4; ++step) {
        if (step >= steps) break;
        const int place = this->place_of_row(token, base, step, lane);
#pragma unroll
        for (int n = 0; n < kPairs; ++n) {
          const int d = (n * 4 + warp) * 2;
          if (d >= kChunks * 4) continue;
          std::uint32_t b[4];
          this->gather_pair(place, d, lane, b);
          mma<__half>(sum[n][0], weights[step], b[0], b[1]);
          mma<__half>(sum[n][1], weights[step], b[2], b[3]);
        }
      }
#pragma unroll
      for (int n = 0; n < kPairs; ++n)
#pragma unroll
        for (int next = 0; next < 2; ++next)
#pragma unroll
          for (int i = 0; i < 4; ++i)
            if (attention.tokens[i / 2] == token) out[n][next][i] = sum[n][next][i];
    }
    if (warp == 0) partial.set_state(lane, total_up<2>(exchange, lane, tops));
#pragma unroll
    for (int n = 0; n < kPairs; ++n)
#pragma unroll
      for (int next = 0; next < 2; ++next) {
        const int d = (n * 4 + warp) * 2 + next;
        if (d < kChunks * 4) partial.set(d, lane, out[n][next]);
      }
  }
};

/// The same where a path leaves the window: keys and values are fetched once a token.
template <int kChunks, class Sums>
__device__ __forceinline__ void attend_by_token(const AttentionWarp<kChunks>& attention, int base,
                                                int warp, const uint4 (&queries)[kChunks * 2][32],
                                                const SoftmaxExchange& exchange,
                                                const Sums& partial) {
  const int lane = attention.lane;
  TileShare<kChunks> share;
  float own[2][4] = {};
  for (int token = attention.first_token; token < attention.end_token; ++token) {
    share.locate(attention, attention.map_of(token, false), base, warp);
    share.fetch_keys(attention);
    float sums[2][4];
    score_set<kChunks>(
        queries, lane, [&](int n, int chunk) { return share.keys[n][chunk]; }, sums);
#pragma unroll
    for (int n = 0; n < 2; ++n)
#pragma unroll
      for (int i = 0; i < 4; ++i)
        if (attention.tokens[i / 2] == token) own[n][i] = sums[n][i];
  }
  std::uint32_t weights[4][4];
  float tops[2];
  share_softmax<2>(attention, base, warp, own, exchange, weights, tops);
  if (warp == 0) partial.set_state(lane, total_up<2>(exchange, lane, tops));
#pragma unroll 1
  for (int d = warp * kChunks; d < (warp + 1) * kChunks; ++d) {
    float out[4] = {};
#pragma unroll 1
    for (int token = attention.first_token; token < attention.end_token; ++token) {
      const SlotMap map = attention.map_of(token, false);
      float sum[1][4];
      weigh_values(
          weights,
          [&](int, int half) {
            return TileShare<kChunks>::gather_values(attention, map, base, d, half);
          },
          sum);
#pragma unroll
      for (int i = 0; i < 4; ++i)
        if (attention.tokens[i / 2] == token) out[i] = sum[0][i];
    }
    partial.set(d, lane, out);
  }
}

}  // namespace specdec::kernels::cuda
