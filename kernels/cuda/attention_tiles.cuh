#pragma once

#include "kernels/cuda/attention_share.cuh"

namespace specdec::kernels::cuda {

/// Adds up dimension tile `d` of all tiles, the partial of tile t being turn t / ranks of rank
/// t % ranks: tiles to units, units to the whole. A unit is on its way while the one before is
/// added, since the others' shared memory is some hundred cycles away.
template <int kChunks>
__device__ __forceinline__ RowState add_up_cluster(const Partial<kChunks>* partials, int tiles,
                                                   int ranks, int d, int lane, float (&sum)[4]) {
  constexpr int kUnitTiles = kAttentionUnit / kAttentionTile;
  struct Unit {
    float4 rows[kUnitTiles];
    float4 out[kUnitTiles];
  };
  int rank = 0;
  int index = 0;
  const auto fetch = [&](Unit& unit) {
#pragma unroll
    for (int i = 0; i < kUnitTiles; ++i) {
      // What lies past the end is fetched again, and left out.
      unit.rows[i] = load_from_block(&partials->rows[lane], rank);
      unit.out[i] = load_from_block(&partials->out[d][lane], rank);
      if (index >= tiles) unit.rows[i].x = unit.rows[i].y = -INFINITY;
      if (++index >= tiles) continue;
      if (++rank == ranks) {
        rank = 0;
        ++partials;
      }
    }
  };
  RowState whole;
  const auto add = [&](const Unit& unit) {
    RowState state;
    float unit_sum[4] = {};
    float kept[2];
    float added[2];
#pragma unroll
    for (int i = 0; i < kUnitTiles; ++i) {
      const float4 v = unit.rows[i];
      state.merge({{v.x, v.y}, {v.z, v.w}}, kept, added);
      merge_outputs(unit_sum, {unit.out[i].x, unit.out[i].y, unit.out[i].z, unit.out[i].w}, kept,
                    added);
    }
    whole.merge(state, kept, added);
    merge_outputs(sum, unit_sum, kept, added);
  };
  sum[0] = sum[1] = sum[2] = sum[3] = 0.0f;
  Unit even;
  Unit odd;
  fetch(even);
  for (int first = 0; first < tiles; first += 2 * kUnitTiles) {
    if (first + kUnitTiles < tiles) fetch(odd);
    add(even);
    if (first + kUnitTiles >= tiles) break;
    if (first + 2 * kUnitTiles < tiles) fetch(even);
    add(odd);
  }
  return whole;
}

/// grid: [KV heads, groups of block_tiles query tiles, ranks], a cluster along the ranks. A block
/// attends to every ranks-th tile of 64 positions, whose keys and values its four warps have
/// between them in registers: little enough to start beside a product's blocks and wait there with
/// the committed tile at hand. A tree's own positions (kTrees) come from a window of slots. In the
/// end the cluster's warps share out the dimension tiles and add up what all of them have of one.
template <int kChunks, bool kTrees>
__global__ void __launch_bounds__(128, 3)
    attention_tiles_kernel(const __grid_constant__ AttentionArgs args) {
  constexpr int kDimTiles = kChunks * 4;
  extern __shared__ __align__(128) std::byte shared_bytes[];
  __shared__ int num_slots;
  const TilesShared<kChunks, kTrees> shared(shared_bytes, args.block_tiles, args.turns);
  let_next_start();
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const int warp = static_cast<int>(threadIdx.x) / 32;
  const int kv_head = static_cast<int>(blockIdx.x);
  const int rank = static_cast<int>(blockIdx.z);
  const int ranks = static_cast<int>(gridDim.z);
  const QueryTile tile =
      find_tile(args, args.tile_tokens * args.block_tiles, static_cast<int>(blockIdx.y), lane);
  if (tile.tokens == 0) return;  // and so do the cluster's other blocks
  const int tiles = tile.last / kAttentionTile + 1;
  const int sets = ceil_div(tile.tokens, args.tile_tokens);
  // From here on tiles are a tree's own.
  const int first_own =
      kTrees && tile.has_paths ? min(tiles, tile.context / kAttentionTile) : tiles;
  AttentionWarp<kChunks> attention(args, tile, {nullptr, nullptr}, kv_head, lane);
  TileShare<kChunks> share;
  const auto locate = [&](int index) {
    if (index < first_own)
      share.locate(attention, attention.map_of(0, true), index * kAttentionTile, warp);
    return index < first_own;
  };
  // Only the queries and the rows' own keys and values are made by the kernel before (see
  // attention_units_kernel).
  const auto fetch = [&] {
    share.fetch_keys(attention);
    share.fetch_values(attention, warp);
  };
  const bool committed = (rank + 1) * kAttentionTile <= tile.context;
  bool at_hand = locate(rank);
  if (at_hand && committed) fetch();
  [[maybe_unused]] TileWindow<kChunks> window;
  [[maybe_unused]] bool has_window = false;
  if (kTrees && first_own + (rank + ranks - first_own % ranks) % ranks < tiles) {
    window.values = shared.values;
    window.places = shared.places;
    window.first_slot = tile.context / kAttentionTile * kAttentionTile;
    if (threadIdx.x == 0) num_slots = 0;
    __syncthreads();
    has_window = window.find_places(args, tile, warp, lane, num_slots);
    window.num_slots = num_slots;
  }
  QueryShare<kChunks> first_query(args, tile, kv_head, warp, lane);
  wait_for_previous();
  if (at_hand && !committed) fetch();
  if (rank < tiles && warp < sets * kChunks) {
    first_query.load();
    constexpr int kAtOnce = 2;
    for (int item = warp + 4; item < sets * kChunks; item += 4 * kAtOnce) {
      QueryShare<kChunks> queries[kAtOnce];
#pragma unroll
      for (int n = 0; n < kAtOnce; ++n) {
        queries[n] = QueryShare<kChunks>(args, tile, kv_head, item + n * 4, lane);
        queries[n].load();
      }
#pragma unroll
      for (int n = 0; n < kAtOnce; ++n)
        if (queries[n].set < sets) queries[n].store(shared.queries(queries[n].set), lane);
    }
    first_query.store(shared.queries(first_query.set), lane);
  }
  __syncthreads();

  int turn = 0;
  int index = rank;
  /// body(set, partial) for each set of queries, for the tile of this turn.
  const auto for_each_set = [&](auto body) {
    for (int set = 0; set < sets; ++set) {
      if (set > 0 || turn > 0) attention.select(set * args.tile_tokens);
      body(set, shared.partials[set * args.turns + turn]);
    }
  };
  for (; index < first_own; ++turn, index += ranks)
    for_each_set([&](int set, Partial<kChunks>& partial) {
      const bool next = set + 1 == sets && locate(index + ranks);
      float own[2][4];
      score_set<kChunks>(
          shared.queries(set), lane, [&](int n, int chunk) { return share.keys[n][chunk]; }, own);
      if (next) share.fetch_keys(attention);
      std::uint32_t weights[4][4];
      float tops[2];
      share_softmax(attention, index * kAttentionTile, warp, own, *shared.exchange, weights, tops);
      float out[kChunks][4];
      weigh_values(
          weights, [&](int n, int half) { return share.values[n][half]; }, out);
      if (next) share.fetch_values(attention, warp);
      if (warp == 0) partial.set_state(lane, total_up(*shared.exchange, lane, tops));
#pragma unroll
      for (int n = 0; n < kChunks; ++n) partial.set(warp * kChunks + n, lane, out[n]);
    });
  if constexpr (kTrees) {
    if (has_window) {
      window.load(attention, warp);
      __syncthreads();
    }
    for (; index < tiles; ++turn, index += ranks)
      for_each_set([&](int set, Partial<kChunks>& partial) {
        const int base = index * kAttentionTile;
        if (has_window)
          window.attend(attention, base, warp, shared.queries(set), *shared.columns,
                        *shared.exchange, partial);
        else
          attend_by_token(attention, base, warp, shared.queries(set), *shared.exchange, partial);
      });
  }

  cluster_arrive();
  cluster_wait();
  for (int item = rank * 4 + warp; item < sets * kDimTiles; item += ranks * 4) {
    const int set = item / kDimTiles;
    const int d = item % kDimTiles;
    attention.select(set * args.tile_tokens);
    float sum[4];
    const RowState state =
        add_up_cluster(shared.partials + set * args.turns, tiles, ranks, d, lane, sum);
    attention.write(d, sum, state);
  }
  // What others read must stay until they have.
  cluster_arrive();
  cluster_wait();
}

}  // namespace specdec::kernels::cuda
