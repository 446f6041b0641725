#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "kernels/ops.h"

namespace specdec::testing {

/// Rounds to nearest even, as IEEE 754 conversions do.
std::uint16_t half_from_float(float value);
std::uint16_t bfloat_from_float(float value);
float float_from_half(std::uint16_t half);

/// Rows of floats in a file's representation; for the block types `values.size()` is a multiple of
/// 32. Scales are chosen as ggml's reference quantiser does.
std::vector<std::byte> quantise(std::span<const float> values, kernels::DataType type);
/// The floats that such bytes stand for.
std::vector<float> dequantise(std::span<const std::byte> bytes, kernels::DataType type);

}  // namespace specdec::testing
