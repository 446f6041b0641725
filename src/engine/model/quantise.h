#pragma once

#include <cstddef>
#include <span>
#include <vector>

#include "kernels/ops.h"

namespace specdec {

/// Appends `values` (whole groups of 32) in ggml's q8_0: d = amax / 127 as f16, then 32 int8, round
/// half away from zero.
void append_q8_0(std::span<const float> values, std::vector<std::byte>& out);

/// ... in ggml's q4_1: d and m as f16, then 32 values of 0 to 15, value = d * q + m. Of several
/// ranges, each with the d and m that suit its rounding best, the one with the least squared error.
void append_q4_1(std::span<const float> values, std::vector<std::byte>& out);

/// One of these two.
void append_quantised(kernels::DataType type, std::span<const float> values,
                      std::vector<std::byte>& out);

}  // namespace specdec
