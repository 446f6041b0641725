#pragma once

#include "kernels/cuda/attention_warp.cuh"

namespace specdec::kernels::cuda {

inline constexpr int kMostGroupTokens = 64;
inline constexpr int kWindowSlots = 128;

/// The slots around a tree in shared memory, once for all queries of a block: those from
/// `first_slot` on, the border of the tile that the committed context ends in. Which of them a
/// token finds at a position is a table; sums over positions keep their order, so they keep their
/// bits.
template <int kChunks>
struct TreeWindow {
  static constexpr int kDimTiles = kChunks * 4;
  static constexpr int kSwizzle = kChunks == 3 ? 3 : 7;
  static constexpr int kPitch = kWindowSlots + 8;  // floats of a row of scores

  uint4* keys;           // [slots / 8][kChunks][32 lanes], as KvStage has them
  uint4* values;         // [slots][dimension tiles], a tile's place xored with the slot's low bits
  std::uint8_t* places;  // [token][positions from first_slot on] which slot of the window
  int first_slot;
  int num_slots;

  __device__ uint4& value(int slot, int d) const {
    return values[slot * kDimTiles + (d ^ (slot & kSwizzle))];
  }

  /// Fills `places`; all threads of the block. False where a path leaves the window.
  __device__ bool find_places(const AttentionArgs& args, const QueryTile& tile, int warp, int lane,
                              int& most_slots) const {
    const DeviceBatch& batch = args.batch;
    bool fits = tile.last < first_slot + kWindowSlots;
    int most = 0;
#pragma unroll 4
    for (int token = warp; token < tile.tokens; token += 4) {
      const int row = tile.row + token;
      const int offset = batch.path_offsets[row];
      const int last = batch.positions[row];
      std::uint32_t word = 0;
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const int position = first_slot + lane * 4 + i;
        if (position > last) continue;
        const int slot = position < tile.context || offset < 0
                             ? position
                             : batch.path_slots[offset + position - tile.context];
        const int place = slot - first_slot;
        fits = fits && place >= 0 && place < kWindowSlots;
        word |= static_cast<std::uint32_t>(place & (kWindowSlots - 1)) << (i * 8);
        most = max(most, place + 1);
      }
      reinterpret_cast<std::uint32_t*>(places + token * kWindowSlots)[lane] = word;
    }
    if (most > 0) atomicMax(&most_slots, most);
    return __syncthreads_and(fits) != 0;
  }

  /// Brings keys and values in; all warps of the block. Keys come by asynchronous copies.
  __device__ void load(const AttentionWarp<kChunks>& attention, int warp, int lane) const {
    const AttentionArgs& args = attention.args;
    const SlotMap map = attention.map_of(0, true);
    const int dim = args.kv.head_dim;
    const int size = args.kv.block_size;
    const auto* all_keys = static_cast<const __half*>(args.kv.keys);
    for (int eight = warp; eight * 8 < num_slots; eight += 4) {
      const int slot = first_slot + eight * 8 + lane / 4;
      const bool there = slot - first_slot < num_slots;
      const __half* key = all_keys;
      if (there) key += attention.block_base(map, slot) + slot % size * dim;
#pragma unroll
      for (int chunk = 0; chunk < kChunks; ++chunk) {
        const int col = chunk * 32 + lane % 4 * 8;
        copy_async(&keys[(eight * kChunks + chunk) * 32 + lane], key + col, there && col < dim);
      }
    }
    commit_copies();
    // The pool has values by dimension. A lane reads 8 slots of one; the transposition leaves it
    // with two dimensions of one slot.
    const auto* all_values = static_cast<const __half*>(args.kv.values);
    for (int group = 0; group * 32 < num_slots; ++group) {
      const int eight = first_slot + group * 32 + lane % 4 * 8;
      const bool there = eight - first_slot < num_slots;
      const __half* from = all_values;
      if (there) from += attention.block_base(map, eight) + eight % size;
      uint4 loaded[kChunks];
#pragma unroll
      for (int i = 0; i < kChunks; ++i) {
        const int col = (i * 4 + warp) * 8 + lane / 4;
        loaded[i] = there && col < dim ? *reinterpret_cast<const uint4*>(from + col * size)
                                       : uint4{0, 0, 0, 0};
      }
#pragma unroll
      for (int i = 0; i < kChunks; ++i) {
        const std::uint32_t words[4] = {loaded[i].x, loaded[i].y, loaded[i].z, loaded[i].w};
#pragma unroll
        for (int pair = 0; pair < 4; ++pair) {
          std::uint32_t transposed;
          asm volatile("movmatrix.sync.aligned.m8n8.trans.b16 %0, %1;"
                       : "=r"(transposed)
                       : "r"(words[pair]));
          const int slot = group * 32 + lane / 8 * 8 + pair * 2 + lane / 4 % 2;
          reinterpret_cast<std::uint32_t*>(&value(slot, i * 4 + warp))[lane % 4] = transposed;
        }
      }
    }
  }

  /// Softmax and weighted values of the 64 positions from `base` on, for the selected queries.
  /// `columns`: room for [16][kPitch] scores.
  __device__ void attend(const AttentionWarp<kChunks>& attention, int base, float* columns,
                         RowState& state, float (&out)[kDimTiles][4]) const {
    const int lane = attention.lane;
    const std::uint8_t* const own_places = places + (base - first_slot);
    __syncwarp();
    // Columns past the last slot are nobody's.
    constexpr int kAtOnce = 4;
    for (int first = 0; first * 8 < num_slots; first += kAtOnce) {
      float sums[kAtOnce][4];
      attention.score(
          [&](int n, int chunk) { return keys[((first + n) * kChunks + chunk) * 32 + lane]; },
          sums);
      float* const to = columns + lane / 4 * kPitch + first * 8 + lane % 4 * 2;
#pragma unroll
      for (int n = 0; n < kAtOnce; ++n) {
        *reinterpret_cast<float2*>(to + n * 8) = {sums[n][0], sums[n][1]};
        *reinterpret_cast<float2*>(to + n * 8 + 8 * kPitch) = {sums[n][2], sums[n][3]};
      }
    }
    __syncwarp();
    float scores[8][4];
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      const int token = min(attention.tokens[i], attention.end_token - 1);
      const float* const row = columns + (lane / 4 + i * 8) * kPitch;
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const uint2 eight = *reinterpret_cast<const uint2*>(own_places + token * kWindowSlots +
                                                            half * 32 + lane % 4 * 8);
#pragma unroll
        for (int k = 0; k < 8; ++k) {
          const std::uint32_t place = (k < 4 ? eight.x : eight.y) >> (k % 4 * 8) & 255;
          scores[half * 4 + k / 2][i * 2 + k % 2] = row[place];
        }
      }
    }
    std::uint32_t weights[4][4];
    attention.softmax(base, scores, state, weights);
#pragma unroll
    for (int step = 0; step < 4; ++step) {
      const int begin = base + step / 2 * 32;     // of the positions that the step is among
      if (begin > attention.tile.last) continue;  // weights of zero
      const bool committed = begin + 32 <= attention.tile.context;
      const int end = committed ? attention.first_token + 1 : attention.end_token;
      const int matrix = lane / 8;
      const int in_tile =
          step / 2 * 32 + lane % 8 / 2 * 8 + (step * 2 + matrix % 2) % 4 * 2 + lane % 2;
      for (int token = attention.first_token; token < end; ++token) {
        const int place = own_places[token * kWindowSlots + in_tile];
        const bool mine[2] = {committed || attention.tokens[0] == token,
                              committed || attention.tokens[1] == token};
#pragma unroll
        for (int d = 0; d < kDimTiles; d += 2) {
          std::uint32_t b[4];
          asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
                       : "=r"(b[0]), "=r"(b[1]), "=r"(b[2]), "=r"(b[3])
                       : "r"(shared_address(&value(place, d + matrix / 2)))
                       : "memory");
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
    float columns[16][TreeWindow<kChunks>::kPitch];
  } sums[4];
  std::uint8_t places[kMostGroupTokens][kWindowSlots];
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
  TreeWindow<kChunks> window{shared.window_keys, shared.stages[tree_tile / kAttentionTile % 4],
                             &shared.places[0][0], tile.context / kAttentionTile * kAttentionTile,
                             0};
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
        window.attend(attention, base, &shared.sums[warp].columns[0][0], state, out);
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
