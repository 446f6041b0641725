#pragma once

#include <cstddef>

#include "engine/device_loop.h"
#include "specdec/error.h"
#include "specdec/sampling_options.h"
#include "verify/accepted_path.h"

namespace specdec {

/// Why the token at `position` of a sequence could not be drawn.
Error error_of(kernels::cuda::RowStatus status, int position);

/// What sequence `index` emitted in a turn, as verify() would have it. Which nodes they were only
/// the device knows; their number is right.
AcceptedPath path_of(const DeviceLoop::Turn& turn, std::size_t index,
                     const SamplingOptions& options);

}  // namespace specdec
