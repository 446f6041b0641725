#pragma once

#include "kernels/cuda/launch.h"
#include "kernels/cuda/sampling/params.h"

namespace specdec::kernels::cuda {

/// The accepted path of each sequence, as AcceptedPath has it: tokens[i] follows nodes[i].
struct AcceptedPaths {
  std::int32_t capacity = 0;        // nodes of the longest path: the deepest tree + 1
  std::int32_t* lengths = nullptr;  // [sequences] 0: no tree, or a fault
  std::int32_t* nodes = nullptr;    // [sequences, capacity] nodes[0] = 0
  std::int32_t* tokens = nullptr;   // [sequences, capacity] the last one is the bonus token
  RowStatus* status = nullptr;      // [sequences] the first fault met on the walk
};

/// Draws the token of every row and walks each tree along them: the coupled rule, and every rule at
/// temperature 0. One kernel when the whole batch is greedy; else scan, (nucleus masses,)
/// selection, (dense noise,) walk.
cudaError_t sample_and_accept(const SampleRowsParams& params, const SamplingNeeds& needs,
                              const AcceptedPaths& paths, const Launch& to);

/// log-probabilities of emitted tokens under the raw logits.
struct PathLogprobsParams {
  SampleRowsParams rows;
  AcceptedPaths paths;
  std::int32_t most = 0;      // top entries per token that the buffers hold, <= kMostLogprobs
  float* logprobs = nullptr;  // out [sequences, capacity]
  std::int32_t* top_tokens = nullptr;  // out [sequences, capacity, most]
  float* top_logprobs = nullptr;       // out [sequences, capacity, most]
  // In a loop the three are [turns, turn_entries] (times most): *turn picks the part to fill.
  const std::int32_t* turn = nullptr;  // [1]; null: there is one part
  std::int32_t turn_entries = 0;       // at least sequences * capacity
};
constexpr int kMostLogprobs = 64;

/// Fills the log-probabilities that the sequences' options ask for, after acceptance. The outputs
/// may lie in pinned memory: they are there before anything that a later kernel publishes.
cudaError_t path_logprobs(const PathLogprobsParams& params, const Launch& to);

}  // namespace specdec::kernels::cuda
