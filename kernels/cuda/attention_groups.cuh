#pragma once

#include "kernels/cuda/attention_window.cuh"

namespace specdec::kernels::cuda {

/// A window whose keys lie in shared memory too, and one warp's arithmetic with it.
template <int kChunks>
struct GroupWindow : TreeWindow<kChunks> {
  using Window = TreeWindow<kChunks>;
  using Window::first_slot;
  using Window::num_slots;
  uint4* keys;  // [slots / 8][kChunks][32 lanes], as KvStage has them

  /// Brings keys and values in; all warps of the block. Keys come by asynchronous copies.
  __device__ void load(const AttentionWarp<kChunks>& attention, int warp, int lane) const {
    const auto* nowhere = static_cast<const __half*>(attention.args.kv.keys);
    for (int eight = warp; eight * 8 < num_slots; eight += 4) {
      const __half* const key = this->key_row(attention, first_slot + eight * 8 + lane / 4);
#pragma unroll
      for (int chunk = 0; chunk < kChunks; ++chunk) {
        const int col = chunk * 32 + lane % 4 * 8;
        const bool there = key != nullptr && col < attention.args.kv.head_dim;
        copy_async(&keys[(eight * kChunks + chunk) * 32 + lane], there ? key + col : nowhere,
                   there);
      }
    }
    commit_copies();
    this->load_values(attention, warp, lane,
                      [&](int group) { return this->value_row(attention, group); });
  }

  /// Softmax and weighted values of the 64 positions from `base` on, for the selected queries.
  __device__ void attend(const AttentionWarp<kChunks>& attention, int base,
                         typename Window::Columns& columns, RowState& state,
                         float (&out)[kChunks * 4][4]) const {
    const int lane = attention.lane;
    __syncwarp();
    // Columns past the last slot are nobody's.
    constexpr int kAtOnce = 4;
    for (int first = 0; first * 8 < num_slots; first += kAtOnce) {
      float sums[kAtOnce][4];
      attention.score(
          [&](int n, int chunk) { return keys[((first + n) * kChunks + chunk) * 32 + lane]; },
          sums);
#pragma unroll
      for (int n = 0; n < kAtOnce; ++n) Window::put_scores(columns, (first + n) * 8, lane, sums[n]);
    }
    __syncwarp();
    float scores[8][4];
#pragma unroll
    for (int step = 0; step < 4; ++step)
      this->pick_scores(attention, base, step, columns, scores + step * 2);
    std::uint32_t weights[4][4];
    attention.softmax(base, scores, state, weights);
#pragma unroll
    for (int step = 0; step < 4; ++step) {
      const int begin = base + step / 2 * 32;     // of the positions that the step is among
      if (begin > attention.tile.last) continue;  // weights of zero
      const bool committed = begin + 32 <= attention.tile.context;
      const int end = committed ? attention.first_token + 1 : attention.end_token;
      for (int token = attention.first_token; token < end; ++token) {
        const int place = this->place_of_row(token, base, step, lane);
        const bool mine[2] = {committed || attention.tokens[0] == token,
                              committed || attention.tokens[1] == token};
#pragma unroll
        for (int d = 0; d < kChunks * 4; d += 2) {
          std::uint32_t b[4];
          this->gather_pair(place, d, lane, b);
#pragma unroll
          for (int next = 0; next < 2; ++next) {
            float sum[4] = {out[d + next][0], out[d + next][1], out[d + next][2], out[d + next][3]};
            mma<__half>(sum, weights[step], b[next * 2], b[next * 2 + 1]);
#pragma unroll
            for (int i = 0; i < 4; ++i)
              if (mine[i / 2]) out[d + next][i] = sum[i];
          }
        }
      }
    }
  }
};

/// Shared memory of a block of attention_groups_kernel.
template <int kChunks>
struct GroupShared {
  uint4 stages[4][2 * KvStage<kChunks>::kPart];
  uint4 window_keys[KvStage<kChunks>::kPart * 2];
  union {
    Partial<kChunks> partial;
    typename TreeWindow<kChunks>::Columns columns;
  } sums[4];
  typename TreeWindow<kChunks>::Places places[kMostGroupTokens];
};

/// grid: [KV heads, groups of block_tiles query tiles, units]; a block attends to one unit, a warp
/// to one of its tiles, which it fetches once for all queries. A tree's own positions come from a
/// window of slots that the block shares. The last block of a group to finish adds the units up.
template <int kChunks>
__global__ void __launch_bounds__(128)
    attention_groups_kernel(const __grid_constant__ AttentionArgs args) {
  constexpr int kPart = KvStage<kChunks>::kPart;
  extern __shared__ __align__(128) std::byte shared_bytes[];
  auto& shared = *reinterpret_cast<GroupShared<kChunks>*>(shared_bytes);
  static_assert(sizeof(shared.stages[0]) == kWindowSlots * kChunks * 64);
  __shared__ bool last_block;
  __shared__ int num_slots;
  let_next_start();
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const int warp = static_cast<int>(threadIdx.x) / 32;
  const int kv_head = static_cast<int>(blockIdx.x);
  const int unit = static_cast<int>(blockIdx.z);
  const QueryTile tile =
      find_tile(args, args.tile_tokens * args.block_tiles, static_cast<int>(blockIdx.y), lane);
  if (tile.tokens == 0 || unit * kAttentionUnit > tile.last) return;
  const int units = tile.last / kAttentionUnit + 1;
  AttentionWarp<kChunks> attention(args, tile, {shared.stages[warp], shared.stages[warp] + kPart},
                                   kv_head, lane);
  const int base = unit * kAttentionUnit + warp * kAttentionTile;

  // The first tile that is not shared, and the warp of this block that has it.
  const int tree_tile = max(tile.context / kAttentionTile * kAttentionTile, unit * kAttentionUnit);
  bool has_window =
      tile.has_paths && tree_tile <= min(tile.last, unit * kAttentionUnit + kAttentionUnit - 1);
  const bool own = !attention.is_shared(base);  // reads the window, if there is one
  const bool committed = !own && base + kAttentionTile <= tile.context;
  if (committed) attention.begin(base);
  GroupWindow<kChunks> window{{shared.stages[tree_tile / kAttentionTile % 4], &shared.places[0][0],
                               tile.context / kAttentionTile * kAttentionTile, 0},
                              shared.window_keys};
  if (has_window) {
    if (threadIdx.x == 0) num_slots = 0;
    __syncthreads();
    has_window = window.find_places(args, tile, warp, lane, num_slots);
    window.num_slots = num_slots;
  }
  wait_for_previous();
  if (!own && !committed && base <= tile.last) attention.begin(base);
  if (has_window) {
    window.load(attention, warp, lane);
    wait_copies<0>();
    __syncthreads();
  }

  Partial<kChunks>* const own_partial = &shared.sums[warp].partial;
  const int first = warp * kChunks;  // dimension tiles that this warp adds up
  const int group = static_cast<int>(blockIdx.y);
  const auto partials_of = [&](int index) {
    const std::size_t item =
        (static_cast<std::size_t>(group) * args.block_tiles + index) * gridDim.x + kv_head;
    return reinterpret_cast<Partial<kChunks>*>(args.partials) + item * gridDim.z;
  };
  const auto for_each_tile = [&](auto body) {
    for (int index = 0; index * args.tile_tokens < tile.tokens; ++index) {
      attention.select(index * args.tile_tokens);
      body(index);
    }
  };
  for_each_tile([&](int index) {
    RowState state;
    float out[kChunks * 4][4] = {};
    if (base <= tile.last) {
      attention.load_queries();
      if (own && has_window)
        window.attend(attention, base, shared.sums[warp].columns, state, out);
      else
        attention.attend(base, -1, state, out);
    }
    __syncwarp();
    own_partial->set_state(lane, state);
#pragma unroll
    for (int d = 0; d < kChunks * 4; ++d) own_partial->set(d, lane, out[d]);
    __syncthreads();
    float sum[kChunks][4];
    state = add_up<kChunks>([&](int at) { return &shared.sums[at].partial; }, 4, first, lane, sum);
    if (units == 1) {
#pragma unroll
      for (int d = 0; d < kChunks; ++d) attention.write(first + d, sum[d], state);
    } else {
      Partial<kChunks>* const to = partials_of(index) + unit;
      if (warp == 0) to->set_state(lane, state);
#pragma unroll
      for (int d = 0; d < kChunks; ++d) to->set(first + d, lane, sum[d]);
    }
    __syncthreads();
  });
  if (units == 1) return;

  __threadfence();
  __syncthreads();
  if (threadIdx.x == 0) {
    int* const counter = args.counters + blockIdx.y * gridDim.x + kv_head;
    last_block = atomicAdd(counter, 1) == units - 1;
    if (last_block) *counter = 0;
  }
  __syncthreads();
  if (!last_block) return;
  __threadfence();
  for_each_tile([&](int index) {
    const Partial<kChunks>* const all = partials_of(index);
    float sum[kChunks][4];
    const RowState state =
        add_up<kChunks>([&](int at) { return all + at; }, units, first, lane, sum);
#pragma unroll
    for (int d = 0; d < kChunks; ++d) attention.write(first + d, sum[d], state);
  });
}

}  // namespace specdec::kernels::cuda
