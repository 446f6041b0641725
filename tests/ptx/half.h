// 16-bit floats, and TF32, as the host computes with them: through float.
#pragma once

#include <immintrin.h>

#include <bit>
#include <cmath>
#include <cstdint>

#include "tests/ptx/lanes.h"

namespace specdec::ptx {

inline float half_to_float(std::uint16_t bits) {
  return _mm_cvtss_f32(_mm_cvtph_ps(_mm_cvtsi32_si128(bits)));
}

/// To nearest even; NaN becomes 0x7FFF, as on the device.
inline std::uint16_t float_to_half(float value) {
  if (value != value) return 0x7FFF;
  return static_cast<std::uint16_t>(_mm_cvtsi128_si32(
      _mm_cvtps_ph(_mm_set_ss(value), _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC)));
}

inline float bfloat_to_float(std::uint16_t bits) {
  return std::bit_cast<float>(static_cast<std::uint32_t>(bits) << 16u);
}

inline std::uint16_t float_to_bfloat(float value) {
  const auto bits = std::bit_cast<std::uint32_t>(value);
  const std::uint32_t rounded = (bits + 0x7FFFu + ((bits >> 16u) & 1u)) >> 16u;
  return static_cast<std::uint16_t>(value != value ? 0x7FFFu : rounded);
}

/// What of a float is TF32: sign, exponent and ten bits of its fraction.
inline constexpr std::uint32_t kTf32Bits = 0xFFFFE000u;

struct HalfFormat {
  static float widen(std::uint16_t bits) { return half_to_float(bits); }
  static std::uint16_t round(float value) { return float_to_half(value); }
};
struct BfloatFormat {
  static float widen(std::uint16_t bits) { return bfloat_to_float(bits); }
  static std::uint16_t round(float value) { return float_to_bfloat(value); }
};

}  // namespace specdec::ptx
