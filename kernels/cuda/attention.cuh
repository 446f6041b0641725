#pragma once

#include "kernels/cuda/attention.h"
#include "kernels/cuda/device.cuh"
#include "kernels/cuda/operand.h"

namespace specdec::kernels::cuda {

inline constexpr int kQueries = 16;  // rows of one mma: tokens of one sequence x heads of one group

struct AttentionArgs {
  DeviceBatch batch;
  KvLayer kv;
  const float* q;
  void* out;
  DataType out_type;
  int num_heads;
  Divisor group;       // query heads a KV head
  Divisor block;       // positions of a block of the cache
  int block_elements;  // ... of one head, that is
  int first_position;  // those before it have no weight
  int tile_tokens;     // tokens whose group fits into one set of queries
  int block_tiles;     // sets of queries of a block (attention_groups_kernel, ..tiles_kernel)
  int turns;           // tiles of positions of a block (attention_tiles_kernel)
  int stages;          // of a block's ring (attention_prefill_kernel), 2 or 3
  bool tight;        // values take the place of the keys in shared memory (attention_units_kernel)
  float scale_log2;  // scale * log2(e)
  float* partials;
  int* counters;
};

/// `tokens` rows of one sequence from `row` on.
struct QueryTile {
  int row = 0;
  int tokens = 0;  // 0: none, this tile is past the last one
  int context = 0;
  int last = 0;  // the furthest position that any of them sees
  bool has_paths = false;
  const std::int32_t* table = nullptr;
};

/// Tile `index` of the batch: sequences in order, each cut into tiles of `tile_tokens` rows from
/// its own first row on. All lanes call and get the same answer.
__device__ __forceinline__ QueryTile find_tile(const AttentionArgs& args, int tile_tokens,
                                               int index, int lane) {
  const DeviceBatch& batch = args.batch;
  QueryTile found;
  int before = 0;  // tiles of the sequences before `first`
  for (int first = 0; first < batch.num_sequences; first += 32) {
    const int sequence = min(first + lane, batch.num_sequences - 1);
    const int begin = batch.sequence_begins[sequence];
    const int rows = batch.sequence_begins[sequence + 1] - begin;
    const int own = first + lane < batch.num_sequences ? ceil_div(rows, tile_tokens) : 0;
    int sum = own;
    for (int distance = 1; distance < 32; distance *= 2) {
      const int other = __shfl_up_sync(kFullWarp, sum, distance);
      if (lane >= distance) sum += other;
    }
    const unsigned holders = __ballot_sync(kFullWarp, index < before + sum);
    if (holders != 0) {
      const int holder = __ffs(static_cast<int>(holders)) - 1;
      const int in_sequence = index - before - __shfl_sync(kFullWarp, sum - own, holder);
      const int skipped = in_sequence * tile_tokens;
      const int left = __shfl_sync(kFullWarp, rows, holder) - skipped;
      found.row = __shfl_sync(kFullWarp, begin, holder) + skipped;
      found.tokens = min(left, tile_tokens);
      found.context = batch.context_lens[first + holder];
      found.table = batch.block_tables + (first + holder) * batch.table_stride;
      break;
    }
    before += __shfl_sync(kFullWarp, sum, 31);
  }
  int last = 0;
  bool has_paths = false;
  for (int token = lane; token < found.tokens; token += 32) {
    last = max(last, batch.positions[found.row + token]);
    has_paths = has_paths || batch.path_offsets[found.row + token] >= 0;
  }
  found.last = __reduce_max_sync(kFullWarp, last);
  found.has_paths = __any_sync(kFullWarp, has_paths) != 0;
  return found;
}

/// Where a token's keys and values lie. With no path, slot = position.
struct SlotMap {
  const std::int32_t* table;
  const std::int32_t* path;  // slots of positions context..; null: none
  int context;
  int limit;  // positions beyond are not there

  __device__ int slot(int position) const {
    return path == nullptr || position < context ? position : path[position - context];
  }
};

__device__ __forceinline__ float exp2_fast(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

/// Softmax state of a thread's two rows, lane / 4 and 8 further.
struct RowState {
  float top[2] = {-INFINITY, -INFINITY};  // of the scores so far, in powers of two
  float total[2] = {0.0f, 0.0f};

  /// As one word, in which it lies in memory.
  __device__ static RowState of(const float4& v) { return {{v.x, v.y}, {v.z, v.w}}; }
  __device__ float4 packed() const { return {top[0], top[1], total[0], total[1]}; }

  /// Takes another state's rows in, the first kRows of them; `kept` and `added` are the factors of
  /// the two outputs. A state that saw no position changes nothing.
  template <int kRows = 2>
  __device__ void merge(const RowState& other, float (&kept)[2], float (&added)[2]) {
#pragma unroll
    for (int i = 0; i < kRows; ++i) {
      const bool none = other.top[i] == -INFINITY;
      const float higher = fmaxf(top[i], other.top[i]);
      kept[i] = none ? 1.0f : top[i] == -INFINITY ? 0.0f : exp2_fast(top[i] - higher);
      added[i] = none ? 0.0f : exp2_fast(other.top[i] - higher);
      const float sum = __fmaf_rn(other.total[i], added[i], total[i] * kept[i]);
      total[i] = none ? total[i] : sum;
      top[i] = higher;
    }
  }
};
template <int kRows = 2>
__device__ __forceinline__ void merge_outputs(float (&sum)[4], const float (&other)[4],
                                              const float (&kept)[2], const float (&added)[2]) {
#pragma unroll
  for (int i = 0; i < kRows * 2; ++i) {
    const float merged = __fmaf_rn(other[i], added[i / 2], sum[i] * kept[i / 2]);
    sum[i] = added[i / 2] != 0.0f ? merged : sum[i];
  }
}

/// What one tile, or one unit, comes to, in the layout of the registers.
template <int kChunks>
struct Partial {
  float4 rows[8];  // tops and totals of two rows, the same in four lanes
  float4 out[kChunks * 4][32];

  __device__ RowState state(int lane) const { return RowState::of(rows[lane / 4]); }
  __device__ void set_state(int lane, const RowState& state) {
    if (lane % 4 == 0) rows[lane / 4] = state.packed();
  }
  __device__ void set(int d, int lane, const float (&sum)[4]) {
    out[d][lane] = {sum[0], sum[1], sum[2], sum[3]};
  }
  __device__ void get(int d, int lane, float (&sum)[4]) const {
    const float4 v = out[d][lane];
    sum[0] = v.x;
    sum[1] = v.y;
    sum[2] = v.z;
    sum[3] = v.w;
  }
};

/// Adds up `count` partials in ascending order; the warp takes dimension tiles first, first + 1, ..
template <int kChunks, class PartialAt>
__device__ __forceinline__ RowState add_up(PartialAt partial_at, int count, int first, int lane,
                                           float (&sum)[kChunks][4]) {
  RowState state;
#pragma unroll
  for (int d = 0; d < kChunks; ++d)
#pragma unroll
    for (int i = 0; i < 4; ++i) sum[d][i] = 0.0f;
#pragma unroll 4
  for (int at = 0; at < count; ++at) {
    float kept[2];
    float added[2];
    const Partial<kChunks>* partial = partial_at(at);
    state.merge(partial->state(lane), kept, added);
#pragma unroll
    for (int d = 0; d < kChunks; ++d) {
      float other[4];
      partial->get(first + d, lane, other);
      merge_outputs(sum[d], other, kept, added);
    }
  }
  return state;
}

}  // namespace specdec::kernels::cuda
