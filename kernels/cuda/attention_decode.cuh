#pragma once

#include "kernels/cuda/attention_share.cuh"

namespace specdec::kernels::cuda {

/// Plain decoding, a row a sequence, and chains of few. grid: [KV heads, sets of queries, ranks], a
/// cluster along the ranks. A block attends to every ranks-th tile of 64 positions (kByUnit: to
/// four that follow one another), whose keys and values its four warps have between them in
/// registers: little enough to start beside a product's blocks and wait there with the committed
/// ones at hand. What a tile (or unit) comes to goes to the cluster's blocks by dimension tiles,
/// each of which a warp adds up. kRows: of a lane, one where a set has at most eight queries.
template <int kChunks, int kRows, bool kByUnit>
__global__ void __launch_bounds__(128, 3)
    attention_decode_kernel(const __grid_constant__ AttentionArgs args) {
  constexpr int kUnitTiles = kAttentionUnit / kAttentionTile;
  extern __shared__ __align__(128) std::byte shared_bytes[];
  using Shared = TilesShared<kChunks, false>;
  const Shared shared(shared_bytes, 1, static_cast<int>(gridDim.z), args.turns, kByUnit);
  const auto [lane, warp, kv_head, rank, ranks] = TilesThread::begin();
  const QueryTile tile = find_tile(args, args.tile_tokens, static_cast<int>(blockIdx.y), lane);
  if (tile.tokens == 0) return;  // and so do the cluster's other blocks
  const int tiles = tile.last / kAttentionTile + 1;
  AttentionWarp<kChunks> attention(args, tile, {nullptr, nullptr}, kv_head, lane);
  const SlotMap map = attention.map_of(0, true);
  const int first_tile = kByUnit ? rank * kUnitTiles : rank;
  const int stride = kByUnit ? 1 : ranks;
  const int last_tile = kByUnit ? min(tiles, first_tile + kUnitTiles) : tiles;
  TileShare<kChunks> share;
  if (first_tile < last_tile) share.locate(attention, map, first_tile * kAttentionTile, warp);
  QueryShare<kChunks, kRows> query(args, tile, kv_head, warp, lane);

  // Only the queries and the rows' own keys and values are made by the kernel before: see
  // attention_units_kernel. What is fetched late takes the same instructions, which by then are
  // there.
#pragma unroll 1
  for (int fresh = 0; fresh < 2; ++fresh) {
    if (fresh == 1) wait_for_previous();
    if (first_tile < last_tile) share.fetch(attention, warp, fresh == 1);
  }
  if (first_tile < last_tile && warp < kChunks) {
    query.load();
    query.store(shared.queries[0], lane);
  }
  cluster_wait();  // the others have begun
  __syncthreads();

  [[maybe_unused]] RowState unit;
  [[maybe_unused]] float unit_sum[kChunks][4] = {};
  for (int index = first_tile; index < last_tile; index += stride) {
    const bool next = index + stride < last_tile;
    if (next) share.locate(attention, map, (index + stride) * kAttentionTile, warp);
    float own[2][4];
    score_set<kChunks>(
        shared.queries[0], lane, [&](int n, int chunk) { return share.keys[n][chunk]; }, own);
    if (next) share.fetch_keys(attention);
    std::uint32_t weights[4][4];
    float tops[2];
    share_softmax<kRows>(attention, index * kAttentionTile, warp, own, shared.exchange(), weights,
                         tops);
    float out[kChunks][4];
    weigh_values(
        weights, [&](int n, int half) { return share.values[n][half]; }, out);
    if (next) share.fetch_values(attention, warp);
    // Only the first warp's totals count.
    RowState state{{tops[0], tops[1]}, {}};
    if (warp == 0) state = total_up<kRows>(shared.exchange(), lane, tops);
    if constexpr (kByUnit) {
      float kept[2];
      float added[2];
      unit.merge<kRows>(state, kept, added);
#pragma unroll
      for (int n = 0; n < kChunks; ++n) merge_outputs<kRows>(unit_sum[n], out[n], kept, added);
    } else {
      typename Shared::Partial{shared, 0, index}.set_all(warp, lane, state, out);
    }
  }
  if (kByUnit && first_tile < last_tile)
    typename Shared::Partial{shared, 0, rank}.set_all(warp, lane, unit, unit_sum);
  cluster_arrive();
  cluster_wait();
  const int places = shared.num_places(rank);
  const auto write = [&](int place, const float(&sum)[4], const RowState& state) {
    attention.template write<kRows>(place * ranks + rank, sum, state);
  };
  if constexpr (kByUnit)
    shared.template add_up_all<1, kRows>(places, ceil_div(tiles, kUnitTiles), warp, lane, write);
  else
    shared.template add_up_all<kUnitTiles, kRows>(places, tiles, warp, lane, write);
}

}  // namespace specdec::kernels::cuda
