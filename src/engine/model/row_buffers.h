#pragma once

#include <span>

#include "engine/backend/backend.h"

namespace specdec {

/// Scratch for `max_rows` rows of `width` floats, in whole tiles: a backend may lay activations out
/// in tiles of 8 by 32. Throws Error(out_of_memory).
DeviceBuffer allocate_rows(Backend& backend, int max_rows, int width);

/// Runs norm_head into `buffer`, which grows as needed, and returns the logits [num_outputs, head
/// rows] that lie there. params.logits is set here.
std::span<const float> make_logits(Backend& backend, kernels::NormHeadParams params,
                                   DeviceBuffer& buffer, Stream stream);

/// Rows in the backend's memory for the host; valid until the next read.
std::span<const float> read_rows(Backend& backend, std::span<const float> rows, Stream stream);

}  // namespace specdec
