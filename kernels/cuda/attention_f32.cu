#include "kernels/cuda/attention_f32.h"

#include <algorithm>

#include "kernels/cuda/device.cuh"
#include "kernels/cuda/operand.h"

namespace specdec::kernels::cuda {
namespace {

constexpr int kThreads = 128;
constexpr int kWarps = kThreads / 32;
constexpr int kLanePositions = kAttentionUnit / 32;  // of a unit
constexpr int kMostDims = 128;
/// More (row, head) pairs than this keep the processors busy without a split over the context.
constexpr int kMostSplitItems = 512;

constexpr float kLog2E = 1.44269504f;

struct Args {
  DeviceBatch batch;
  KvLayer kv;
  const float* q;
  void* out;
  DataType out_type;
  int num_heads;
  int first_position;
  float scale_log2;  // scale * log2(e)
  int units;         // of the longest row
};

/// What a thread holds of a sum over positions: lane k of warp w has dimension w + kWarps * k.
struct Sum {
  float top = -INFINITY;  // of the scores, in powers of two
  float total = 0;
  float out = 0;

  /// Takes the next unit's in.
  __device__ void add(const Sum& other) {
    if (other.top == -INFINITY) return;
    const float higher = fmaxf(top, other.top);
    const float kept = top == -INFINITY ? 0.0f : exp2f(top - higher);
    const float added = exp2f(other.top - higher);
    total = __fmaf_rn(other.total, added, total * kept);
    out = __fmaf_rn(other.out, added, out * kept);
    top = higher;
  }
};

__device__ __forceinline__ float add_lanes(float value, int distance) {
  for (; distance > 0; distance /= 2) value += __shfl_xor_sync(kFullWarp, value, distance);
  return value;
}

/// One head of one row. A block's threads share it.
struct RowHead {
  const Args& args;
  int row;
  int kv_head;
  int last;  // the row's position
  int context;
  const std::int32_t* table;
  const std::int32_t* path;  // null: slot = position
  int warp;
  int lane;
  float4 q[kMostDims / 32];  // dimensions 4 * (lane % 8) + 32 i ..

  __device__ RowHead(const Args& arguments, int own_row, int head)
      : args(arguments),
        row(own_row),
        kv_head(head / (arguments.num_heads / arguments.kv.num_kv_heads)),
        warp(static_cast<int>(threadIdx.x) / 32),
        lane(static_cast<int>(threadIdx.x) % 32) {
    const DeviceBatch& batch = args.batch;
    const int sequence = batch.row_sequences[row];
    last = batch.positions[row];
    context = batch.context_lens[sequence];
    table = batch.block_tables + sequence * batch.table_stride;
    const int offset = batch.path_offsets[row];
    path = offset < 0 ? nullptr : batch.path_slots + offset;
    const float* from =
        args.q + (static_cast<std::size_t>(row) * args.num_heads + head) * args.kv.head_dim;
#pragma unroll
    for (int i = 0; i < kMostDims / 32; ++i) {
      const int dim = lane % 8 * 4 + i * 32;
      q[i] = dim < args.kv.head_dim ? *reinterpret_cast<const float4*>(from + dim) : float4{};
    }
  }

  /// First element of the head's block that holds `slot` (over all blocks).
  __device__ std::size_t block_of(int slot) const {
    return (static_cast<std::size_t>(slot / args.kv.block_size) * args.kv.num_kv_heads + kv_head) *
           static_cast<std::size_t>(args.kv.block_size) * args.kv.head_dim;
  }

  /// Of the query and the key in `slot`; eight lanes share it and all of them get it.
  __device__ float dot(int slot) const {
    float sum = 0;
    if (slot >= 0) {
      const float* key = static_cast<const float*>(args.kv.keys) + block_of(slot) +
                         slot % args.kv.block_size * args.kv.head_dim;
#pragma unroll
      for (int i = 0; i < kMostDims / 32; ++i) {
        const int dim = lane % 8 * 4 + i * 32;
        if (dim >= args.kv.head_dim) break;
        const float4 k = *reinterpret_cast<const float4*>(key + dim);
        sum = __fmaf_rn(q[i].x, k.x, sum);
        sum = __fmaf_rn(q[i].y, k.y, sum);
        sum = __fmaf_rn(q[i].z, k.z, sum);
        sum = __fmaf_rn(q[i].w, k.w, sum);
      }
    }
    return add_lanes(sum, 4);
  }

  /// Softmax and weighted values of unit `unit`; all threads of the block.
  __device__ Sum attend(int unit) const {
    __shared__ int slots[kAttentionUnit];  // over all blocks; -1: not seen
    __shared__ float scores[kAttentionUnit];
    __syncthreads();  // the unit before may still be read
    for (int i = static_cast<int>(threadIdx.x); i < kAttentionUnit; i += kThreads) {
      const int position = unit * kAttentionUnit + i;
      slots[i] = -1;
      if (position < args.first_position || position > last) continue;
      const int slot = path == nullptr || position < context ? position : path[position - context];
      slots[i] = table[slot / args.kv.block_size] * args.kv.block_size + slot % args.kv.block_size;
    }
    __syncthreads();
    for (int first = 0; first < kAttentionUnit; first += kWarps * 4) {
      const int i = first + warp * 4 + lane / 8;
      const float score = dot(slots[i]);
      if (lane % 8 == 0) scores[i] = slots[i] < 0 ? -INFINITY : score * args.scale_log2;
    }
    __syncthreads();

    // Every warp goes through all weights; the lane's positions are lane, lane + 32, ..
    Sum sum;
    float weights[kLanePositions];
#pragma unroll
    for (int i = 0; i < kLanePositions; ++i) {
      weights[i] = scores[lane + 32 * i];
      // A broken key must show: its weight is NaN whatever the others are.
      sum.top = fmaxf(sum.top, isnan(weights[i]) ? 0.0f : weights[i]);
    }
    for (int distance = 16; distance > 0; distance /= 2)
      sum.top = fmaxf(sum.top, __shfl_xor_sync(kFullWarp, sum.top, distance));
    const float* values[kLanePositions];
#pragma unroll
    for (int i = 0; i < kLanePositions; ++i) {
      weights[i] = sum.top == -INFINITY ? 0.0f : exp2f(weights[i] - sum.top);
      sum.total += weights[i];
      const int slot = slots[lane + 32 * i];
      values[i] = slot < 0 ? nullptr
                           : static_cast<const float*>(args.kv.values) + block_of(slot) +
                                 slot % args.kv.block_size;
    }
    sum.total = add_lanes(sum.total, 16);
    for (int k = 0; warp + kWarps * k < args.kv.head_dim; ++k) {
      const int offset = (warp + kWarps * k) * args.kv.block_size;
      float out = 0;
#pragma unroll
      for (int i = 0; i < kLanePositions; ++i)
        if (values[i] != nullptr) out = __fmaf_rn(weights[i], values[i][offset], out);
      out = add_lanes(out, 16);
      if (lane == k) sum.out = out;
    }
    return sum;
  }

  __device__ void write(int head, const Sum& sum) const {
    const int dim = warp + kWarps * lane;
    if (dim >= args.kv.head_dim) return;
    const int cols = args.num_heads * args.kv.head_dim;
    const int col = head * args.kv.head_dim + dim;
    const float value = sum.out / sum.total;
    if (args.out_type == DataType::f32)
      static_cast<float*>(args.out)[static_cast<std::size_t>(row) * cols + col] = value;
    else if (args.out_type == DataType::bf16)
      static_cast<__nv_bfloat16*>(args.out)[operand_index(row, col, cols, args.batch.num_rows)] =
          to_operand<__nv_bfloat16>(value);
    else
      static_cast<__half*>(args.out)[operand_index(row, col, cols, args.batch.num_rows)] =
          to_operand<__half>(value);
  }
};

__device__ bool is_padding(const DeviceBatch& batch, int row) {
  return row >= batch.sequence_begins[batch.num_sequences];
}

/// grid: [heads, rows]; a block attends to all that one row sees with one head.
__global__ void __launch_bounds__(kThreads) whole_kernel(const __grid_constant__ Args args) {
  let_next_start();
  wait_for_previous();
  const int head = static_cast<int>(blockIdx.x);
  const int row = static_cast<int>(blockIdx.y);
  if (is_padding(args.batch, row)) return;
  const RowHead own(args, row, head);
  Sum sum;
  for (int unit = 0; unit * kAttentionUnit <= own.last; ++unit) sum.add(own.attend(unit));
  own.write(head, sum);
}

/// grid: [heads, rows, units]; a block attends to one unit, the last one of a row's head to finish
/// adds them up. partials [rows, heads, units, threads]; counters [rows, heads].
__global__ void __launch_bounds__(kThreads)
    units_kernel(const __grid_constant__ Args args, Sum* partials, int* counters) {
  __shared__ bool last_block;
  let_next_start();
  wait_for_previous();
  const int head = static_cast<int>(blockIdx.x);
  const int row = static_cast<int>(blockIdx.y);
  const int unit = static_cast<int>(blockIdx.z);
  if (is_padding(args.batch, row)) return;
  const RowHead own(args, row, head);
  const int units = own.last / kAttentionUnit + 1;
  if (unit >= units) return;
  const Sum own_sum = own.attend(unit);
  Sum sum;
  if (units == 1) {
    sum.add(own_sum);
  } else {
    const int item = row * args.num_heads + head;
    Sum* const all = partials + static_cast<std::size_t>(item) * args.units * kThreads;
    all[unit * kThreads + static_cast<int>(threadIdx.x)] = own_sum;
    __threadfence();
    __syncthreads();
    if (threadIdx.x == 0) {
      last_block = atomicAdd(&counters[item], 1) == units - 1;
      if (last_block) counters[item] = 0;
    }
    __syncthreads();
    if (!last_block) return;
    __threadfence();
    for (int i = 0; i < units; ++i) sum.add(all[i * kThreads + static_cast<int>(threadIdx.x)]);
  }
  own.write(head, sum);
}

int num_units(const DeviceBatch& batch) {
  return std::max(1, ceil_div(batch.max_context, kAttentionUnit));
}
std::size_t partial_bytes(const DeviceBatch& batch, int num_heads) {
  return static_cast<std::size_t>(batch.num_rows * num_heads) *
         static_cast<std::size_t>(num_units(batch)) * kThreads * sizeof(Sum);
}

}  // namespace

cudaError_t attention_f32(const TreeAttentionParams& params, AttentionSplit split,
                          const Launch& to) {
  const Args args{.batch = *params.batch.device,
                  .kv = params.kv,
                  .q = params.q,
                  .out = params.out,
                  .out_type = params.out_type,
                  .num_heads = params.num_heads,
                  .first_position = params.first_position,
                  .scale_log2 = params.scale * kLog2E,
                  .units = num_units(*params.batch.device)};
  const int items = args.batch.num_rows * args.num_heads;
  const bool fits = partial_bytes(args.batch, args.num_heads) <= to.workspace.partial_bytes &&
                    items <= to.workspace.num_counters;
  dim3 grid(static_cast<unsigned>(args.num_heads), static_cast<unsigned>(args.batch.num_rows));
  if (split == AttentionSplit::whole ||
      (split == AttentionSplit::automatic && (args.units == 1 || items > kMostSplitItems || !fits)))
    return launch(to, whole_kernel, grid, kThreads, 0, args);
  if (!fits) return cudaErrorInvalidConfiguration;
  grid.z = static_cast<unsigned>(args.units);
  return launch(to, units_kernel, grid, kThreads, 0, args,
                reinterpret_cast<Sum*>(to.workspace.partials), to.workspace.counters);
}

std::size_t attention_f32_partial_bytes(const DeviceBatch& batch, int num_heads) noexcept {
  return batch.num_rows * num_heads > kMostSplitItems ? 0 : partial_bytes(batch, num_heads);
}

int attention_f32_counters(const DeviceBatch& batch, int num_heads) noexcept {
  return batch.num_rows * num_heads > kMostSplitItems ? 0 : batch.num_rows * num_heads;
}

}  // namespace specdec::kernels::cuda
