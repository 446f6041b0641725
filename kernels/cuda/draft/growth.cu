#include "kernels/cuda/draft/growth.h"

#include "kernels/cuda/device.cuh"
#include "kernels/cuda/draft/growth.cuh"
#include "kernels/cuda/step/target_rows.cuh"
#include "kernels/sampling/gumbel.h"
#include "kernels/sampling/row_numbers.h"

namespace specdec::kernels::cuda {
namespace {

constexpr int kGrowThreads = 256;
constexpr int kMostTopk = kMostCandidates;

// How many of survival[0, count) come before place i: better ones, and equal ones in front of it.
__device__ int stable_rank(const float* survival, int count, int i) {
  int rank = 0;
  for (int j = 0; j < count; ++j)
    rank += survival[j] > survival[i] || (survival[j] == survival[i] && j < i) ? 1 : 0;
  return rank;
}

// ModelDrafter::add_children and choose_frontier, by a block.
__device__ void grow_tree(const GrowParams& params, int depth) {
  __shared__ int begins[kMostTopk + 1];  // first child of each frontier node
  __shared__ float normalisers[kMostTopk];
  __shared__ int parents[kMostTopk];
  const DraftGrowth& growth = params.growth;
  const int sequence = static_cast<int>(blockIdx.x);
  const int first = sequence * growth.capacity;
  const int row = sequence * growth.topk;
  const int frontier = depth < params.max_depths[sequence] ? growth.frontier_sizes[sequence] : 0;
  const int thread = static_cast<int>(threadIdx.x);
  const int level_begin = growth.counts[sequence];
  const bool greedy = !(params.options[sequence].inverse_temperature > 0);
  if (thread == 0) {
    begins[0] = level_begin;
    for (int i = 0; i < frontier; ++i)
      begins[i + 1] = min(begins[i] + params.candidate_counts[row + i], growth.capacity);
  }
  if (thread < frontier) {
    parents[thread] = growth.node_of_row[row + thread];
    // The noise has been drawn already: a softmax over the perturbed scores ranks what is left to
    // chance.
    const float* const scores = params.candidate_scores + (row + thread) * growth.topk;
    float normaliser = 0;
    if (!greedy) {
      for (int i = 0; i < params.candidate_counts[row + thread]; ++i)
        normaliser += row_math::exp_one(scores[i] - scores[0]);
      normaliser = scores[0] + static_cast<float>(fixed_log(normaliser));
    }
    normalisers[thread] = normaliser;
  }
  __syncthreads();
  for (int i = thread; i < frontier * growth.topk; i += kGrowThreads) {
    const int from = i / growth.topk;
    const int child = i % growth.topk;
    const int node = begins[from] + child;
    if (node >= begins[from + 1]) continue;
    const int candidate = (row + from) * growth.topk + child;
    growth.tokens[first + node] = params.candidate_tokens[candidate];
    growth.parents[first + node] = parents[from];
    growth.depths[first + node] = depth + 1;
    growth.slots[first + node] = -1;
    growth.survival[first + node] =
        growth.survival[first + parents[from]] +
        fminf(0.0f, params.candidate_scores[candidate] - normalisers[from]);
  }
  __syncthreads();

  const int count = frontier > 0 ? begins[frontier] : level_begin;
  const int grown = count - level_begin;
  const int next = min(grown, growth.topk);
  const bool runs = depth + 1 < params.max_depths[sequence];
  for (int i = thread; i < growth.topk; i += kGrowThreads)
    growth.sequence_of_row[row + i] = runs && i < next ? sequence : -1;
  for (int i = thread; i < grown; i += kGrowThreads) {
    const int place =
        grown <= growth.topk ? i : stable_rank(growth.survival + first + level_begin, grown, i);
    if (place >= growth.topk) continue;
    growth.node_of_row[row + place] = level_begin + i;
    if (runs) growth.slots[first + level_begin + i] = growth.next_slots[sequence] + place;
  }
  __syncthreads();
  if (thread != 0) return;
  growth.counts[sequence] = count;
  growth.frontier_sizes[sequence] = runs ? next : 0;
  if (runs) growth.next_slots[sequence] += next;
}

// grid: [sequences]
__global__ void __launch_bounds__(kGrowThreads)
    grow_trees(GrowParams params, int depth, LevelRows next) {
  wait_for_previous();
  let_next_start();
  grow_tree(params, depth);
  __syncthreads();
  const int sequence = static_cast<int>(blockIdx.x);
  if (threadIdx.x < 32)
    fill_level(params.growth, next, sequence, params.sequences[sequence].length);
}

// grid: [sequences]; grow_tree() of the last level, then ModelDrafter::finish. Survival never rises
// along a path and ties keep the parent, so the best nodes are closed under parents.
// shared: float[capacity] survival, int[capacity] new places.
__global__ void __launch_bounds__(kGrowThreads)
    finish_trees(GrowParams params, int depth, GrownTrees grown) {
  wait_for_previous();
  let_next_start();
  grow_tree(params, depth);
  __syncthreads();
  extern __shared__ int shared[];
  const DraftGrowth& growth = params.growth;
  const TreeBuffers& trees = grown.trees;
  std::int32_t* const draft_slots = grown.draft_slots;
  auto* const survival = reinterpret_cast<float*>(shared);
  int* const places = shared + growth.capacity;
  const int sequence = static_cast<int>(blockIdx.x);
  const int first = sequence * growth.capacity;
  const int out = sequence * trees.rows_per_sequence;
  const int count = growth.counts[sequence];
  const bool there = params.max_depths[sequence] >= 0;
  const int most = max(0, min(params.max_nodes[sequence], trees.rows_per_sequence - 1));
  const int thread = static_cast<int>(threadIdx.x);
  for (int node = thread; node < count; node += kGrowThreads)
    survival[node] = growth.survival[first + node];
  __syncthreads();
  for (int node = thread; node < count; node += kGrowThreads)
    places[node] =
        node == 0 || count - 1 <= most || stable_rank(survival + 1, count - 1, node - 1) < most ? 1
                                                                                                : 0;
  __syncthreads();
  if (thread < 32) {  // kept nodes keep their order
    int next = 0;
    for (int begin = 0; begin < count; begin += 32) {
      const int node = begin + thread;
      const bool kept = node < count && places[node] != 0;
      const unsigned all = __ballot_sync(kFullWarp, kept);
      if (node < count) places[node] = kept ? next + __popc(all & ((1u << thread) - 1)) : -1;
      next += __popc(all);
    }
    if (thread == 0) {
      trees.first_rows[sequence] = out;
      trees.sizes[sequence] = there ? next : 0;
    }
  }
  __syncthreads();
  const int size = min(count, most + 1);
  for (int row = thread; row < trees.rows_per_sequence; row += kGrowThreads) {
    trees.sequence_of_row[out + row] = there && row < size ? sequence : -1;
    if (row >= size) {
      trees.tokens[out + row] = 0;
      trees.parents[out + row] = -1;
      trees.depths[out + row] = 0;
      draft_slots[out + row] = -1;
    }
  }
  for (int node = thread; node < count; node += kGrowThreads) {
    const int row = places[node];
    if (row < 0) continue;
    const int parent = growth.parents[first + node];
    trees.tokens[out + row] = growth.tokens[first + node];
    trees.parents[out + row] = parent < 0 ? -1 : places[parent];
    trees.depths[out + row] = growth.depths[first + node];
    draft_slots[out + row] = growth.slots[first + node];
  }
  __syncthreads();
  fill_target_rows(trees, grown.target, sequence, params.sequences[sequence].length - 1);
}

}  // namespace

cudaError_t grow_level(const GrowParams& params, int depth, const LevelRows& next,
                       const Launch& to) {
  return launch(to, &grow_trees, dim3(static_cast<unsigned>(params.growth.num_sequences)),
                kGrowThreads, 0, params, depth, next);
}

cudaError_t finish_growth(const GrowParams& params, int depth, const GrownTrees& grown,
                          const Launch& to) {
  const cudaError_t status = allow_shared(to, &finish_trees);
  if (status != cudaSuccess) return status;
  return launch(to, &finish_trees, dim3(static_cast<unsigned>(params.growth.num_sequences)),
                kGrowThreads, static_cast<std::size_t>(params.growth.capacity) * 2 * sizeof(int),
                params, depth, grown);
}

}  // namespace specdec::kernels::cuda
