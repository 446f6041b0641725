#include "kernels/cuda/draft/ngram.h"

#include "kernels/cuda/device.cuh"

namespace specdec::kernels::cuda {
namespace {

constexpr int kNgramThreads = 512;

// grid: [sequences]; a thread looks at every kNgramThreads-th end of an occurrence. The best is the
// longest match, then the latest.
__global__ void __launch_bounds__(kNgramThreads) lookup_ngram(NgramParams params) {
  wait_for_previous();
  let_next_start();
  __shared__ unsigned long long best;
  const int sequence = static_cast<int>(blockIdx.x);
  const int size = params.sequences[sequence].length;
  const int first = sequence * params.trees.rows_per_sequence;
  int most = params.max_tokens[sequence];
  if (params.limits != nullptr && most > 0) {
    const SequenceLimits limits = params.limits[sequence];
    const int left = min(limits.max_output - params.sequences[sequence].num_output - 1,
                         limits.max_length - size);
    most = max(0, min(most, left));
  }
  const std::int32_t* const tokens =
      params.history + static_cast<std::int64_t>(sequence) * params.history_stride;
  if (threadIdx.x == 0) best = 0;
  __syncthreads();
  unsigned long long mine = 0;
  if (most > 0) {
    for (int end = size - 1 - static_cast<int>(threadIdx.x); end >= params.min_match;
         end -= kNgramThreads) {
      const int longest = min(params.max_match, end);
      int match = 0;
      while (match < longest && tokens[end - 1 - match] == tokens[size - 1 - match]) ++match;
      if (match < params.min_match) continue;
      const auto found =
          (static_cast<unsigned long long>(match) << 32) | static_cast<unsigned long long>(end);
      mine = found > mine ? found : mine;
    }
  }
  if (mine != 0) atomicMax(&best, mine);
  __syncthreads();
  const int end = static_cast<int>(best & 0xFFFFFFFFu);
  const int drafted =
      best == 0 ? 0 : min(min(most, size - end), params.trees.rows_per_sequence - 1);
  const int nodes = most < 0 ? 0 : 1 + drafted;
  for (int node = static_cast<int>(threadIdx.x); node < params.trees.rows_per_sequence;
       node += kNgramThreads) {
    const bool there = node < nodes;
    params.trees.sequence_of_row[first + node] = there ? sequence : -1;
    params.trees.parents[first + node] = node - 1;
    params.trees.depths[first + node] = node;
    params.trees.tokens[first + node] = !there      ? 0
                                        : node == 0 ? tokens[size - 1]
                                                    : tokens[end + node - 1];
  }
  if (threadIdx.x == 0) {
    params.trees.first_rows[sequence] = first;
    params.trees.sizes[sequence] = nodes;
  }
}

}  // namespace

cudaError_t propose_ngram(const NgramParams& params, const Launch& to) {
  return launch(to, &lookup_ngram, dim3(static_cast<unsigned>(params.trees.num_sequences)),
                kNgramThreads, 0, params);
}

}  // namespace specdec::kernels::cuda
