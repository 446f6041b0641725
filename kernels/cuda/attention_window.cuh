#pragma once

#include "kernels/cuda/attention_warp.cuh"

namespace specdec::kernels::cuda {

inline constexpr int kMostGroupTokens = 64;
inline constexpr int kWindowSlots = 128;

/// The slots around a tree in shared memory, once for all queries of a block: those from
/// `first_slot` on, the border of the tile that the committed context ends in. Which of them a
/// token finds at a position is a table; sums over positions keep their order, so they keep their
/// bits. The keys are elsewhere: the kernels have them in different places.
template <int kChunks>
struct TreeWindow {
  static constexpr int kDimTiles = kChunks * 4;
  static constexpr int kSwizzle = kChunks == 3 ? 3 : 7;
  static constexpr int kPitch = kWindowSlots + 8;  // floats of a row of scores

  using Columns = float[16][kPitch];  // scores of a set's queries with all slots
  using Values = uint4[kWindowSlots][kDimTiles];
  using Places = std::uint8_t[kWindowSlots];

  uint4* values;         // Values, a dimension tile's place xored with the slot's low bits
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

  /// Where the lane's part of the key in `slot` lies; null: past the last slot.
  __device__ const __half* key_row(const AttentionWarp<kChunks>& attention, int slot) const {
    const KvLayer& kv = attention.args.kv;
    if (slot - first_slot >= num_slots) return nullptr;
    return static_cast<const __half*>(kv.keys) +
           attention.block_base(attention.map_of(0, true), slot) +
           attention.args.block.remainder(slot) * kv.head_dim;
  }

  /// Where 8 values of the lane's slots lie, in the group of 32 slots `group`; null: nowhere.
  __device__ const __half* value_row(const AttentionWarp<kChunks>& attention, int group) const {
    const KvLayer& kv = attention.args.kv;
    const int eight = first_slot + group * 32 + attention.lane % 4 * 8;
    if (eight - first_slot >= num_slots) return nullptr;
    return static_cast<const __half*>(kv.values) +
           attention.block_base(attention.map_of(0, true), eight) +
           attention.args.block.remainder(eight);
  }

  /// Brings the values in; all warps of the block. The pool has them by dimension: a lane reads 8
  /// slots of one, and the transposition leaves it with two dimensions of one slot. row_of(group)
  /// is value_row().
  template <class RowOf>
  __device__ void load_values(const AttentionWarp<kChunks>& attention, int warp, int lane,
                              RowOf row_of) const {
    const KvLayer& kv = attention.args.kv;
    constexpr int kAtOnce = 2;  // groups of 32 slots on their way
#pragma unroll 1
    for (int first = 0; first * 32 < num_slots; first += kAtOnce) {
      uint4 loaded[kAtOnce][kChunks];
#pragma unroll
      for (int n = 0; n < kAtOnce; ++n) {
        const __half* const from = row_of(first + n);
#pragma unroll
        for (int i = 0; i < kChunks; ++i) {
          const int col = (i * 4 + warp) * 8 + lane / 4;
          loaded[n][i] = from != nullptr && col < kv.head_dim
                             ? __ldcg(reinterpret_cast<const uint4*>(from + col * kv.block_size))
                             : uint4{0, 0, 0, 0};
        }
      }
#pragma unroll
      for (int n = 0; n < kAtOnce; ++n)
#pragma unroll
        for (int i = 0; i < kChunks; ++i) {
          const std::uint32_t words[4] = {loaded[n][i].x, loaded[n][i].y, loaded[n][i].z,
                                          loaded[n][i].w};
#pragma unroll
          for (int pair = 0; pair < 4; ++pair) {
            std::uint32_t transposed;
            asm volatile("movmatrix.sync.aligned.m8n8.trans.b16 %0, %1;"
                         : "=r"(transposed)
                         : "r"(words[pair]));
            const int slot = (first + n) * 32 + lane / 8 * 8 + pair * 2 + lane / 4 % 2;
            reinterpret_cast<std::uint32_t*>(&value(slot, i * 4 + warp))[lane % 4] = transposed;
          }
        }
    }
  }

  /// Writes scores of eight slots, from `first` on.
  __device__ static void put_scores(Columns& columns, int first, int lane, const float (&sums)[4]) {
    float* const to = &columns[lane / 4][first + lane % 4 * 2];
    *reinterpret_cast<float2*>(to) = {sums[0], sums[1]};
    *reinterpret_cast<float2*>(to + 8 * kPitch) = {sums[2], sums[3]};
  }

  /// Picks those of the eights 2 * step and 2 * step + 1 of the 64 positions from `base` on.
  __device__ void pick_scores(const AttentionWarp<kChunks>& attention, int base, int step,
                              const Columns& columns, float (*scores)[4]) const {
    const int lane = attention.lane;
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      const int token = min(attention.tokens[i], attention.end_token - 1);
      const float* const row = columns[lane / 4 + i * 8];
      const std::uint32_t four = *reinterpret_cast<const std::uint32_t*>(
          places + token * kWindowSlots + (base - first_slot) + step / 2 * 32 + lane % 4 * 8 +
          step % 2 * 4);
#pragma unroll
      for (int k = 0; k < 4; ++k) scores[k / 2][i * 2 + k % 2] = row[four >> (k * 8) & 255];
    }
  }

  /// The slot of the window that holds the lane's row of a step's values (gather_pair()).
  __device__ int place_of_row(int token, int base, int step, int lane) const {
    const int matrix = lane / 8;
    const int in_tile =
        step / 2 * 32 + lane % 8 / 2 * 8 + (step * 2 + matrix % 2) % 4 * 2 + lane % 2;
    return places[token * kWindowSlots + (base - first_slot) + in_tile];
  }
  /// Values of a step's 16 positions in dimension tiles d and d + 1, as the mma takes them.
  __device__ void gather_pair(int place, int d, int lane, std::uint32_t (&b)[4]) const {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(b[0]), "=r"(b[1]), "=r"(b[2]), "=r"(b[3])
                 : "r"(shared_address(&value(place, d + lane / 16)))
                 : "memory");
  }
};

}  // namespace specdec::kernels::cuda
