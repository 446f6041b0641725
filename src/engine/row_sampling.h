#pragma once

#include <cstdint>
#include <vector>

#include "kernels/cuda/sampling/params.h"
#include "sampling/sampler.h"
#include "specdec/sampling_options.h"

namespace specdec {

// SamplingOptions as the device reads them.

inline bool penalises(const SamplingOptions& options) {
  return options.repetition_penalty != 1 || options.presence_penalty != 0 ||
         options.frequency_penalty != 0;
}

/// All but the device pointers and their counts.
inline kernels::cuda::RowSampling row_sampling(const SamplingOptions& options, std::uint64_t seed) {
  kernels::cuda::RowSampling sampling;
  sampling.seed = seed;
  if (options.temperature > 0)
    sampling.inverse_temperature = 1.0 / static_cast<double>(options.temperature);
  sampling.top_p = options.top_p;
  sampling.min_p = options.min_p;
  sampling.top_k = options.top_k;
  sampling.logprobs = options.logprobs;
  sampling.repetition_penalty = options.repetition_penalty;
  sampling.presence_penalty = options.presence_penalty;
  sampling.frequency_penalty = options.frequency_penalty;
  sampling.min_tokens = options.min_tokens;
  return sampling;
}

/// RowSampling::token_counts.
inline std::vector<std::uint32_t> token_counts(const PenaltyState& penalties, int vocab_size) {
  std::vector<std::uint32_t> counts(static_cast<std::size_t>(vocab_size));
  for (const auto& [token, count] : penalties.prompt_counts())
    counts[static_cast<std::size_t>(token)] |= kernels::cuda::RowSampling::kInPrompt;
  for (const auto& [token, count] : penalties.output_counts())
    counts[static_cast<std::size_t>(token)] += static_cast<std::uint32_t>(count);
  return counts;
}

/// Adds the stages that a sequence with these options needs.
inline void add_needs(const SamplingOptions& options, int vocab_size,
                      kernels::cuda::SamplingNeeds& needs) {
  needs.edits |= penalises(options) || !options.logit_bias.empty() || options.min_tokens > 0;
  if (options.temperature <= 0) return;
  const bool top_k = options.top_k > 0 && options.top_k < vocab_size;
  needs.sampled = true;
  needs.nucleus |= options.top_p < 1 && !top_k;
  needs.dense |= !top_k || options.top_k > kernels::cuda::kMostSelected;
}

}  // namespace specdec
