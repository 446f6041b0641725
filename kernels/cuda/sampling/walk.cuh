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
};

/// The coupled walk of one sequence by a block (src/verify/coupled.cc), along params.tokens, the
/// target's token at each row.
__device__ inline void walk_coupled(const SampleRowsParams& params, int sequence,
                                    const AcceptedPaths& paths, SharedTree& shared) {
  const TreeRows& tree = params.tree;
  const int first = tree.first_rows[sequence];
  const int size = tree.sizes[sequence];
  const bool small = size <= kSharedNodes;
  const int thread = static_cast<int>(threadIdx.x);
  for (int node = thread; small && node < size; node += static_cast<int>(blockDim.x)) {
    shared.sampled[node] = params.tokens[first + node];
    shared.status[node] = params.status[first + node];
    shared.accepted_child[node] = INT_MAX;
  }
  __syncthreads();
  for (int node = thread + 1; small && node < size; node += static_cast<int>(blockDim.x)) {
    const int parent = tree.parents[first + node];
    if (tree.tokens[first + node] == shared.sampled[parent])
      atomicMin(&shared.accepted_child[parent], node);
  }
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
