#pragma once

#include <cstddef>
#include <cstdint>

#include "engine/device_loop.h"
#include "specdec/error.h"
#include "specdec/sampling_options.h"
#include "verify/accepted_path.h"

namespace specdec {

/// Why the token at `position` of a sequence could not be drawn.
Error error_of(kernels::cuda::RowStatus status, int position);

/// What path_logprobs() has left of some emitted tokens, in the host's memory.
struct TokenLogprobs {
  const float* logprobs = nullptr;           // [tokens]
  const std::int32_t* top_tokens = nullptr;  // [tokens, most]
  const float* top_logprobs = nullptr;       // [tokens, most]
  int most = 0;

  /// Gives `token` what `options` ask for, from place `at`.
  void fill(std::size_t at, const SamplingOptions& options, OutputToken& token) const;
};

/// What sequence `index` emitted in a turn, as verify() would have it. Which nodes they were only
/// the device knows; their number is right.
AcceptedPath path_of(const DeviceLoop::Turn& turn, std::size_t index,
                     const SamplingOptions& options);

}  // namespace specdec
