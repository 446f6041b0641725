#pragma once

#include "kernels/cuda/attention.cuh"

namespace specdec::kernels::cuda {

inline constexpr int kPrefillWarps = 8;  // sets of queries of a block
inline constexpr int kPrefillStages = 3;

/// Shared memory of a block of attention_prefill_kernel.
template <int kChunks>
struct PrefillShared {
  uint4 stages[kPrefillStages][2 * KvStage<kChunks>::kPart];
  float4 sums[kPrefillWarps][kChunks * 4][32];  // over the units, per warp

  __device__ KvStage<kChunks> stage(int tile) {
    uint4* const at = stages[tile % kPrefillStages];
    return {at, at + KvStage<kChunks>::kPart};
  }
};

/// Enqueues a warp's eighth of the copies of a tile that all queries find in the same slots: one
/// eight of the keys, as many dimension tiles of the values.
template <int kChunks>
__device__ __forceinline__ void fetch_part(const AttentionWarp<kChunks>& attention,
                                           const KvStage<kChunks>& to, int base, int warp) {
  const SlotMap map = attention.map_of(0, true);
  const KvLayer& kv = attention.args.kv;
  const int lane = attention.lane;
  const int dim = kv.head_dim;
  const int size = kv.block_size;
  {
    const int position = base + warp / 4 * 32 + lane / 8 * 8 + warp % 4 * 2 + lane / 4 % 2;
    const bool there = position <= map.limit;
    const __half* key = static_cast<const __half*>(kv.keys);
    if (there) key += attention.block_base(map, position) + position % size * dim;
#pragma unroll
    for (int chunk = 0; chunk < kChunks; ++chunk) {
      const int first = chunk * 32 + lane % 4 * 8;
      copy_async(&to.key(warp, chunk, lane), key + first, there && first < dim);
    }
  }
  const __half* values[2];
  bool there[2];
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const int first = base + half * 32 + lane % 4 * 8;
    there[half] = first <= map.limit;
    values[half] = static_cast<const __half*>(kv.values);
    if (there[half]) values[half] += attention.block_base(map, first) + first % size;
  }
#pragma unroll
  for (int i = 0; i < kChunks; ++i) {
    const int half = (warp * kChunks + i) % 2;
    const int d = (warp * kChunks + i) / 2;
    const int col = d * 8 + lane / 4;
    copy_async(&to.value(d, half, lane), (half == 0 ? values[0] : values[1]) + col * size,
               (half == 0 ? there[0] : there[1]) && col < dim);
  }
}

/// grid: [KV heads, query tiles / kPrefillWarps], the last ones of a sequence first, since they see
/// most. A warp attends to everything that its set of queries sees; keys and values come through a
/// ring of tiles that the block shares. A tree's own positions, of which each token has others,
/// follow with a stage a warp, in turns.
template <int kChunks>
__global__ void __launch_bounds__(kPrefillWarps * 32, 1)
    attention_prefill_kernel(const __grid_constant__ AttentionArgs args) {
  extern __shared__ __align__(128) std::byte shared_bytes[];
  auto& shared = *reinterpret_cast<PrefillShared<kChunks>*>(shared_bytes);
  let_next_start();
  wait_for_previous();
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const int warp = static_cast<int>(threadIdx.x) / 32;
  const QueryTile tile = find_tile(args, args.tile_tokens * kPrefillWarps,
                                   static_cast<int>(gridDim.y - 1 - blockIdx.y), lane);
  if (tile.tokens == 0) return;
  AttentionWarp<kChunks> attention(args, tile, shared.stage(0), static_cast<int>(blockIdx.x), lane);
  attention.select(warp * args.tile_tokens);
  attention.load_queries();
  const int tiles = tile.last / kAttentionTile + 1;
  const int shared_tiles = tile.has_paths ? min(tiles, tile.context / kAttentionTile) : tiles;
  const int own_last =
      __reduce_max_sync(kFullWarp, max(attention.positions[0], attention.positions[1]));
  const int own_tiles = own_last < 0 ? 0 : own_last / kAttentionTile + 1;

  RowState whole;
  RowState unit;
  float unit_sum[kChunks * 4][4] = {};
  auto& sums = shared.sums[warp];
#pragma unroll
  for (int d = 0; d < kChunks * 4; ++d) sums[d][lane] = {0.0f, 0.0f, 0.0f, 0.0f};
  // Adds the unit to the whole after its last tile.
  const auto finish = [&](int index) {
    constexpr int kUnitTiles = kAttentionUnit / kAttentionTile;
    if (index % kUnitTiles != kUnitTiles - 1 && index != own_tiles - 1) return;
    float kept[2];
    float added[2];
    whole.merge(unit, kept, added);
    unit = {};
#pragma unroll
    for (int d = 0; d < kChunks * 4; ++d) {
      const float4 v = sums[d][lane];
      float sum[4] = {v.x, v.y, v.z, v.w};
      merge_outputs(sum, unit_sum[d], kept, added);
      sums[d][lane] = {sum[0], sum[1], sum[2], sum[3]};
#pragma unroll
      for (int i = 0; i < 4; ++i) unit_sum[d][i] = 0.0f;
    }
  };

  const auto fetch = [&](int index) {
    if (index < shared_tiles)
      fetch_part(attention, shared.stage(index), index * kAttentionTile, warp);
    commit_copies();
  };
  for (int index = 0; index < kPrefillStages - 1; ++index) fetch(index);
  for (int index = 0; index < shared_tiles; ++index) {
    wait_copies<kPrefillStages - 2>();
    __syncthreads();  // the tile is there, and nobody reads the one before any more
    fetch(index + kPrefillStages - 1);
    if (index >= own_tiles) continue;
    attention.stage = shared.stage(index);
    float scores[8][4];
#pragma unroll
    for (int n = 0; n < 8; ++n) attention.score(n, scores[n]);
    RowState state;
    std::uint32_t weights[4][4];
    attention.softmax(index * kAttentionTile, scores, state, weights);
    float kept[2];
    float added[2];
    unit.merge(state, kept, added);
#pragma unroll
    for (int d = 0; d < kChunks * 4; ++d) {
      float sum[4];
      attention.weigh(d, weights, sum);
      merge_outputs(unit_sum[d], sum, kept, added);
    }
    finish(index);
  }

  if (shared_tiles < tiles) {
    wait_copies<0>();
    for (int turn = 0; turn < kPrefillWarps; turn += kPrefillStages) {
      __syncthreads();  // the stages are free
      if (warp < turn || warp >= turn + kPrefillStages) continue;
      attention.stage = shared.stage(warp);
      for (int index = shared_tiles; index < own_tiles; ++index) {
        RowState state;
        float out[kChunks * 4][4];
        attention.attend(index * kAttentionTile, -1, state, out);
        float kept[2];
        float added[2];
        unit.merge(state, kept, added);
#pragma unroll
        for (int d = 0; d < kChunks * 4; ++d) merge_outputs(unit_sum[d], out[d], kept, added);
        finish(index);
      }
    }
  }
#pragma unroll
  for (int d = 0; d < kChunks * 4; ++d) {
    const float4 v = sums[d][lane];
    const float sum[4] = {v.x, v.y, v.z, v.w};
    attention.write(d, sum, whole);
  }
}

}  // namespace specdec::kernels::cuda
