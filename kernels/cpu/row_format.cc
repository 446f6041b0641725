#include "kernels/cpu/row_format.h"

#include <bit>
#include <cstring>

namespace specdec::kernels {
namespace {

std::uint16_t load_u16(const std::byte* at) noexcept {
  std::uint16_t value;
  std::memcpy(&value, at, sizeof value);
  return value;
}

}  // namespace

std::size_t row_bytes(DataType type, int cols) noexcept {
  const auto n = static_cast<std::size_t>(cols);
  const std::size_t groups = n / kGroupSize;
  switch (type) {
    case DataType::f32:
      return n * 4;
    case DataType::f16:
    case DataType::bf16:
      return n * 2;
    case DataType::q8_0:
      return groups * 34;
    case DataType::q4_0:
      return groups * 18;
    case DataType::q4_1:
      return groups * 20;
  }
  return 0;
}

float f16_to_f32(std::uint16_t bits) noexcept {
  const std::uint32_t sign = static_cast<std::uint32_t>(bits & 0x8000u) << 16;
  const std::uint32_t exponent = (bits >> 10) & 0x1fu;
  const std::uint32_t mantissa = bits & 0x3ffu;
  if (exponent == 0x1f) return std::bit_cast<float>(sign | 0x7f800000u | mantissa << 13);
  if (exponent != 0) return std::bit_cast<float>(sign | (exponent + 112) << 23 | mantissa << 13);
  const float magnitude = static_cast<float>(mantissa) * 0x1p-24f;  // zero and subnormals
  return sign != 0 ? -magnitude : magnitude;
}

std::uint16_t f32_to_f16(float value) noexcept {
  const auto bits = std::bit_cast<std::uint32_t>(value);
  const auto sign = static_cast<std::uint16_t>((bits >> 16) & 0x8000u);
  const std::uint32_t magnitude = bits & 0x7fffffffu;
  if (magnitude > 0x7f800000u) return static_cast<std::uint16_t>(sign | 0x7e00u);
  if (magnitude >= 0x477ff000u) return static_cast<std::uint16_t>(sign | 0x7c00u);
  std::uint32_t result;
  if (magnitude < 0x38800000u) {
    // Subnormal: adding 0.5 lets the FPU round to a multiple of 2^-24.
    const float rounded = std::bit_cast<float>(magnitude) + 0.5f;
    result = std::bit_cast<std::uint32_t>(rounded) - 0x3f000000u;
  } else {
    const std::uint32_t odd = (magnitude >> 13) & 1u;
    result = (magnitude - 0x38000000u + 0xfffu + odd) >> 13;
  }
  return static_cast<std::uint16_t>(sign | result);
}

float bf16_to_f32(std::uint16_t bits) noexcept {
  return std::bit_cast<float>(static_cast<std::uint32_t>(bits) << 16);
}

void convert_row_to_f32(DataType type, int cols, const std::byte* row, float* out) noexcept {
  const int groups = cols / kGroupSize;
  switch (type) {
    case DataType::f32:
      std::memcpy(out, row, static_cast<std::size_t>(cols) * 4);
      return;
    case DataType::f16:
      for (int i = 0; i < cols; ++i) out[i] = f16_to_f32(load_u16(row + 2 * i));
      return;
    case DataType::bf16:
      for (int i = 0; i < cols; ++i) out[i] = bf16_to_f32(load_u16(row + 2 * i));
      return;
    case DataType::q8_0:
      for (int g = 0; g < groups; ++g, row += 34, out += kGroupSize) {
        const float d = f16_to_f32(load_u16(row));
        for (int i = 0; i < kGroupSize; ++i) {
          out[i] = d * static_cast<float>(static_cast<std::int8_t>(row[2 + i]));
        }
      }
      return;
    case DataType::q4_0:
      for (int g = 0; g < groups; ++g, row += 18, out += kGroupSize) {
        const float d = f16_to_f32(load_u16(row));
        for (int i = 0; i < 16; ++i) {
          const int both = static_cast<int>(row[2 + i]);
          out[i] = d * static_cast<float>((both & 15) - 8);
          out[i + 16] = d * static_cast<float>((both >> 4) - 8);
        }
      }
      return;
    case DataType::q4_1:
      for (int g = 0; g < groups; ++g, row += 20, out += kGroupSize) {
        const float d = f16_to_f32(load_u16(row));
        const float m = f16_to_f32(load_u16(row + 2));
        for (int i = 0; i < 16; ++i) {
          const int both = static_cast<int>(row[4 + i]);
          out[i] = d * static_cast<float>(both & 15) + m;
          out[i + 16] = d * static_cast<float>(both >> 4) + m;
        }
      }
      return;
  }
}

}  // namespace specdec::kernels
