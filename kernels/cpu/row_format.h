#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/ops.h"

namespace specdec::kernels {

/// Elements that share a scale in the quantised types (ggml's QK).
inline constexpr int kGroupSize = 32;

constexpr bool is_quantised(DataType type) noexcept {
  return type == DataType::q8_0 || type == DataType::q4_0 || type == DataType::q4_1;
}

/// Bytes of one row of `cols` elements as it lies in a model file. Quantised rows are whole groups:
/// `cols` is a multiple of 32.
std::size_t row_bytes(DataType type, int cols) noexcept;

float f16_to_f32(std::uint16_t bits) noexcept;
/// Round to nearest even; NaN stays NaN, too large becomes infinity.
std::uint16_t f32_to_f16(float value) noexcept;
float bf16_to_f32(std::uint16_t bits) noexcept;

/// Dequantises one row of a model file, exactly (each element is one or two float operations).
/// Block layouts as in ggml: q8_0 {f16 d; int8 q[32]}, q4_0 {f16 d; u8 q[16]},
/// q4_1 {f16 d, m; u8 q[16]}; nibbles: low half = elements 0..15, high half = 16..31.
void convert_row_to_f32(DataType type, int cols, const std::byte* row, float* out) noexcept;

}  // namespace specdec::kernels
