#include "kernels/cuda/draft/chain.h"

#include "kernels/cuda/device.cuh"
#include "kernels/cuda/draft/growth.cuh"
#include "kernels/cuda/operand.h"
#include "kernels/cuda/sampling/row_values.cuh"

namespace specdec::kernels::cuda {
namespace {

constexpr int kChainWarps = 32;  // a chunk each
constexpr int kChainThreads = kChainWarps * static_cast<int>(kWarp);

// Where a sequence's chain stands before the level's token.
struct Chain {
  bool grows;  // the level has run a row of it
  int count;   // nodes
  int length;  // committed tokens
  int max_depth;

  __device__ Chain(const GrowParams& params, int sequence)
      : grows(params.growth.sequence_of_row[sequence] >= 0),
        count(params.growth.counts[sequence]),
        length(params.sequences[sequence].length),
        max_depth(params.max_depths[sequence]) {}
};

// The best of the row into `best` in warp 0 of the block that returns true: the last one to come.
__device__ bool reduce_row(const ChainLevelParams& params, int row, const LaneValues& values,
                           int chunk, unsigned long long& best, std::uint32_t& flags) {
  __shared__ unsigned long long bests[kChainWarps];
  __shared__ bool last;
  const unsigned lane = threadIdx.x % kWarp;
  const int warp = static_cast<int>(threadIdx.x / kWarp);
  const unsigned long long mine = chunk_best(values, chunk, lane);
  bool nan = false;
#pragma unroll
  for (int i = 0; i < kLaneTokens; ++i) nan |= values.at[i] != values.at[i];
  if (lane == 0) bests[warp] = mine;
  flags = __syncthreads_or(nan) != 0 ? RowState::kRawNan : 0;
  if (warp != 0) return false;
  best = bests[lane];
#pragma unroll
  for (unsigned offset = kWarp / 2; offset > 0; offset /= 2)
    best = max(best, __shfl_xor_sync(kFullWarp, best, offset));
  if (gridDim.x == 1) return true;
  RowState& state = params.states[row];
  if (lane == 0) {
    atomicMax(&state.best, best);
    if (flags != 0) atomicOr(&state.flags, flags);
    __threadfence();
    last = atomicAdd(&state.arrived, 1u) == gridDim.x - 1;
    __threadfence();
  }
  __syncwarp();
  if (!last) return false;
  if (lane == 0) {
    best = *static_cast<volatile unsigned long long*>(&state.best);
    flags = *static_cast<volatile std::uint32_t*>(&state.flags);
    state = RowState{};
  }
  best = __shfl_sync(kFullWarp, best, 0);
  flags = __shfl_sync(kFullWarp, flags, 0);
  return true;
}

// Adds the level's token to the chain, if there is one, and moves the frontier. Called by a warp.
// Returns the chain's nodes.
__device__ int extend(const ChainLevelParams& params, int sequence, const Chain& chain,
                      unsigned long long best, std::uint32_t flags) {
  const DraftGrowth& growth = params.grow.growth;
  RowState state;
  state.best = best;
  state.flags = flags;
  const bool grown = chain.grows && status_of(state, false) == RowStatus::ok;
  const bool runs = grown && params.depth + 1 < chain.max_depth;
  const int count = chain.count + (grown ? 1 : 0);
  if (threadIdx.x == 0) {
    if (grown) {
      const int node = sequence * growth.capacity + chain.count;
      const std::int32_t token = token_of(best);
      growth.tokens[node] = params.tokens == nullptr ? token : params.tokens[token];
      growth.parents[node] = chain.count - 1;
      growth.depths[node] = chain.count;
      growth.slots[node] = runs ? chain.length + params.depth : -1;
      growth.survival[node] = 0;
      growth.node_of_row[sequence] = chain.count;
    }
    growth.counts[sequence] = count;
    growth.sequence_of_row[sequence] = runs ? sequence : -1;
    growth.frontier_sizes[sequence] = runs ? 1 : 0;
  }
  __syncwarp();
  return count;
}

// finish_growth() of a chain of `count` nodes: the first ones are the best. Called by a warp.
__device__ void hand_over(const GrowParams& params, const GrownTrees& grown, int sequence,
                          const Chain& chain, int count) {
  const DraftGrowth& growth = params.growth;
  const TreeBuffers& trees = grown.trees;
  const DeviceBatch& batch = grown.target.batch;
  const int first = sequence * growth.capacity;
  const int out = sequence * trees.rows_per_sequence;
  const int most = max(0, min(params.max_nodes[sequence], trees.rows_per_sequence - 1));
  const int size = chain.max_depth >= 0 ? min(count, most + 1) : 0;
  const int root_slot = chain.length - 1;
  if (threadIdx.x == 0) {
    trees.first_rows[sequence] = out;
    trees.sizes[sequence] = size;
    batch.context_lens[sequence] = size > 0 ? root_slot : 0;
  }
  for (int node = static_cast<int>(threadIdx.x); node < trees.rows_per_sequence;
       node += static_cast<int>(kWarp)) {
    const int row = out + node;
    const bool there = node < size;
    const std::int32_t token = there ? growth.tokens[first + node] : 0;
    trees.sequence_of_row[row] = there ? sequence : -1;
    trees.tokens[row] = token;
    trees.parents[row] = there ? node - 1 : -1;
    trees.depths[row] = there ? node : 0;
    grown.draft_slots[row] = there ? growth.slots[first + node] : -1;
    if (there)
      write_row(batch, row, token, root_slot + node, root_slot + node);
    else
      write_padding(batch, row);
  }
}

// grid: [ceil(chunks / kChainWarps), sequences]
template <class Finish>
__device__ void run_level(const ChainLevelParams& params, const Finish& finish) {
  const int sequence = static_cast<int>(blockIdx.y);
  const int chunk = static_cast<int>(blockIdx.x * kChainWarps + threadIdx.x / kWarp);
  const float* const logits =
      params.logits + static_cast<std::size_t>(sequence) * static_cast<std::size_t>(params.vocab);
  // Asked for before anything that waits.
  const LaneValues values = load_lane(logits, params.vocab, chunk, threadIdx.x % kWarp);
  const Chain chain(params.grow, sequence);
  unsigned long long best = 0;
  std::uint32_t flags = 0;
  if (chain.grows ? !reduce_row(params, sequence, values, chunk, best, flags)
                  : blockIdx.x != 0 || threadIdx.x >= kWarp)
    return;
  finish(sequence, chain, extend(params, sequence, chain, best, flags));
}

__global__ void __launch_bounds__(kChainThreads)
    chain_level(ChainLevelParams params, LevelRows next) {
  wait_for_previous();
  let_next_start();
  run_level(params, [&](int sequence, const Chain& chain, int) {
    fill_level(params.grow.growth, next, sequence, chain.length);
  });
}

__global__ void __launch_bounds__(kChainThreads)
    last_chain_level(ChainLevelParams params, GrownTrees grown) {
  wait_for_previous();
  let_next_start();
  run_level(params, [&](int sequence, const Chain& chain, int count) {
    hand_over(params.grow, grown, sequence, chain, count);
  });
}

dim3 grid_of(const ChainLevelParams& params) {
  return dim3(static_cast<unsigned>(ceil_div(num_chunks(params.vocab), kChainWarps)),
              static_cast<unsigned>(params.grow.growth.num_sequences));
}

}  // namespace

cudaError_t grow_chains(const ChainLevelParams& params, const LevelRows& next, const Launch& to) {
  if (params.grow.growth.topk != 1) return cudaErrorInvalidValue;
  return launch(to, &chain_level, grid_of(params), kChainThreads, 0, params, next);
}

cudaError_t finish_chains(const ChainLevelParams& params, const GrownTrees& grown,
                          const Launch& to) {
  if (params.grow.growth.topk != 1) return cudaErrorInvalidValue;
  return launch(to, &last_chain_level, grid_of(params), kChainThreads, 0, params, grown);
}

}  // namespace specdec::kernels::cuda
