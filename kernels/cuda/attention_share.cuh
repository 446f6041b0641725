#pragma once

#include <type_traits>

#include "kernels/cuda/attention_window.cuh"

namespace specdec::kernels::cuda {

/// Where a lane finds its part of a warp's share of a tile's keys and values, when four warps have
/// the tile between them: two eights of positions, a quarter of the dimension tiles.
template <int kChunks>
struct SharePlace {
  const __half* key_rows[2];  // null: not there, zeros
  const __half* value_rows[2];
  unsigned fresh_rows;  // bits: which of the two keys, then of the two values, are not committed

  /// Looks up where the share of the 64 positions from `base` on lies. Values of a path need not
  /// be contiguous: see gather_values().
  __device__ void locate(const AttentionWarp<kChunks>& attention, const SlotMap& map, int base,
                         int warp) {
    const KvLayer& kv = attention.args.kv;
    const int lane = attention.lane;
    fresh_rows = 0;
    const int eight = base + warp / 2 * 32 + lane / 8 * 8;  // 8 positions never straddle a block
    const std::int64_t in_place =
        map.path == nullptr && eight <= map.limit ? attention.block_base(map, eight) : 0;
#pragma unroll
    for (int j = 0; j < 2; ++j) {
      const int position = eight + (warp * 2 + j) % 4 * 2 + lane / 4 % 2;
      key_rows[j] = nullptr;
      if (position >= map.context) fresh_rows |= 1u << j;
      if (position <= map.limit) {
        const int slot = map.slot(position);
        key_rows[j] = static_cast<const __half*>(kv.keys) +
                      (map.path == nullptr ? in_place : attention.block_base(map, slot)) +
                      attention.args.block.remainder(slot) * kv.head_dim;
      }
      const int first = base + j * 32 + lane % 4 * 8;
      value_rows[j] = nullptr;
      if (first + 7 >= map.context) fresh_rows |= 4u << j;
      if (first <= map.limit)
        value_rows[j] = static_cast<const __half*>(kv.values) + attention.block_base(map, first) +
                        lane / 4 * kv.block_size + attention.args.block.remainder(first);
    }
  }

  /// Whether all of the 64 positions from `base` on are there, and so all 16 bytes.
  __device__ static bool is_whole(const AttentionWarp<kChunks>& attention, const SlotMap& map,
                                  int base) {
    return base + kAttentionTile <= map.limit + 1 && attention.args.kv.head_dim == kChunks * 32;
  }

  /// take(n, m, from) for each 16 bytes of the keys, of eight n and chunk m, or of the values, of
  /// dimension tile n and half m; from null: zeros. kWhole: see is_whole().
  template <bool kWhole = false, class Take>
  __device__ void for_keys(const AttentionWarp<kChunks>& attention, Take take) const {
#pragma unroll
    for (int n = 0; n < 2; ++n)
#pragma unroll
      for (int chunk = 0; chunk < kChunks; ++chunk) {
        const int first = chunk * 32 + attention.lane % 4 * 8;
        const bool there = kWhole || (key_rows[n] != nullptr && first < attention.args.kv.head_dim);
        take(n, chunk, there ? key_rows[n] + first : nullptr);
      }
  }
  template <bool kWhole = false, class Take>
  __device__ void for_values(const AttentionWarp<kChunks>& attention, int warp, Take take) const {
    const KvLayer& kv = attention.args.kv;
#pragma unroll
    for (int n = 0; n < kChunks; ++n) {
      const int d = warp * kChunks + n;
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const bool there =
            kWhole || (value_rows[half] != nullptr && d * 8 + attention.lane / 4 < kv.head_dim);
        take(n, half, there ? value_rows[half] + d * 8 * kv.block_size : nullptr);
      }
    }
  }
};

/// A thread of a block that has some of a sequence's tiles; grid: [KV heads, sets of queries,
/// ranks].
struct TilesThread {
  int lane;
  int warp;
  int kv_head;
  int rank;  // of the block in its cluster
  int ranks;

  /// The kernel's first step.
  __device__ static TilesThread begin() {
    let_next_start();
    cluster_arrive();
    return {static_cast<int>(threadIdx.x) % 32, static_cast<int>(threadIdx.x) / 32,
            static_cast<int>(blockIdx.x), static_cast<int>(blockIdx.z),
            static_cast<int>(gridDim.z)};
  }
};

/// 16 bytes past the first-level cache: a line of it may hold what a neighbour read before it was
/// written.
__device__ __forceinline__ uint4 load_past_cache(const __half* from) {
  return from != nullptr ? __ldcg(reinterpret_cast<const uint4*>(from)) : uint4{0, 0, 0, 0};
}

/// A warp's share in registers.
template <int kChunks>
struct TileShare : SharePlace<kChunks> {
  uint4 keys[2][kChunks];
  uint4 values[kChunks][2];

  __device__ void fetch_keys(const AttentionWarp<kChunks>& attention) {
    this->for_keys(attention, [&](int n, int chunk, const __half* from) {
      keys[n][chunk] = load_past_cache(from);
    });
  }
  __device__ void fetch_values(const AttentionWarp<kChunks>& attention, int warp) {
    this->for_values(attention, warp, [&](int n, int half, const __half* from) {
      values[n][half] = load_past_cache(from);
    });
  }
  /// Fetches what is committed, with zeros for what is not, or (`fresh`) the rest.
  __device__ void fetch(const AttentionWarp<kChunks>& attention, int warp, bool fresh) {
    this->for_keys(attention, [&](int n, int chunk, const __half* from) {
      const bool is_fresh = (this->fresh_rows >> n & 1u) != 0;
      if (!fresh || is_fresh) keys[n][chunk] = load_past_cache(is_fresh == fresh ? from : nullptr);
    });
    this->for_values(attention, warp, [&](int n, int half, const __half* from) {
      const bool is_fresh = (this->fresh_rows >> (2 + half) & 1u) != 0;
      if (!fresh || is_fresh) values[n][half] = load_past_cache(is_fresh == fresh ? from : nullptr);
    });
  }
  /// Values of one dimension tile and half that a path has in slots of its own.
  __device__ static uint4 gather_values(const AttentionWarp<kChunks>& attention, const SlotMap& map,
                                        int base, int d, int half) {
    const KvLayer& kv = attention.args.kv;
    const int dim = d * 8 + attention.lane / 4;
    std::uint32_t words[4] = {};
#pragma unroll
    for (int i = 0; i < 8; ++i) {
      const int position = base + half * 32 + attention.lane % 4 * 8 + i;
      if (position > map.limit || dim >= kv.head_dim) continue;
      const int slot = map.slot(position);
      const auto* from = reinterpret_cast<const std::uint16_t*>(
          static_cast<const __half*>(kv.values) + attention.block_base(map, slot) +
          dim * kv.block_size + attention.args.block.remainder(slot));
      words[i / 2] |= static_cast<std::uint32_t>(__ldcg(from)) << (i % 2 * 16);
    }
    return {words[0], words[1], words[2], words[3]};
  }
};

/// Scores of kCount eights of keys, key_at(n, chunk), for a set's queries in shared memory.
template <int kChunks, int kCount, class KeyAt>
__device__ __forceinline__ void score_set(const uint4 (&queries)[kChunks * 2][32], int lane,
                                          KeyAt key_at, float (&sums)[kCount][4]) {
  score_keys<kChunks>(
      [&](int step, std::uint32_t(&a)[4]) {
        const uint4 v = queries[step][lane];
        a[0] = v.x;
        a[1] = v.y;
        a[2] = v.z;
        a[3] = v.w;
      },
      key_at, sums);
}

/// What the warps tell one another of a set's softmax.
struct SoftmaxExchange {
  struct Shared {
    float4 tops[16];       // of each row, as the four warps have it
    uint4 weights[4][32];  // the operand of each step of 16 positions
  };
  using Powers = float4[8][32];  // before they were rounded to weights

  Shared& shared;
  Powers& powers;
};

/// The softmax of the 64 positions from `base` on, a step of 16 a warp: each has its own scores and
/// gets everybody's weights. Returns the rows' tops. All warps of the block. kRows: of a lane, one
/// where a set has at most eight queries.
template <int kRows, int kChunks>
__device__ __forceinline__ void share_softmax(const AttentionWarp<kChunks>& attention, int base,
                                              int warp, float (&own)[2][4],
                                              const SoftmaxExchange& exchange,
                                              std::uint32_t (&weights)[4][4], float (&tops)[2]) {
  const int lane = attention.lane;
  const int first = base + warp / 2 * 32 + lane % 4 * 8 + warp % 2 * 4;
#pragma unroll
  for (int i = 0; i < kRows; ++i) {
#pragma unroll
    for (int k = 0; k < 4; ++k) {
      const int position = first + k;
      float& score = own[k / 2][i * 2 + k % 2];
      const bool seen =
          position <= attention.positions[i] && position >= attention.args.first_position;
      score = seen ? score * attention.args.scale_log2 : -INFINITY;
    }
    float top =
        fmaxf(fmaxf(own[0][i * 2], own[0][i * 2 + 1]), fmaxf(own[1][i * 2], own[1][i * 2 + 1]));
    top = fmaxf(top, __shfl_xor_sync(kFullWarp, top, 1));
    top = fmaxf(top, __shfl_xor_sync(kFullWarp, top, 2));
    if (lane % 4 == 0)
      reinterpret_cast<float*>(&exchange.shared.tops[lane / 4 + i * 8])[warp] = top;
  }
  __syncthreads();
  tops[1] = -INFINITY;
#pragma unroll
  for (int i = 0; i < kRows; ++i) {
    const float4 v = exchange.shared.tops[lane / 4 + i * 8];
    tops[i] = fmaxf(fmaxf(v.x, v.y), fmaxf(v.z, v.w));
#pragma unroll
    for (int k = 0; k < 4; ++k) {
      float& score = own[k / 2][i * 2 + k % 2];
      score = tops[i] == -INFINITY ? 0.0f : exp2_fast(score - tops[i]);
    }
  }
  uint4 step{};
  step.x = weight_pair(own[0][0], own[0][1]);
  step.z = weight_pair(own[1][0], own[1][1]);
  if constexpr (kRows == 2) {
    step.y = weight_pair(own[0][2], own[0][3]);
    step.w = weight_pair(own[1][2], own[1][3]);
  }
  exchange.shared.weights[warp][lane] = step;
#pragma unroll
  for (int n = 0; n < 2; ++n)
    exchange.powers[warp * 2 + n][lane] = {own[n][0], own[n][1], own[n][2], own[n][3]};
  __syncthreads();
#pragma unroll
  for (int n = 0; n < 4; ++n) {
    const uint4 v = exchange.shared.weights[n][lane];
    weights[n][0] = v.x;
    weights[n][1] = v.y;
    weights[n][2] = v.z;
    weights[n][3] = v.w;
  }
}
/// The rows' totals, in the order of AttentionWarp::softmax().
template <int kRows>
__device__ __forceinline__ RowState total_up(const SoftmaxExchange& exchange, int lane,
                                             const float (&tops)[2]) {
  RowState state;
#pragma unroll
  for (int n = 0; n < 8; ++n) {
    const float4 v = exchange.powers[n][lane];
    state.total[0] = state.total[0] + v.x + v.y;
    if constexpr (kRows == 2) state.total[1] = state.total[1] + v.z + v.w;
  }
#pragma unroll
  for (int i = 0; i < kRows; ++i) {
    state.top[i] = tops[i];
    state.total[i] += __shfl_xor_sync(kFullWarp, state.total[i], 1);
    state.total[i] += __shfl_xor_sync(kFullWarp, state.total[i], 2);
  }
  return state;
}

/// Shared memory of a block of attention_tiles_kernel, cut up by how much it attends to. What tiles
/// (or units) come to is written to the block of the cluster that will add it up: the dimension
/// tiles of all sets go round the ranks in turn.
template <int kChunks, bool kTrees>
struct TilesShared {
  using Queries = uint4[kChunks * 2][32];  // of a set, as the mma takes them
  using Window = TreeWindow<kChunks>;
  static constexpr int kDimTiles = kChunks * 4;

  int ranks;
  unsigned inverse;  // of ranks, times 2^16
  int most_tiles;    // or units, of a set
  Queries* queries;  // [sets]
  float4* rows;      // [sets][most_tiles][8] tops and totals of two rows
  float4* out;       // [dimension tiles that it adds up][most_tiles][32]
  SoftmaxExchange::Shared* softmax;
  SoftmaxExchange::Powers* powers;
  typename Window::Columns* columns;  // this and the rest: of a tree's slots
  uint4* values;
  std::uint8_t* places;

  /// Where one set meets one tile, the powers take the place of the queries, which then have been
  /// read: small enough for a product's block to have room beside this one.
  __host__ __device__ static bool powers_replace_queries(int sets, int turns) {
    return sets * turns == 1;
  }

  __device__ TilesShared(std::byte* memory, int sets, int num_ranks, int turns, bool by_unit)
      : ranks(num_ranks),
        inverse((1u << 16) / static_cast<unsigned>(num_ranks) + 1),
        most_tiles(by_unit ? num_ranks : num_ranks * turns) {
    const auto take = [&](auto*& part, int count) {
      using Part = std::remove_reference_t<decltype(*part)>;
      part = reinterpret_cast<Part*>(memory);
      memory += sizeof(Part) * count;
    };
    take(powers, 1);
    if (powers_replace_queries(sets, turns))
      queries = reinterpret_cast<Queries*>(powers);
    else
      take(queries, sets);
    take(rows, sets * most_tiles * 8);
    take(out, ceil_div(sets * kDimTiles, ranks) * most_tiles * 32);
    take(softmax, 1);
    if (!kTrees) return;
    take(columns, 1);
    take(values, kWindowSlots * kDimTiles);
    take(places, 0);
  }
  __device__ SoftmaxExchange exchange() const { return {*softmax, *powers}; }
  /// item / ranks, for the at most 128 dimension tiles of a block's sets.
  __device__ int place_of(int item) const {
    return static_cast<int>(static_cast<unsigned>(item) * inverse >> 16);
  }

  /// Of tile (or unit) `tile` of a set of queries.
  struct Partial {
    const TilesShared& shared;
    int query_set;
    int tile;

    /// By all lanes of one warp.
    __device__ void set_state(int lane, const RowState& state) const {
      float4* const to = shared.rows + (query_set * shared.most_tiles + tile) * 8 + lane / 4;
      for (int rank = lane % 4; rank < shared.ranks; rank += 4)
        store_to_block(to, rank, state.packed());
    }
    /// What a warp has of them all, the first warp the state.
    __device__ void set_all(int warp, int lane, const RowState& state,
                            const float (&sums)[kChunks][4]) const {
      if (warp == 0) set_state(lane, state);
#pragma unroll
      for (int n = 0; n < kChunks; ++n) set(warp * kChunks + n, lane, sums[n]);
    }
    __device__ void set(int d, int lane, const float (&sum)[4]) const {
      const int item = query_set * kDimTiles + d;
      const int place = shared.place_of(item);
      store_to_block(shared.out + (place * shared.most_tiles + tile) * 32 + lane,
                     item - place * shared.ranks, {sum[0], sum[1], sum[2], sum[3]});
    }
  };

  /// Adds tiles first, first + 1, .. of dimension tile place * ranks + own rank up to a unit, in
  /// ascending order; a unit of one is there already.
  template <int kUnit, int kRows>
  __device__ RowState unit_of(int set, int place, int first, int tiles, int lane,
                              float (&sum)[4]) const {
    const float4* const states = rows + set * most_tiles * 8 + lane / 4;
    const float4* const outs = out + place * most_tiles * 32 + lane;
    float4 row[kUnit];
    float4 v[kUnit];
#pragma unroll
    for (int i = 0; i < kUnit; ++i) {
      const int at = min(first + i, tiles - 1);
      row[i] = states[at * 8];
      v[i] = outs[at * 32];
      if (first + i >= tiles) row[i].x = row[i].y = -INFINITY;  // nobody's: left out
    }
    RowState state = RowState::of(row[0]);
    sum[0] = v[0].x, sum[1] = v[0].y, sum[2] = v[0].z, sum[3] = v[0].w;
    if constexpr (kUnit > 1) {
      float kept[2];
      float added[2];
      state = {};
      sum[0] = sum[1] = sum[2] = sum[3] = 0.0f;
#pragma unroll
      for (int i = 0; i < kUnit; ++i) {
        state.merge<kRows>(RowState::of(row[i]), kept, added);
        merge_outputs<kRows>(sum, {v[i].x, v[i].y, v[i].z, v[i].w}, kept, added);
      }
    }
    return state;
  }
  /// ... and all of its units to the whole.
  template <int kUnit, int kRows>
  __device__ RowState add_up(int set, int place, int tiles, int lane, float (&sum)[4]) const {
    RowState whole;
    sum[0] = sum[1] = sum[2] = sum[3] = 0.0f;
#pragma unroll 1
    for (int first = 0; first < tiles; first += kUnit) {
      float unit_sum[4];
      const RowState unit = unit_of<kUnit, kRows>(set, place, first, tiles, lane, unit_sum);
      float kept[2];
      float added[2];
      whole.merge<kRows>(unit, kept, added);
      merge_outputs<kRows>(sum, unit_sum, kept, added);
    }
    return whole;
  }
  /// Dimension tiles of one set of queries that the block of that rank adds up.
  __device__ int num_places(int rank) const {
    return rank < kDimTiles ? place_of(kDimTiles - 1 - rank) + 1 : 0;
  }
  /// Adds all of them up and calls write(place, sum, state) for each. Up to four units of one row a
  /// lane are added up side by side, a warp each. All warps of the block; it takes the place of the
  /// powers.
  template <int kUnit, int kRows, class Write>
  __device__ void add_up_all(int places, int tiles, int warp, int lane, Write write) const {
    constexpr int kWarps = 4;
    constexpr int kMostPlaces = sizeof(*powers) / sizeof((*powers)[0]) / kWarps;
    if (kRows == 1 && kUnit > 1 && tiles > kUnit && tiles <= kWarps * kUnit &&
        places <= kMostPlaces) {
      SoftmaxExchange::Powers& parts = *powers;
      for (int place = 0; place < places; ++place) {
        float sum[4] = {};
        RowState unit;
        if (warp * kUnit < tiles)
          unit = unit_of<kUnit, kRows>(0, place, warp * kUnit, tiles, lane, sum);
        parts[place * kWarps + warp][lane] = {sum[0], sum[1], unit.top[0], unit.total[0]};
      }
      __syncthreads();
      if (warp >= places) return;
      RowState whole;
      float sum[4] = {};
#pragma unroll
      for (int unit = 0; unit < kWarps; ++unit) {
        const float4 part = parts[warp * kWarps + unit][lane];
        float kept[2];
        float added[2];
        whole.merge<kRows>({{part.z, -INFINITY}, {part.w, 0.0f}}, kept, added);
        merge_outputs<kRows>(sum, {part.x, part.y, 0.0f, 0.0f}, kept, added);
      }
      write(warp, sum, whole);
      return;
    }
    for (int place = warp; place < places; place += kWarps) {
      float sum[4];
      const RowState state = add_up<kUnit, kRows>(0, place, tiles, lane, sum);
      write(place, sum, state);
    }
  }

  static std::size_t bytes(int sets, int ranks, int turns, bool by_unit, int tokens) {
    static_assert(sizeof(Queries) <= sizeof(SoftmaxExchange::Powers));
    const auto tiles = static_cast<std::size_t>(by_unit ? ranks : ranks * turns);
    const auto items = static_cast<std::size_t>(ceil_div(sets * kDimTiles, ranks));
    const auto own_queries =
        static_cast<std::size_t>(powers_replace_queries(sets, turns) ? 0 : sets);
    const std::size_t bytes = sizeof(SoftmaxExchange::Powers) + own_queries * sizeof(Queries) +
                              static_cast<std::size_t>(sets) * tiles * 8 * sizeof(float4) +
                              items * tiles * 32 * sizeof(float4) + sizeof(SoftmaxExchange::Shared);
    if (!kTrees) return bytes;
    return bytes + sizeof(typename Window::Columns) + sizeof(typename Window::Values) +
           static_cast<std::size_t>(tokens) * sizeof(typename Window::Places);
  }
};

/// 32 dimensions of a set's queries, on their way to shared memory as an operand; its first eight
/// queries alone, if a lane has one row.
template <int kChunks, int kRows>
struct QueryShare {
  int set;
  int chunk;
  const float4* rows[kRows];  // null: zeros
  float4 loaded[kRows][2];

  QueryShare() = default;

  __device__ QueryShare(const AttentionArgs& args, const QueryTile& tile, int kv_head, int item,
                        int lane) {
    set = item / kChunks;
    chunk = item % kChunks;
    const int col = chunk * 32 + lane % 4 * 8;
#pragma unroll
    for (int i = 0; i < kRows; ++i) {
      const int row = lane / 4 + i * 8;
      const int in_set = args.group.quotient(row);
      const int token = set * args.tile_tokens + in_set;
      const int head = kv_head * args.group.value + row - in_set * args.group.value;
      const float* const from =
          args.q +
          (static_cast<std::size_t>(tile.row + token) * args.num_heads + head) * args.kv.head_dim +
          col;
      const bool there = in_set < args.tile_tokens && token < tile.tokens && col < args.kv.head_dim;
      rows[i] = there ? reinterpret_cast<const float4*>(from) : nullptr;
    }
  }

  __device__ void load() {
#pragma unroll
    for (int i = 0; i < kRows; ++i)
#pragma unroll
      for (int half = 0; half < 2; ++half)
        loaded[i][half] =
            rows[i] != nullptr ? __ldcg(rows[i] + half) : float4{0.0f, 0.0f, 0.0f, 0.0f};
  }
  __device__ void store(uint4 (&queries)[kChunks * 2][32], int lane) const {
#pragma unroll
    for (int step = 0; step < 2; ++step) {
      uint4 operand{};
      operand.x = operand_pair<__half>(loaded[0][step].x, loaded[0][step].y);
      operand.z = operand_pair<__half>(loaded[0][step].z, loaded[0][step].w);
      if constexpr (kRows == 2) {
        operand.y = operand_pair<__half>(loaded[1][step].x, loaded[1][step].y);
        operand.w = operand_pair<__half>(loaded[1][step].z, loaded[1][step].w);
      }
      queries[chunk * 2 + step][lane] = operand;
    }
  }
};

}  // namespace specdec::kernels::cuda
