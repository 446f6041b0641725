#pragma once

#include "kernels/cuda/attention_share.cuh"

namespace specdec::kernels::cuda {

inline constexpr int kStreamStages = 3;

/// Shared memory of a block of attention_stream_kernel. A thread reads only what it fetched itself.
template <int kChunks>
struct StreamShared {
  uint4 keys[kStreamStages][2][kChunks][128];
  uint4 values[kStreamStages][kChunks][2][128];
  uint4 queries[kChunks * 2][32];
  SoftmaxExchange::Shared softmax;
  SoftmaxExchange::Powers powers;
};

/// grid: [KV heads, query tiles]; a block goes through everything that its set of queries sees, its
/// four warps having each tile of 64 positions between them, the next ones on their way. For so
/// many sequences that the processors are busy: nothing is left to add up. No trees.
/// kRows: see attention_tiles_kernel.
template <int kChunks, int kRows>
__global__ void __launch_bounds__(128)
    attention_stream_kernel(const __grid_constant__ AttentionArgs args) {
  constexpr int kUnitTiles = kAttentionUnit / kAttentionTile;
  extern __shared__ __align__(128) std::byte shared_bytes[];
  auto& shared = *reinterpret_cast<StreamShared<kChunks>*>(shared_bytes);
  const SoftmaxExchange exchange{shared.softmax, shared.powers};
  __shared__ float totals[2][32];
  let_next_start();
  const int thread = static_cast<int>(threadIdx.x);
  const int lane = thread % 32;
  const int warp = thread / 32;
  const int kv_head = static_cast<int>(blockIdx.x);
  const QueryTile tile = find_tile(args, args.tile_tokens, static_cast<int>(blockIdx.y), lane);
  if (tile.tokens == 0) return;
  const int tiles = tile.last / kAttentionTile + 1;
  const AttentionWarp<kChunks> attention(args, tile, {nullptr, nullptr}, kv_head, lane);
  SharePlace<kChunks> place;
  const SlotMap map = attention.map_of(0, true);
  // Where the next tile to fetch lies is looked up a turn ahead.
  place.locate(attention, map, 0, warp);
  int fetched = 0;
  const auto copy_tile = [&](auto whole) {
    constexpr bool kWhole = decltype(whole)::value;
    const int stage = fetched % kStreamStages;
    const auto copy = [&](uint4& to, const __half* from) {
      const bool there = kWhole || from != nullptr;
      copy_async(&to, there ? from : static_cast<const __half*>(args.kv.keys), there);
    };
    place.template for_keys<kWhole>(attention, [&](int n, int chunk, const __half* from) {
      copy(shared.keys[stage][n][chunk][thread], from);
    });
    place.template for_values<kWhole>(attention, warp, [&](int n, int half, const __half* from) {
      copy(shared.values[stage][n][half][thread], from);
    });
  };
  const auto fetch = [&] {
    if (fetched < tiles) {
      if (place.is_whole(attention, map, fetched * kAttentionTile))
        copy_tile(std::true_type());
      else
        copy_tile(std::false_type());
      ++fetched;
      place.locate(attention, map, fetched * kAttentionTile, warp);
    }
    commit_copies();
  };
  // Only the queries and the rows' own keys and values are made by the kernel before (see
  // attention_units_kernel).
  const int early = min(kStreamStages - 1, tile.context / kAttentionTile);
  for (int i = 0; i < early; ++i) fetch();
  QueryShare<kChunks, kRows> query(args, tile, kv_head, warp, lane);
  wait_for_previous();
  for (int i = early; i < kStreamStages - 1; ++i) fetch();
  if (warp < kChunks) {
    query.load();
    query.store(shared.queries, lane);
  }
  __syncthreads();

  RowState unit;
  RowState whole;
  float unit_sum[kChunks][4] = {};
  float sum[kChunks][4] = {};
  for (int index = 0; index < tiles; ++index) {
    fetch();
    wait_copies<kStreamStages - 1>();
    const int stage = index % kStreamStages;
    float own[2][4];
    score_set<kChunks>(
        shared.queries, lane,
        [&](int n, int chunk) { return shared.keys[stage][n][chunk][thread]; }, own);
    std::uint32_t weights[4][4];
    float tops[2];
    share_softmax<kRows>(attention, index * kAttentionTile, warp, own, exchange, weights, tops);
    float out[kChunks][4];
    weigh_values(
        weights, [&](int n, int half) { return shared.values[stage][n][half][thread]; }, out);
    // Only the first warp's totals count.
    const RowState state =
        warp == 0 ? total_up<kRows>(exchange, lane, tops) : RowState{{tops[0], tops[1]}, {}};
    float kept[2];
    float added[2];
    unit.merge<kRows>(state, kept, added);
#pragma unroll
    for (int n = 0; n < kChunks; ++n) merge_outputs<kRows>(unit_sum[n], out[n], kept, added);
    if (index % kUnitTiles != kUnitTiles - 1 && index + 1 != tiles) continue;
    whole.merge<kRows>(unit, kept, added);
    unit = {};
#pragma unroll
    for (int n = 0; n < kChunks; ++n) {
      merge_outputs<kRows>(sum[n], unit_sum[n], kept, added);
      for (float& part : unit_sum[n]) part = 0.0f;
    }
  }
  if (warp == 0) {
    totals[0][lane] = whole.total[0];
    totals[1][lane] = whole.total[1];
  }
  __syncthreads();
  whole.total[0] = totals[0][lane];
  whole.total[1] = totals[1][lane];
#pragma unroll
  for (int n = 0; n < kChunks; ++n)
    attention.template write<kRows>(warp * kChunks + n, sum[n], whole);
}

}  // namespace specdec::kernels::cuda
