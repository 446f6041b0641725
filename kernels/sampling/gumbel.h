#pragma once

#include <bit>
#include <cstdint>

namespace specdec {

/// Natural logarithm with the same bits on every platform: IEEE double add, multiply, divide, in
/// this order, no fused multiply-add, no library call. Within 3 ulp; x must be positive and normal.
///
/// Recipe: x = 2^k * m with m in [sqrt(1/2), sqrt(2)); s = (m - 1) / (m + 1), |s| <= 0.1716;
/// log m = 2 artanh s = 2 s (1 + s^2/3 + s^4/5 + ... + s^22/23), by Horner from the highest term;
/// log x = k * ln2_high + (k * ln2_low + log m), where ln2_high has 21 trailing zero bits, so that
/// its product with k is exact.
constexpr double fixed_log(double x) noexcept {
  constexpr double kLn2High = 0x1.62e42feep-1;
  constexpr double kLn2Low = 0x1.a39ef35793c76p-33;
  constexpr std::uint64_t kMantissa = (std::uint64_t{1} << 52) - 1;
  constexpr std::uint64_t kSqrt2Mantissa = 0x6a09e667f3bcdull;
  const std::uint64_t bits = std::bit_cast<std::uint64_t>(x);
  const std::uint64_t mantissa = bits & kMantissa;
  int exponent = static_cast<int>(bits >> 52) - 1023;
  std::uint64_t biased = 1023;
  if (mantissa >= kSqrt2Mantissa) {
    biased = 1022;
    ++exponent;
  }
  const double m = std::bit_cast<double>((biased << 52) | mantissa);
  const double s = (m - 1.0) / (m + 1.0);
  const double z = s * s;
  double series = 1.0 / 23.0;
  for (int odd = 21; odd >= 3; odd -= 2) series = series * z + 1.0 / odd;
  const double log_m = 2.0 * s + (2.0 * s) * (z * series);
  return exponent * kLn2High + (exponent * kLn2Low + log_m);
}

/// The uniform that a 32-bit word stands for: the middle of its cell, so never 0 or 1. Exact.
constexpr double uniform_of(std::uint32_t word) noexcept {
  return (static_cast<double>(word) + 0.5) * 0x1p-32;
}

/// Standard Gumbel noise g = -log(-log(u)), bounded by [-3.14, 22.88].
constexpr double gumbel(std::uint32_t word) noexcept {
  return -fixed_log(-fixed_log(uniform_of(word)));
}

/// No Gumbel noise exceeds this: u <= 1 - 2^-33 and -log(1 - d) >= d, so g <= 33 ln 2.
constexpr double kMaxGumbel = 22.875;

}  // namespace specdec
