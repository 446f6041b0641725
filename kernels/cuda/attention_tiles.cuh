#pragma once

#include "kernels/cuda/attention_tile_window.cuh"

namespace specdec::kernels::cuda {

/// Tiles of positions index, index + stride, .. before end.
struct TileRange {
  int index;
  int end;
  int stride;
};

/// What the block `rank` of `ranks` has of a tree's tiles: of those before `first_own`, which are
/// committed, and of the tree's own up to `tiles`. One of its own takes as long as three; blocks
/// that have some take the fewer of the others.
__device__ __forceinline__ void share_tiles(int rank, int ranks, int first_own, int tiles,
                                            TileRange& committed, TileRange& own) {
  constexpr int kOwnPrice = 3;
  const int num_own = tiles - first_own;
  const int own_ranks = min(num_own, first_own > 0 ? max(1, ranks - 1) : ranks);
  const int others = ranks - own_ranks;
  int each = 0;  // committed tiles of a block that has own ones
  if (others == 0)
    each = first_own;  // one block has all
  else if (own_ranks > 0)
    each = max(
        0, min((first_own + kOwnPrice * num_own) / ranks - kOwnPrice * ceil_div(num_own, own_ranks),
               first_own / own_ranks));
  const int spread = first_own - each * own_ranks;  // over the others
  if (rank < others) {
    committed = {spread * rank / others, spread * (rank + 1) / others, 1};
  } else {
    const int at = rank - others;
    committed = {spread + each * at, spread + each * (at + 1), 1};
    own = {first_own + at, tiles, own_ranks};
  }
}

/// grid: [KV heads, groups of block_tiles query tiles, ranks], a cluster along the ranks. A block
/// attends to some of the tiles of 64 positions, whose keys and values its four warps have between
/// them in registers: little enough to start beside a product's blocks and wait there with
/// the committed tile at hand. A tree's own positions (kTrees) come from a window of slots. What a
/// tile comes to goes to the cluster's blocks by dimension tiles, each of which a warp adds up.
template <int kChunks, bool kTrees>
__global__ void __launch_bounds__(128, 3)
    attention_tiles_kernel(const __grid_constant__ AttentionArgs args) {
  constexpr int kDimTiles = kChunks * 4;
  constexpr int kUnitTiles = kAttentionUnit / kAttentionTile;
  extern __shared__ __align__(128) std::byte shared_bytes[];
  __shared__ int num_slots;
  using Shared = TilesShared<kChunks, kTrees>;
  const Shared shared(shared_bytes, args.block_tiles, static_cast<int>(gridDim.z), args.turns,
                      false);
  const auto [lane, warp, kv_head, rank, ranks] = TilesThread::begin();
  const QueryTile tile =
      find_tile(args, args.tile_tokens * args.block_tiles, static_cast<int>(blockIdx.y), lane);
  if (tile.tokens == 0) return;  // and so do the cluster's other blocks
  const int tiles = tile.last / kAttentionTile + 1;
  const int sets = ceil_div(tile.tokens, args.tile_tokens);
  // From here on tiles are a tree's own.
  const int first_own =
      kTrees && tile.has_paths ? min(tiles, tile.context / kAttentionTile) : tiles;
  TileRange range{rank, first_own, ranks};
  TileRange own{tiles, tiles, 1};
  if constexpr (kTrees) share_tiles(rank, ranks, first_own, tiles, range, own);
  const bool has_work = range.index < range.end || own.index < own.end;
  AttentionWarp<kChunks> attention(args, tile, {nullptr, nullptr}, kv_head, lane);
  TileShare<kChunks> share;
  const auto locate = [&](int at) {
    if (at < range.end)
      share.locate(attention, attention.map_of(0, true), at * kAttentionTile, warp);
    return at < range.end;
  };
  // Only the queries and the rows' own keys and values are made by the kernel before (see
  // attention_units_kernel).
  const auto fetch = [&] {
    share.fetch_keys(attention);
    share.fetch_values(attention, warp);
  };
  const bool committed = (range.index + 1) * kAttentionTile <= tile.context;
  const bool at_hand = locate(range.index);
  if (at_hand && committed) fetch();
  [[maybe_unused]] TileWindow<kChunks> window;
  [[maybe_unused]] bool has_window = false;
  if (kTrees && own.index < own.end) {
    window.values = shared.values;
    window.places = shared.places;
    window.first_slot = tile.context / kAttentionTile * kAttentionTile;
    if (threadIdx.x == 0) num_slots = 0;
    __syncthreads();
    has_window = window.find_places(args, tile, warp, lane, num_slots);
    window.num_slots = num_slots;
    if (has_window) window.locate(attention, warp);
  }
  using Queries = QueryShare<kChunks, 2>;
  Queries first_query(args, tile, kv_head, warp, lane);
  wait_for_previous();
  if (at_hand && !committed) fetch();
  if (has_work && warp < sets * kChunks) {
    first_query.load();
    constexpr int kAtOnce = 2;
    for (int item = warp + 4; item < sets * kChunks; item += 4 * kAtOnce) {
      Queries queries[kAtOnce];
#pragma unroll
      for (int n = 0; n < kAtOnce; ++n) {
        queries[n] = Queries(args, tile, kv_head, item + n * 4, lane);
        queries[n].load();
      }
#pragma unroll
      for (int n = 0; n < kAtOnce; ++n)
        if (queries[n].set < sets) queries[n].store(shared.queries[queries[n].set], lane);
    }
    first_query.store(shared.queries[first_query.set], lane);
  }
  cluster_wait();  // the others have begun
  __syncthreads();

  int turn = 0;
  /// body(set, partial) for each set of queries, for the tile of this turn.
  const auto for_each_set = [&](int at, auto body) {
    for (int set = 0; set < sets; ++set) {
      if (sets > 1 && (set > 0 || turn > 0)) attention.select(set * args.tile_tokens);
      body(set, typename Shared::Partial{shared, set, at});
    }
    ++turn;
  };
  for (int index = range.index; index < range.end; index += range.stride)
    for_each_set(index, [&](int set, const typename Shared::Partial& partial) {
      const bool next = set + 1 == sets && locate(index + range.stride);
      float own[2][4];
      score_set<kChunks>(
          shared.queries[set], lane, [&](int n, int chunk) { return share.keys[n][chunk]; }, own);
      if (next) share.fetch_keys(attention);
      std::uint32_t weights[4][4];
      float tops[2];
      share_softmax<2>(attention, index * kAttentionTile, warp, own, shared.exchange(), weights,
                       tops);
      float out[kChunks][4];
      weigh_values(
          weights, [&](int n, int half) { return share.values[n][half]; }, out);
      if (next) share.fetch_values(attention, warp);
      RowState state;
      if (warp == 0) state = total_up<2>(shared.exchange(), lane, tops);
      partial.set_all(warp, lane, state, out);
    });
  if constexpr (kTrees) {
    if (has_window) {
      window.load(attention, warp);
      __syncthreads();
    }
    for (int index = own.index; index < own.end; index += own.stride)
      for_each_set(index, [&](int set, const typename Shared::Partial& partial) {
        const int base = index * kAttentionTile;
        if (has_window)
          window.attend(attention, base, warp, shared.queries[set], *shared.columns,
                        shared.exchange(), partial);
        else
          attend_by_token(attention, base, warp, shared.queries[set], shared.exchange(), partial);
      });
  }

  cluster_arrive();
  cluster_wait();
  for (int place = warp; place * ranks + rank < sets * kDimTiles; place += 4) {
    const int item = place * ranks + rank;
    const int set = item / kDimTiles;
    if (sets > 1) attention.select(set * args.tile_tokens);
    float sum[4];
    const RowState state = shared.template add_up<kUnitTiles, 2>(set, place, tiles, lane, sum);
    attention.write(item % kDimTiles, sum, state);
  }
}

}  // namespace specdec::kernels::cuda
