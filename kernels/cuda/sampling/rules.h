#pragma once

#include "kernels/cuda/launch.h"
#include "kernels/cuda/sampling/accept.h"

namespace specdec::kernels::cuda {

/// The acceptance rules that judge against draft probabilities (src/verify).
enum class SampledRule : std::int32_t { rejection, block, traversal };
/// How children were chosen, as DraftSampling.
enum class DrawnChildren : std::int32_t { deterministic, with_replacement, without_replacement };

constexpr int kMostSiblings = 64;  // children of one node
constexpr int kMostLevels = 64;    // nodes of the longest path

struct SampledRuleParams {
  SampleRowsParams rows;
  SampledRule rule = SampledRule::rejection;
  DrawnChildren drawn = DrawnChildren::deterministic;
  const float* draft_probs = nullptr;  // [rows, vocab] what a node's children were drawn from
  float* probabilities = nullptr;      // scratch [rows, vocab] the target's
  double* weights = nullptr;           // scratch [sequences, levels, vocab]
  std::int32_t levels = 1;             // of `weights`: the deepest tree + 1 for traversal, else 1
  AcceptedPaths paths;
};

/// The path that verify() accepts with the same rule, draws included; the coupled walk for
/// sequences at temperature 0. Block verification reads a chain.
cudaError_t accept_by_rule(const SampledRuleParams& params, const SamplingNeeds& needs,
                           const Launch& to);

}  // namespace specdec::kernels::cuda
