#pragma once

#include "kernels/cuda/attention_warp.cuh"

namespace specdec::kernels::cuda {

/// A warp's share of a tile's keys and values in registers, when four warps have the tile between
/// them: two eights of positions, a quarter of the dimension tiles.
template <int kChunks>
struct TileShare {
  const __half* key_rows[2];  // null: not there, zeros
  const __half* value_rows[2];
  uint4 keys[2][kChunks];
  uint4 values[kChunks][2];

  /// Looks up where the share of the 64 positions from `base` on lies. Values of a path need not
  /// be contiguous: see gather_values().
  __device__ void locate(const AttentionWarp<kChunks>& attention, const SlotMap& map, int base,
                         int warp) {
    const KvLayer& kv = attention.args.kv;
    const int lane = attention.lane;
#pragma unroll
    for (int j = 0; j < 2; ++j) {
      const int position =
          base + warp / 2 * 32 + lane / 8 * 8 + (warp * 2 + j) % 4 * 2 + lane / 4 % 2;
      key_rows[j] = nullptr;
      if (position <= map.limit) {
        const int slot = map.slot(position);
        key_rows[j] = static_cast<const __half*>(kv.keys) + attention.block_base(map, slot) +
                      slot % kv.block_size * kv.head_dim;
      }
      const int first = base + j * 32 + lane % 4 * 8;
      value_rows[j] = nullptr;
      if (first <= map.limit)
        value_rows[j] = static_cast<const __half*>(kv.values) + attention.block_base(map, first) +
                        lane / 4 * kv.block_size + first % kv.block_size;
    }
  }

  // Past the first-level cache: a line of it may hold what a neighbour read before it was written.
  __device__ void fetch_keys(const AttentionWarp<kChunks>& attention) {
#pragma unroll
    for (int j = 0; j < 2; ++j)
#pragma unroll
      for (int chunk = 0; chunk < kChunks; ++chunk) {
        const int first = chunk * 32 + attention.lane % 4 * 8;
        keys[j][chunk] = key_rows[j] != nullptr && first < attention.args.kv.head_dim
                             ? __ldcg(reinterpret_cast<const uint4*>(key_rows[j] + first))
                             : uint4{0, 0, 0, 0};
      }
  }
  __device__ void fetch_values(const AttentionWarp<kChunks>& attention, int warp) {
    const KvLayer& kv = attention.args.kv;
#pragma unroll
    for (int n = 0; n < kChunks; ++n) {
      const int d = warp * kChunks + n;
#pragma unroll
      for (int half = 0; half < 2; ++half)
        values[n][half] =
            value_rows[half] != nullptr && d * 8 + attention.lane / 4 < kv.head_dim
                ? __ldcg(reinterpret_cast<const uint4*>(value_rows[half] + d * 8 * kv.block_size))
                : uint4{0, 0, 0, 0};
    }
  }
  /// Values that a path has in slots of its own, one by one.
  __device__ void gather_values(const AttentionWarp<kChunks>& attention, const SlotMap& map,
                                int base, int warp) {
    const KvLayer& kv = attention.args.kv;
    const int lane = attention.lane;
#pragma unroll
    for (int n = 0; n < kChunks; ++n)
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const int dim = (warp * kChunks + n) * 8 + lane / 4;
        std::uint32_t words[4] = {};
#pragma unroll
        for (int i = 0; i < 8; ++i) {
          const int position = base + half * 32 + lane % 4 * 8 + i;
          if (position > map.limit || dim >= kv.head_dim) continue;
          const int slot = map.slot(position);
          const auto* from = reinterpret_cast<const std::uint16_t*>(
              static_cast<const __half*>(kv.values) + attention.block_base(map, slot) +
              dim * kv.block_size + slot % kv.block_size);
          words[i / 2] |= static_cast<std::uint32_t>(__ldcg(from)) << (i % 2 * 16);
        }
        values[n][half] = {words[0], words[1], words[2], words[3]};
      }
  }
};

/// Shared memory of a block of attention_tiles_kernel, cut up by how much it attends to.
template <int kChunks>
struct TilesShared {
  using Queries = uint4[kChunks * 2][32];  // of one set, as the mma takes them
  using Scores = float4[8][32];

  Queries* queries;            // [sets]
  Partial<kChunks>* partials;  // [sets][turns]
  Scores* scores;              // two, used in turns; one where there is one turn

  __device__ TilesShared(std::byte* memory, int sets, int turns)
      : queries(reinterpret_cast<Queries*>(memory)),
        partials(reinterpret_cast<Partial<kChunks>*>(queries + sets)),
        scores(reinterpret_cast<Scores*>(partials + sets * turns)) {}
  static constexpr std::size_t bytes(int sets, int turns) {
    const auto items = static_cast<std::size_t>(sets) * static_cast<std::size_t>(turns);
    return static_cast<std::size_t>(sets) * sizeof(Queries) + items * sizeof(Partial<kChunks>) +
           (items > 1 ? 2 : 1) * sizeof(Scores);
  }
};

/// The sets' queries as operands in shared memory: a warp takes 32 dimensions of a set at a time.
template <int kChunks>
__device__ __forceinline__ void store_queries(const AttentionArgs& args, const QueryTile& tile,
                                              int sets, int kv_head, int warp, int lane,
                                              uint4 (*queries)[kChunks * 2][32]) {
  const int dim = args.kv.head_dim;
#pragma unroll 2
  for (int item = warp; item < sets * kChunks; item += 4) {
    const int set = item / kChunks;
    const int chunk = item % kChunks;
    const int col = chunk * 32 + lane % 4 * 8;
    float4 loaded[2][2];
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      const int row = lane / 4 + i * 8;
      const int in_set = row / args.group;
      const int token = set * args.tile_tokens + in_set;
      const bool inside = in_set < args.tile_tokens && token < tile.tokens && col < dim;
      const auto* from = reinterpret_cast<const float4*>(
          args.q +
          (static_cast<std::size_t>(tile.row + token) * args.num_heads + kv_head * args.group +
           row % args.group) *
              dim +
          col);
#pragma unroll
      for (int half = 0; half < 2; ++half)
        loaded[i][half] = inside ? __ldcg(from + half) : float4{0.0f, 0.0f, 0.0f, 0.0f};
    }
#pragma unroll
    for (int step = 0; step < 2; ++step) {
      const float4 a = loaded[0][step];
      const float4 b = loaded[1][step];
      queries[set][chunk * 2 + step][lane] = {
          operand_pair<__half>(a.x, a.y), operand_pair<__half>(b.x, b.y),
          operand_pair<__half>(a.z, a.w), operand_pair<__half>(b.z, b.w)};
    }
  }
}

/// Scores of a warp's share of the keys, for a set's queries.
template <int kChunks>
__device__ __forceinline__ void score_share(const TileShare<kChunks>& share,
                                            const uint4 (&queries)[kChunks * 2][32], int lane,
                                            float (&sums)[2][4]) {
  score_keys<kChunks>(
      [&](int step, std::uint32_t(&a)[4]) {
        const uint4 v = queries[step][lane];
        a[0] = v.x;
        a[1] = v.y;
        a[2] = v.z;
        a[3] = v.w;
      },
      [&](int n, int chunk) { return share.keys[n][chunk]; }, sums);
}

/// Gives each warp the scores of all of them.
__device__ __forceinline__ void put_scores(float4 (&exchange)[8][32], int warp, int lane,
                                           const float (&own)[2][4]) {
#pragma unroll
  for (int n = 0; n < 2; ++n)
    exchange[warp * 2 + n][lane] = {own[n][0], own[n][1], own[n][2], own[n][3]};
}
__device__ __forceinline__ void get_scores(const float4 (&exchange)[8][32], int lane,
                                           float (&scores)[8][4]) {
#pragma unroll
  for (int n = 0; n < 8; ++n) {
    const float4 v = exchange[n][lane];
    scores[n][0] = v.x;
    scores[n][1] = v.y;
    scores[n][2] = v.z;
    scores[n][3] = v.w;
  }
}

/// One set's softmax and weighted values of a tile that each token finds elsewhere: gone through
/// once a token. A call of its own, for the sake of the others' registers.
template <int kChunks>
__device__ __forceinline__ void attend_by_token(const AttentionArgs& args, QueryTile tile,
                                                int kv_head, int set, int base,
                                                const uint4 (&queries)[kChunks * 2][32],
                                                float4 (&exchange)[8][32],
                                                Partial<kChunks>& partial) {
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const int warp = static_cast<int>(threadIdx.x) / 32;
  AttentionWarp<kChunks> attention(args, tile, {nullptr, nullptr}, kv_head, lane);
  attention.select(set * args.tile_tokens);
  TileShare<kChunks> share;
  float own[2][4] = {};
  for (int token = attention.first_token; token < attention.end_token; ++token) {
    share.locate(attention, attention.map_of(token, false), base, warp);
    share.fetch_keys(attention);
    float sums[2][4];
    score_share(share, queries, lane, sums);
#pragma unroll
    for (int n = 0; n < 2; ++n)
#pragma unroll
      for (int i = 0; i < 4; ++i)
        if (attention.tokens[i / 2] == token) own[n][i] = sums[n][i];
  }
  put_scores(exchange, warp, lane, own);
  __syncthreads();
  float scores[8][4];
  get_scores(exchange, lane, scores);
  RowState state;
  std::uint32_t weights[4][4];
  attention.softmax(base, scores, state, weights);
  float out[kChunks][4] = {};
  for (int token = attention.first_token; token < attention.end_token; ++token) {
    share.gather_values(attention, attention.map_of(token, false), base, warp);
    float sums[kChunks][4];
    weigh_values(
        weights, [&](int n, int half) { return share.values[n][half]; }, sums);
#pragma unroll
    for (int n = 0; n < kChunks; ++n)
#pragma unroll
      for (int i = 0; i < 4; ++i)
        if (attention.tokens[i / 2] == token) out[n][i] = sums[n][i];
  }
  if (warp == 0) partial.set_state(lane, state);
#pragma unroll
  for (int n = 0; n < kChunks; ++n) partial.set(warp * kChunks + n, lane, out[n]);
}

/// grid: [KV heads, groups of block_tiles query tiles, ranks], a cluster along the ranks. A block
/// attends to every ranks-th tile of 64 positions, whose keys and values its four warps have
/// between them in registers: little enough to start beside a product's blocks and wait there with
/// the committed tile at hand. In the end the cluster's warps share out the dimension tiles and
/// add up what all of them have of one.
template <int kChunks, bool kTrees>
__global__ void __launch_bounds__(128, 3)
    attention_tiles_kernel(const __grid_constant__ AttentionArgs args) {
  constexpr int kDimTiles = kChunks * 4;
  constexpr int kUnitTiles = kAttentionUnit / kAttentionTile;
  extern __shared__ __align__(128) std::byte shared_bytes[];
  const TilesShared<kChunks> shared(shared_bytes, args.block_tiles, args.turns);
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
  AttentionWarp<kChunks> attention(args, tile, {nullptr, nullptr}, kv_head, lane);
  TileShare<kChunks> share;
  const auto locate = [&](int index) {
    const int base = index * kAttentionTile;
    const bool shared_tile = index < tiles && (!kTrees || attention.is_shared(base));
    if (shared_tile) share.locate(attention, attention.map_of(0, true), base, warp);
    return shared_tile;
  };
  bool at_hand = locate(rank);
  // Only the queries and the rows' own keys and values are made by the kernel before (see
  // attention_units_kernel).
  const bool committed = (rank + 1) * kAttentionTile <= tile.context;
  const auto fetch = [&] {
    share.fetch_keys(attention);
    share.fetch_values(attention, warp);
  };
  if (at_hand && committed) fetch();
  wait_for_previous();
  if (at_hand && !committed) fetch();
  if (rank < tiles) store_queries<kChunks>(args, tile, sets, kv_head, warp, lane, shared.queries);
  __syncthreads();

  int buffer = 0;
  for (int turn = 0, index = rank; index < tiles; ++turn, index += ranks) {
    const int base = index * kAttentionTile;
    const bool shared_tile = at_hand;
    for (int set = 0; set < sets; ++set) {
      Partial<kChunks>& partial = shared.partials[set * args.turns + turn];
      auto& exchange = shared.scores[buffer];
      buffer ^= args.turns * args.block_tiles > 1 ? 1 : 0;
      const bool last_set = set + 1 == sets;
      if (kTrees && !shared_tile) {
        attend_by_token<kChunks>(args, tile, kv_head, set, base, shared.queries[set], exchange,
                                 partial);
        continue;  // no tile after it is shared
      }
      if (set > 0 || turn > 0) attention.select(set * args.tile_tokens);
      float own[2][4];
      score_share(share, shared.queries[set], lane, own);
      put_scores(exchange, warp, lane, own);
      if (last_set) {
        at_hand = locate(index + ranks);
        if (at_hand) share.fetch_keys(attention);
      }
      __syncthreads();
      float scores[8][4];
      get_scores(exchange, lane, scores);
      RowState state;
      std::uint32_t weights[4][4];
      attention.softmax(base, scores, state, weights);
      float out[kChunks][4];
      weigh_values(
          weights, [&](int n, int half) { return share.values[n][half]; }, out);
      if (last_set && at_hand) share.fetch_values(attention, warp);
      if (warp == 0) partial.set_state(lane, state);
#pragma unroll
      for (int n = 0; n < kChunks; ++n) partial.set(warp * kChunks + n, lane, out[n]);
    }
  }

  cluster_arrive();
  cluster_wait();
  for (int item = rank * 4 + warp; item < sets * kDimTiles; item += ranks * 4) {
    const int set = item / kDimTiles;
    const int d = item % kDimTiles;
    RowState whole;
    float sum[4] = {};
    float4 states[kUnitTiles];
    float4 outs[kUnitTiles] = {};
    const auto fetch_unit = [&](int first) {
#pragma unroll
      for (int i = 0; i < kUnitTiles; ++i) {
        states[i] = {-INFINITY, -INFINITY, 0.0f, 0.0f};
        if (first + i >= tiles) continue;
        const Partial<kChunks>* const partial =
            of_block(shared.partials + set * args.turns + (first + i) / ranks, (first + i) % ranks);
        states[i] = partial->rows[lane];
        outs[i] = partial->out[d][lane];
      }
    };
    fetch_unit(0);
    attention.select(set * args.tile_tokens);
    for (int first = 0; first < tiles; first += kUnitTiles) {
      RowState unit;
      float unit_sum[4] = {};
      float kept[2];
      float added[2];
#pragma unroll
      for (int i = 0; i < kUnitTiles; ++i) {
        const float4 s = states[i];
        unit.merge({{s.x, s.y}, {s.z, s.w}}, kept, added);
        merge_outputs(unit_sum, {outs[i].x, outs[i].y, outs[i].z, outs[i].w}, kept, added);
      }
      fetch_unit(first + kUnitTiles);
      whole.merge(unit, kept, added);
      merge_outputs(sum, unit_sum, kept, added);
    }
    attention.write(d, sum, whole);
  }
  // What others read must stay until they have.
  cluster_arrive();
  cluster_wait();
}

}  // namespace specdec::kernels::cuda
