#pragma once

#include <climits>

#include "kernels/cuda/attention_warp.cuh"

namespace specdec::kernels::cuda {

/// Sets of queries of a block, a warp each: many share the copies, few spread over more blocks and
/// leave a warp the registers that trees need.
inline constexpr int kMostPrefillWarps = 12;
inline constexpr int kFewPrefillWarps = 8;
inline constexpr int kFewestPrefillWarps = 4;
inline constexpr int kFetchParts = 8;  // of a tile's copies, a warp's each
inline constexpr int kMostPrefillStages = 3;

/// A warp's outputs, a thread's four sums at [dimension tile][lane].
template <int kChunks>
using WarpSums = float4[kChunks * 4][32];

/// What a warp has of its queries: the unit it is in, and all units before.
struct PrefillState {
  RowState unit;
  RowState whole;

  /// After the last tile of a unit, or of all, adds the unit, whose sums are unit_at(d), to `sums`.
  template <int kChunks, class UnitAt>
  __device__ void finish(int tile, int last_tile, int lane, WarpSums<kChunks>& sums,
                         UnitAt unit_at) {
    constexpr int kUnitTiles = kAttentionUnit / kAttentionTile;
    if (tile % kUnitTiles != kUnitTiles - 1 && tile != last_tile) return;
    float kept[2];
    float added[2];
    whole.merge(unit, kept, added);
    unit = {};
#pragma unroll
    for (int d = 0; d < kChunks * 4; ++d) {
      const float4 v = sums[d][lane];
      float sum[4] = {v.x, v.y, v.z, v.w};
      merge_outputs(sum, unit_at(d), kept, added);
      sums[d][lane] = {sum[0], sum[1], sum[2], sum[3]};
      for (float& part : unit_at(d)) part = 0.0f;
    }
  }
};

/// Shared memory of a block of attention_prefill_kernel.
template <int kChunks, int kWarps>
struct PrefillShared {
  WarpSums<kChunks> sums[kWarps];                                 // over the units, per warp
  uint4 stages[kMostPrefillStages][2 * KvStage<kChunks>::kPart];  // as many as there is room for

  __device__ KvStage<kChunks> stage(int index) {
    return {stages[index], stages[index] + KvStage<kChunks>::kPart};
  }
  static constexpr std::size_t bytes(int num_stages) {
    return sizeof(PrefillShared) -
           static_cast<std::size_t>(kMostPrefillStages - num_stages) * sizeof(stages[0]);
  }
};

/// Enqueues one of kFetchParts parts of the copies of a tile that all queries find in the same
/// slots: one eight of the keys, as many dimension tiles of the values.
template <int kChunks>
__device__ __forceinline__ void fetch_part(const AttentionWarp<kChunks>& attention,
                                           const KvStage<kChunks>& to, int base, int part) {
  const SlotMap map = attention.map_of(0, true);
  const KvLayer& kv = attention.args.kv;
  const int lane = attention.lane;
  const int dim = kv.head_dim;
  const int size = kv.block_size;
  {
    const int position = base + part / 4 * 32 + lane / 8 * 8 + part % 4 * 2 + lane / 4 % 2;
    const bool there = position <= map.limit;
    const __half* key = static_cast<const __half*>(kv.keys);
    if (there)
      key += attention.block_base(map, position) + attention.args.block.remainder(position) * dim;
#pragma unroll
    for (int chunk = 0; chunk < kChunks; ++chunk) {
      const int first = chunk * 32 + lane % 4 * 8;
      copy_async(&to.key(part, chunk, lane), key + first, there && first < dim);
    }
  }
  const int half = part % 2;
  const int first = base + half * 32 + lane % 4 * 8;
  const bool there = first <= map.limit;
  const __half* values = static_cast<const __half*>(kv.values);
  if (there)
    values +=
        attention.block_base(map, first) + lane / 4 * size + attention.args.block.remainder(first);
#pragma unroll
  for (int i = 0; i < kChunks; ++i) {
    const int d = i * 4 + part / 2;
    copy_async(&to.value(d, half, lane), values + d * 8 * size, there && d * 8 + lane / 4 < dim);
  }
}

/// A tree's own positions, from tile `first` on: each token finds others there, so the warp fetches
/// for itself. A call of its own, since the kernel's registers do not fit beside its outputs; the
/// unit's sums lie in shared memory meanwhile.
template <int kChunks>
__device__ __noinline__ PrefillState attend_to_tree(const AttentionArgs& args, QueryTile tile,
                                                    KvStage<kChunks> stage, int kv_head,
                                                    int first_token, int first, int end,
                                                    PrefillState state, float (*unit_sums)[32][4],
                                                    WarpSums<kChunks>& sums) {
  const int lane = static_cast<int>(threadIdx.x) % 32;
  AttentionWarp<kChunks> attention(args, tile, stage, kv_head, lane);
  attention.select(first_token);
  attention.load_queries();
  for (int index = first; index < end; ++index) {
    RowState rows;
    float out[kChunks * 4][4];
    attention.attend(index * kAttentionTile, -1, rows, out);
    float kept[2];
    float added[2];
    state.unit.merge(rows, kept, added);
#pragma unroll
    for (int d = 0; d < kChunks * 4; ++d) merge_outputs(unit_sums[d][lane], out[d], kept, added);
    state.template finish<kChunks>(index, end - 1, lane, sums,
                                   [&](int d) -> float(&)[4] { return unit_sums[d][lane]; });
  }
  return state;
}

/// grid: [KV heads, query tiles / kWarps], the last ones of a sequence first, since they see
/// most. A warp attends to everything that its set of queries sees; keys and values come through a
/// ring of tiles that the block shares. A tree's own positions (kTrees) follow with a stage a warp,
/// in turns.
template <int kChunks, int kWarps, bool kTrees>
__global__ void __launch_bounds__(kWarps * 32, 1)
    attention_prefill_kernel(const __grid_constant__ AttentionArgs args) {
  extern __shared__ __align__(128) std::byte shared_bytes[];
  auto& shared = *reinterpret_cast<PrefillShared<kChunks, kWarps>*>(shared_bytes);
  let_next_start();
  wait_for_previous();
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const int warp = static_cast<int>(threadIdx.x) / 32;
  const QueryTile tile = find_tile(args, args.tile_tokens * kWarps,
                                   static_cast<int>(gridDim.y - 1 - blockIdx.y), lane);
  if (tile.tokens == 0) return;
  AttentionWarp<kChunks> attention(args, tile, shared.stage(0), static_cast<int>(blockIdx.x), lane);
  attention.select(warp * args.tile_tokens);
  attention.load_queries();
  const int tiles = tile.last / kAttentionTile + 1;
  const int shared_tiles =
      kTrees && tile.has_paths ? min(tiles, tile.context / kAttentionTile) : tiles;
  const int own_last =
      __reduce_max_sync(kFullWarp, max(attention.positions[0], attention.positions[1]));
  const int own_tiles = own_last < 0 ? 0 : own_last / kAttentionTile + 1;
  // Tiles that all rows see the whole of need not be asked position by position.
  const auto seen_by = [&](int i) {
    return attention.positions[i] < 0 ? INT_MAX - 1 : attention.positions[i];
  };
  const int seen_tiles = (__reduce_min_sync(kFullWarp, min(seen_by(0), seen_by(1))) + 1) /
                         kAttentionTile * (args.first_position == 0);

  PrefillState state;
  float unit_sum[kChunks * 4][4] = {};
  auto& sums = shared.sums[warp];
#pragma unroll
  for (int d = 0; d < kChunks * 4; ++d) sums[d][lane] = {0.0f, 0.0f, 0.0f, 0.0f};
  int free_stage = 0;
  const auto fetch = [&](int index) {
    if (index < shared_tiles)
      for (int part = warp; part < kFetchParts; part += kWarps)
        fetch_part(attention, shared.stage(free_stage), index * kAttentionTile, part);
    if (++free_stage == args.stages) free_stage = 0;
    commit_copies();
  };
  for (int index = 0; index < args.stages - 1; ++index) fetch(index);
  int stage = 0;
  for (int index = 0; index < shared_tiles; ++index) {
    if (args.stages == kMostPrefillStages)
      wait_copies<kMostPrefillStages - 2>();
    else
      wait_copies<0>();
    __syncthreads();  // the tile is there, and nobody reads the one before any more
    fetch(index + args.stages - 1);
    attention.stage = shared.stage(stage);
    if (++stage == args.stages) stage = 0;
    if (index >= own_tiles) continue;
    float scores[8][4];
    attention.score_stage(scores);
    RowState rows;
    std::uint32_t weights[4][4];
    if (index < seen_tiles)
      attention.template softmax<true>(index * kAttentionTile, scores, rows, weights);
    else
      attention.softmax(index * kAttentionTile, scores, rows, weights);
    float kept[2];
    float added[2];
    state.unit.merge(rows, kept, added);
#pragma unroll
    for (int d = 0; d < kChunks * 4; d += 4) {
      float parts[4][4];
      attention.weigh(d, weights, parts);
#pragma unroll
      for (int n = 0; n < 4; ++n) merge_outputs(unit_sum[d + n], parts[n], kept, added);
    }
    state.template finish<kChunks>(index, own_tiles - 1, lane, sums,
                                   [&](int d) -> float(&)[4] { return unit_sum[d]; });
  }

  if (kTrees && shared_tiles < tiles) {
    const int at_once = args.stages - 1;  // the last stage holds their units' sums
    wait_copies<0>();
    for (int turn = 0; turn < kWarps; turn += at_once) {
      __syncthreads();  // the stages are free
      if (warp < turn || warp >= turn + at_once) continue;
      auto* const unit_sums =
          reinterpret_cast<float(*)[32][4]>(shared.stages[at_once]) + (warp - turn) * kChunks * 4;
#pragma unroll
      for (int d = 0; d < kChunks * 4; ++d)
#pragma unroll
        for (int i = 0; i < 4; ++i) unit_sums[d][lane][i] = unit_sum[d][i];
      state = attend_to_tree<kChunks>(args, tile, shared.stage(warp - turn),
                                      static_cast<int>(blockIdx.x), attention.first_token,
                                      shared_tiles, own_tiles, state, unit_sums, sums);
    }
  }
#pragma unroll
  for (int d = 0; d < kChunks * 4; ++d) {
    const float4 v = sums[d][lane];
    const float sum[4] = {v.x, v.y, v.z, v.w};
    attention.write(d, sum, state.whole);
  }
}

}  // namespace specdec::kernels::cuda
