#pragma once

#include "kernels/cuda/attention_warp.cuh"

namespace specdec::kernels::cuda {

/// grid: [KV heads, query tiles, units]; a block attends to one unit, a warp to one of its tiles.
/// The last block to finish adds the units up.
template <int kChunks>
__global__ void __launch_bounds__(128)
    attention_units_kernel(const __grid_constant__ AttentionArgs args) {
  extern __shared__ __align__(128) std::byte shared[];
  constexpr int kPart = KvStage<kChunks>::kPart;
  auto* const stages = reinterpret_cast<uint4*>(shared);
  const int stage_size = args.tight ? kPart : 2 * kPart;
  // A warp's sums go where its keys were.
  static_assert(sizeof(Partial<kChunks>) <= kPart * sizeof(uint4));
  const auto partial_of = [&](int warp_index) {
    return reinterpret_cast<Partial<kChunks>*>(stages + warp_index * stage_size);
  };
  __shared__ bool last_block;
  let_next_start();
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const int warp = static_cast<int>(threadIdx.x) / 32;
  const int kv_head = static_cast<int>(blockIdx.x);
  const int unit = static_cast<int>(blockIdx.z);
  const QueryTile tile = find_tile(args, args.tile_tokens, static_cast<int>(blockIdx.y), lane);
  if (tile.tokens == 0 || unit * kAttentionUnit > tile.last) return;
  const int units = tile.last / kAttentionUnit + 1;
  uint4* const stage = stages + warp * stage_size;
  AttentionWarp<kChunks> attention(args, tile, {stage, args.tight ? stage : stage + kPart}, kv_head,
                                   lane);
  {
    const int base = unit * kAttentionUnit + warp * kAttentionTile;
    // Only the queries and the rows' own keys and values are made by the kernel before: the batch
    // and the committed context were there when the pass began (embed_kernel sees to that).
    const bool committed = base + kAttentionTile <= tile.context;
    if (committed) attention.begin(base);
    wait_for_previous();
    attention.load_queries();
    RowState state;
    float out[kChunks * 4][4] = {};
    if (base <= tile.last) {
      if (!committed && attention.is_shared(base)) attention.begin(base);
      attention.attend(base, -1, state, out);
    }
    __syncwarp();
    partial_of(warp)->set_state(lane, state);
#pragma unroll
    for (int d = 0; d < kChunks * 4; ++d) partial_of(warp)->set(d, lane, out[d]);
  }
  __syncthreads();
  const int first = warp * kChunks;  // dimension tiles of this warp from here on
  float sum[kChunks][4];
  RowState state = add_up<kChunks>([&](int at) { return partial_of(at); }, 4, first, lane, sum);
  if (units > 1) {
    const int item = static_cast<int>(blockIdx.y * gridDim.x) + kv_head;
    Partial<kChunks>* partials = reinterpret_cast<Partial<kChunks>*>(args.partials) +
                                 static_cast<std::size_t>(item) * gridDim.z;
    if (warp == 0) partials[unit].set_state(lane, state);
#pragma unroll
    for (int d = 0; d < kChunks; ++d) partials[unit].set(first + d, lane, sum[d]);
    __threadfence();
    __syncthreads();
    if (threadIdx.x == 0) {
      last_block = atomicAdd(&args.counters[item], 1) == units - 1;
      if (last_block) args.counters[item] = 0;
    }
    __syncthreads();
    if (!last_block) return;
    __threadfence();
    state = add_up<kChunks>([&](int at) { return partials + at; }, units, first, lane, sum);
  }
#pragma unroll
  for (int d = 0; d < kChunks; ++d) attention.write(first + d, sum[d], state);
}

}  // namespace specdec::kernels::cuda
