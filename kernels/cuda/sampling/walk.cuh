#pragma once

#include "kernels/cuda/sampling/accept.h"
#include "kernels/cuda/sampling/row_values.cuh"

namespace specdec::kernels::cuda {

// A tree of at most this many nodes is walked in shared memory.
constexpr int kSharedNodes = 64;

struct SharedTree {
  std::int32_t sampled[kSharedNodes];
  std::int32_t tokens[kSharedNodes];
  std::int32_t parents[kSharedNodes];
  RowStatus status[kSharedNodes];
};

/// The coupled walk of one sequence by one warp (src/verify/coupled.cc). `sampled_at(row)` is the
/// target's token there.
template <typename SampledAt>
__device__ void walk_coupled(const TreeRows& tree, int sequence, const RowStatus* status,
                             const AcceptedPaths& paths, unsigned lane, SharedTree& shared,
                             const SampledAt& sampled_at) {
  const int first = tree.first_rows[sequence];
  const int size = tree.sizes[sequence];
  const bool small = size <= kSharedNodes;
  if (small) {
    for (int node = static_cast<int>(lane); node < size; node += static_cast<int>(kWarp)) {
      shared.sampled[node] = sampled_at(first + node);
      shared.tokens[node] = tree.tokens[first + node];
      shared.parents[node] = tree.parents[first + node];
      shared.status[node] = status[first + node];
    }
    __syncwarp();
  }
  std::int32_t* const path_nodes = paths.nodes + sequence * paths.capacity;
  std::int32_t* const path_tokens = paths.tokens + sequence * paths.capacity;
  RowStatus fault = RowStatus::ok;
  int length = 0;
  int node = size > 0 ? 0 : -1;
  while (node >= 0 && length < paths.capacity) {
    fault = small ? shared.status[node] : status[first + node];
    if (fault != RowStatus::ok) {
      length = 0;
      break;
    }
    const std::int32_t token = small ? shared.sampled[node] : sampled_at(first + node);
    if (lane == 0) {
      path_nodes[length] = node;
      path_tokens[length] = token;
    }
    ++length;
    int child = -1;
    for (int begin = node + 1; begin < size && child < 0; begin += static_cast<int>(kWarp)) {
      const int other = begin + static_cast<int>(lane);
      bool match = false;
      if (other < size)
        match = small ? shared.parents[other] == node && shared.tokens[other] == token
                      : tree.parents[first + other] == node && tree.tokens[first + other] == token;
      const unsigned found = __ballot_sync(kFullWarp, match);
      if (found != 0) child = begin + __ffs(static_cast<int>(found)) - 1;
    }
    node = child;
  }
  if (lane == 0) {
    paths.lengths[sequence] = length;
    paths.status[sequence] = fault;
  }
  __syncwarp();
}

}  // namespace specdec::kernels::cuda
