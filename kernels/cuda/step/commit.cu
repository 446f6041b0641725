#include "kernels/cuda/step/commit.h"

#include "kernels/cuda/device.cuh"

namespace specdec::kernels::cuda {
namespace {

constexpr int kCommitThreads = 128;
constexpr int kMovesAtOnce = 8;

struct Moves {
  int count;                        // of this batch
  std::int64_t from[kMovesAtOnce];  // element offsets of slot and block
  std::int64_t to[kMovesAtOnce];
};

// Every move of the batch for one place (head, dimensions) of a slot. A source is never below its
// destination and sources ascend, so with all loads before all stores, and batches ascending,
// nothing is overwritten before it is read.
template <typename Vector>
__device__ void move_place(Vector* data, std::int64_t place, const Moves& moves, int width) {
  Vector held[kMovesAtOnce];
#pragma unroll
  for (int i = 0; i < kMovesAtOnce; ++i)
    if (i < moves.count) held[i] = data[(moves.from[i] + place) / width];
#pragma unroll
  for (int i = 0; i < kMovesAtOnce; ++i)
    if (i < moves.count) data[(moves.to[i] + place) / width] = held[i];
}

template <typename Vector>
__device__ void move_half(void* data, const KvPoolView& pool, const KvHalf& half,
                          const Moves& moves, int width) {
  const int per_head = pool.head_dim / width;
  for (int i = static_cast<int>(threadIdx.x); i < pool.num_kv_heads * per_head;
       i += kCommitThreads) {
    const std::int64_t place =
        i / per_head * half.head_stride + i % per_head * width * half.dim_stride;
    move_place(static_cast<Vector*>(data), place, moves, width);
  }
}

// grid: [layers of both pools x 2, sequences]; a block moves one half of one layer.
__global__ void __launch_bounds__(kCommitThreads) move_accepted(CommitKvParams params) {
  wait_for_previous();
  let_next_start();
  int layer = static_cast<int>(blockIdx.x) / 2;
  const bool is_draft = layer >= params.target.num_layers;
  if (is_draft) layer -= params.target.num_layers;
  const KvPoolView& pool = is_draft ? params.draft : params.target;
  const KvHalf& half = blockIdx.x % 2 == 0 ? pool.keys : pool.values;
  const int sequence = static_cast<int>(blockIdx.y);
  const int length = params.paths.lengths[sequence];
  if (length <= 1) return;
  const int root_slot = params.sequences[sequence].length - 1;
  const std::int32_t* const nodes = params.paths.nodes + sequence * params.paths.capacity;
  const std::int32_t* const table = params.block_tables + sequence * params.table_stride;
  const auto offset = [&](int slot) {
    return table[slot / pool.block_size] * half.block_stride +
           slot % pool.block_size * half.position_stride;
  };
  void* const data = half.layers[layer];
  constexpr int kVectorBytes = 16;
  const int vector_width = kVectorBytes / pool.element_bytes;
  const bool vectors = half.dim_stride == 1 && pool.head_dim % vector_width == 0 &&
                       half.head_stride % vector_width == 0 &&
                       half.position_stride % vector_width == 0 &&
                       half.block_stride % vector_width == 0;
  for (int first = 1; first < length; first += kMovesAtOnce) {
    Moves moves;
    moves.count = 0;
    bool whole = true;
    for (int i = first; i < min(first + kMovesAtOnce, length); ++i) {
      const int source = is_draft ? params.draft_slots[params.first_rows[sequence] + nodes[i]]
                                  : root_slot + nodes[i];
      whole = whole && source >= 0;
      if (!whole) break;
      if (source == root_slot + i) continue;
      moves.from[moves.count] = offset(source);
      moves.to[moves.count] = offset(root_slot + i);
      ++moves.count;
    }
    if (vectors)
      move_half<uint4>(data, pool, half, moves, vector_width);
    else if (pool.element_bytes == 2)
      move_half<std::uint16_t>(data, pool, half, moves, 1);
    else
      move_half<std::uint32_t>(data, pool, half, moves, 1);
    if (!whole) return;
  }
}

constexpr int kAdvanceThreads = 256;

// The features of the first `length` nodes of a path are those that a head runs next. Called by a
// warp.
__device__ void keep_features(const AdvanceParams& params, int sequence, int length, int lane) {
  const PendingFeatures& pending = params.pending;
  if (pending.counts == nullptr || pending.counts[sequence] < 0) return;
  for (int i = lane; i < length; i += 32)
    pending.rows[sequence * pending.capacity + i] =
        params.first_rows[sequence] + params.paths.nodes[sequence * params.paths.capacity + i];
  __syncwarp();  // all have seen that the sequence keeps features
  if (lane == 0) pending.counts[sequence] = length;
}

// grid: [1]; a warp advances one sequence, then the block decides whether the loop turns again.
__global__ void __launch_bounds__(kAdvanceThreads) advance_sequences(AdvanceParams params) {
  wait_for_previous();
  let_next_start();
  __shared__ int stop;
  const int lane = static_cast<int>(threadIdx.x % 32);
  const int turn = *params.turn;
  if (threadIdx.x == 0) stop = 0;
  __syncthreads();
  for (int sequence = static_cast<int>(threadIdx.x / 32); sequence < params.num_sequences;
       sequence += kAdvanceThreads / 32) {
    const int path_length = params.paths.lengths[sequence];
    int length = path_length;
    const std::int32_t* const tokens = params.paths.tokens + sequence * params.paths.capacity;
    const std::int32_t* const nodes = params.paths.nodes + sequence * params.paths.capacity;
    const SequenceLimits limits = params.limits[sequence];
    const SequenceState state = params.sequences[sequence];
    bool ended = params.paths.status[sequence] != RowStatus::ok;
    // The first token that ends the output is its last.
    int end = INT_MAX;
    for (int i = lane; i < length; i += 32) {
      bool ends = state.num_output + i + 1 >= limits.max_output ||
                  state.length + i + 1 >= limits.max_length;
      for (int j = 0; j < limits.num_end_tokens; ++j) ends |= tokens[i] == limits.end_tokens[j];
      if (ends) end = min(end, i);
    }
    end = __reduce_min_sync(kFullWarp, end);
    if (end < length) {
      length = end + 1;
      ended = true;
    }
    std::uint32_t* const counts =
        params.token_counts != nullptr ? params.token_counts[sequence] : nullptr;
    TurnEntry* const entry = params.ring + turn * params.ring_stride + sequence;
    for (int i = lane; i < length; i += 32) {
      params
          .history[static_cast<std::int64_t>(sequence) * params.history_stride + state.length + i] =
          tokens[i];
      if (counts != nullptr) atomicAdd(&counts[tokens[i]], 1u);
      if (i < TurnEntry::kMostTokens) entry->tokens[i] = tokens[i];
    }
    if (lane == 0) {
      // The draft's KV is there as far as the accepted path was run; never of the bonus token.
      int drafted = state.length;
      if (params.draft_slots != nullptr)
        for (int i = 1;
             i < length && params.draft_slots[params.first_rows[sequence] + nodes[i]] >= 0; ++i)
          drafted = state.length + i;
      if (params.draft_lengths != nullptr) params.draft_lengths[sequence] = drafted;
      params.paths.lengths[sequence] = length;
      params.sequences[sequence] = {state.length + length, state.num_output + length};
      const auto fault = static_cast<int>(params.paths.status[sequence]);
      entry->num_tokens = static_cast<std::int16_t>(fault != 0 ? -fault : length);
      entry->num_drafted = static_cast<std::int16_t>(params.tree_sizes[sequence] - 1);
      entry->num_accepted = max(0, min(length, path_length - 1));
      if (ended || turn >= limits.last_turn ||
          state.length + length + params.slots_per_turn > limits.reserved)
        atomicExch(&stop, 1);
    }
    keep_features(params, sequence, min(length, params.pending.capacity), lane);
    __syncwarp();
    __threadfence_system();
    if (lane == 0) *static_cast<volatile std::int32_t*>(&entry->turn) = turn + 1;
  }
  __syncthreads();
  if (threadIdx.x != 0) return;
  *params.turn = turn + 1;
  const bool go_on = stop == 0 && *params.leave == 0;
  if (params.in_loop) cudaGraphSetConditional(params.condition, go_on ? 1 : 0);
}

}  // namespace

cudaError_t commit_kv(const CommitKvParams& params, const Launch& to) {
  const int halves = 2 * (params.target.num_layers + params.draft.num_layers);
  return launch(to, &move_accepted,
                dim3(static_cast<unsigned>(halves), static_cast<unsigned>(params.num_sequences)),
                kCommitThreads, 0, params);
}

cudaError_t advance(const AdvanceParams& params, const Launch& to) {
  return launch(to, &advance_sequences, dim3(1), kAdvanceThreads, 0, params);
}

}  // namespace specdec::kernels::cuda
