#pragma once

#include <span>

#include "engine/backend/backend.h"

namespace specdec {

/// Scratch for `max_rows` rows of `width` floats, in whole tiles: a backend may lay activations out
/// in tiles of 8 by 32. Throws Error(out_of_memory).
DeviceBuffer allocate_rows(Backend& backend, int max_rows, int width);

/// Runs norm_head into `buffer`, which grows as needed, and returns where the logits [num_outputs,
/// head rows] lie in it. params.logits is set here.
const float* make_logits(Backend& backend, kernels::NormHeadParams params, DeviceBuffer& buffer,
                         Stream stream);
/// The same, and returns them in host memory, valid until the next call.
std::span<const float> read_logits(Backend& backend, kernels::NormHeadParams params,
                                   DeviceBuffer& buffer, Stream stream);

}  // namespace specdec
