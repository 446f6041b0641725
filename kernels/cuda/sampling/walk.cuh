#pragma once

#include "kernels/cuda/sampling/accept.h"
#include "kernels/cuda/sampling/row_values.cuh"

namespace specdec::kernels::cuda {

constexpr int kWalkThreads = 128;
constexpr int kSharedNodes = 256;  // a larger tree's child pointers are looked for node by node

struct SharedTree {
  std::int32_t sampled[kSharedNodes];
  std::int32_t accepted_child[kSharedNodes];  // the first child that holds the sampled token
  RowStatus status[kSharedNodes];

  __device__ void set(int node, std::int32_t token, RowStatus row_status) {
    sampled[node] = token;
    status[node] = row_status;
    accepted_child[node] = INT_MAX;
  }
};

/// A sequence's tree and a thread's share of its nodes. The tree lies there before the pass whose
/// rows are sampled, so all this may be loaded before the dependency wait.
struct WalkTree {
  static constexpr int kOwn = kSharedNodes / kWalkThreads;
  int first;  // row of the root
  int size;
  std::int32_t parents[kOwn];
  std::int32_t tokens[kOwn];

  __device__ WalkTree(const TreeRows& tree, int sequence)
      : first(tree.first_rows[sequence]), size(tree.sizes[sequence]) {
#pragma unroll
    for (int i = 0; i < kOwn; ++i) {
      const int at = node(i);
      parents[i] = small() && at < size ? tree.parents[first + at] : -1;
      tokens[i] = small() && at < size ? tree.tokens[first + at] : -1;
    }
  }
  __device__ bool small() const { return size <= kSharedNodes; }
  /// The thread's i-th node, of a small tree.
  __device__ int node(int i) const { return static_cast<int>(threadIdx.x) + i * kWalkThreads; }
};

/// What every row has drawn, into `shared`.
__device__ inline void fill_shared(const SampleRowsParams& params, const WalkTree& own,
                                   SharedTree& shared) {
  for (int node = static_cast<int>(threadIdx.x); own.small() && node < own.size;
       node += static_cast<int>(blockDim.x))
    shared.set(node, params.tokens[own.first + node], params.status[own.first + node]);
}

/// The coupled walk of one sequence by a block of at least kWalkThreads (src/verify/coupled.cc),
/// along the target's token at each row: `shared` has them where the tree is small, else
/// params.tokens.
__device__ inline void walk_coupled(const SampleRowsParams& params, int sequence,
                                    const WalkTree& own, const AcceptedPaths& paths,
                                    SharedTree& shared) {
  const TreeRows& tree = params.tree;
  const int first = own.first;
  const int size = own.size;
  const bool small = own.small();
  const int thread = static_cast<int>(threadIdx.x);
  __syncthreads();
  if (thread < kWalkThreads)
#pragma unroll
    for (int i = 0; i < WalkTree::kOwn; ++i)
      if (own.parents[i] >= 0 && own.tokens[i] == shared.sampled[own.parents[i]])
        atomicMin(&shared.accepted_child[own.parents[i]], own.node(i));
  __syncthreads();
  if (thread >= static_cast<int>(kWarp)) return;
  std::int32_t* const path_nodes = paths.nodes + sequence * paths.capacity;
  std::int32_t* const path_tokens = paths.tokens + sequence * paths.capacity;
  RowStatus fault = RowStatus::ok;
  int length = 0;
  int node = size > 0 ? 0 : INT_MAX;
  while (node != INT_MAX && length < paths.capacity) {
    fault = small ? shared.status[node] : params.status[first + node];
    if (fault != RowStatus::ok) {
      length = 0;
      break;
    }
    const std::int32_t token = small ? shared.sampled[node] : params.tokens[first + node];
    if (thread == 0) {
      path_nodes[length] = node;
      path_tokens[length] = token;
    }
    ++length;
    int child = small ? shared.accepted_child[node] : INT_MAX;
    for (int begin = node + 1; !small && begin < size && child == INT_MAX;
         begin += static_cast<int>(kWarp)) {
      const int other = begin + thread;
      const bool match = other < size && tree.parents[first + other] == node &&
                         tree.tokens[first + other] == token;
      const unsigned found = __ballot_sync(kFullWarp, match);
      if (found != 0) child = begin + __ffs(static_cast<int>(found)) - 1;
    }
    node = child;
  }
  if (thread == 0) {
    paths.lengths[sequence] = length;
    paths.status[sequence] = fault;
  }
}

}  // namespace specdec::kernels::cuda
