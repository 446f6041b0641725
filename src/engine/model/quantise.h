#pragma once

#include <cstddef>
#include <span>
#include <vector>

namespace specdec {

/// Appends `values` (whole groups of 32) in ggml's q8_0: d = amax / 127 as f16, then 32 int8, round
/// half away from zero.
void append_q8_0(std::span<const float> values, std::vector<std::byte>& out);

}  // namespace specdec
