#pragma once

#include <bit>
#include <cstdint>

/// What a logits row's arithmetic is, one value at a time: the definitions that every backend
/// computes with, bit for bit. IEEE float operations in this order, no fused multiply-add, no
/// library call.
namespace specdec::row_math {

/// Tokens are handled in chunks of this many. Float sums run over 16 lanes within a chunk (token i
/// in lane i % 16, ascending), over the lanes by halving (lane l takes lane l + 8, + 4, + 2, + 1),
/// and over the chunks in double, ascending.
inline constexpr int kChunk = 256;
inline constexpr int kSumLanes = 16;

/// Masses are probabilities relative to the most likely token, in fixed point, so that sums of them
/// are exact and do not depend on their order.
inline constexpr std::int32_t kUnitMass = std::int32_t{1} << 30;

/// exp(x) for x <= 0: within 2e-7 relative down to -87, 0 below.
///
/// exp(x) = 2^n * exp(r), n = round(x / ln 2), |r| <= 0.347; Taylor to r^7 (truncation 5e-9).
constexpr float exp_one(float x) noexcept {
  constexpr float kRound = 0x1.8p23f;
  if (!(x > -87.0f)) return 0.0f;
  const float n = (x * 0x1.715476p0f + kRound) - kRound;
  const float r = (x - n * 0x1.62e4p-1f) - n * 0x1.7f7d1cp-20f;
  float series = r * (1.0f / 5040) + 1.0f / 720;
  series = series * r + 1.0f / 120;
  series = series * r + 1.0f / 24;
  series = series * r + 1.0f / 6;
  series = series * r + 0.5f;
  series = series * r + 1.0f;
  series = series * r + 1.0f;
  return series * std::bit_cast<float>((static_cast<std::int32_t>(n) + 127) << 23);
}

/// exp_one in units of 1 / kUnitMass, rounded.
constexpr std::int32_t mass_one(float x) noexcept {
  return static_cast<std::int32_t>(exp_one(x) * static_cast<float>(kUnitMass) + 0.5f);
}

/// Order-preserving integer of a float without NaN; -0 and +0 are equal.
constexpr std::uint32_t order_key(float value) noexcept {
  const auto bits = std::bit_cast<std::uint32_t>(value + 0.0f);
  return (bits & 0x80000000u) != 0 ? ~bits : bits | 0x80000000u;
}
/// The float (never -0) that has this key.
constexpr float float_of_key(std::uint32_t key) noexcept {
  return std::bit_cast<float>((key & 0x80000000u) != 0 ? key ^ 0x80000000u : ~key);
}

/// What the lanes of a chunk add up to. Overwrites them.
template <typename Float>
constexpr Float add_lanes(Float (&lanes)[kSumLanes]) noexcept {
  for (int width = kSumLanes / 2; width > 0; width /= 2)
    for (int i = 0; i < width; ++i) lanes[i] += lanes[i + width];
  return lanes[0];
}

/// An upper bound, up to rounding of 1e-5 * (1 + |result|), of the Gumbel noise of `word`.
///
/// With d = 1 - u: -log(1 - d) >= d, so g = -log(-log(u)) <= -log(d); and log2(d) >= bits(d) / 2^23
/// - 127 for the float bits of d, because log2(1 + m) >= m on [0, 1]. The shift leaves d >= 2 *
/// (~word >> 1) * 2^-32 and keeps the conversion to float a signed one.
constexpr float noise_bound(std::uint32_t word) noexcept {
  constexpr float kLn2 = 0x1.62e43p-1f;
  constexpr float kPerBit = kLn2 * 0x1p-23f;
  constexpr float kOffset = kLn2 * (127 + 31);
  const auto tail = static_cast<float>(static_cast<std::int32_t>(~word >> 1));
  return kOffset - static_cast<float>(std::bit_cast<std::int32_t>(tail)) * kPerBit;
}
/// Where noise_bound() is between these (2^-25 < d < 0.1), it overstates the noise by less than the
/// slack: log2(1 + m) - m <= 0.0861, in natural units 0.0597; log(-log(1 - d) / d) <= 0.0523; and
/// the shift, which further out matters most, <= 0.0117.
inline constexpr float kTightNoise = 2.4f;
inline constexpr float kTightNoiseEnd = 17.0f;
inline constexpr float kNoiseBoundSlack = 0.125f;
/// A bound below this cannot reach `score` (row score + noise), whatever its rounding took off.
constexpr float prune_below(double score) noexcept {
  return static_cast<float>(score - 1e-3 - 1e-4 * (score < 0 ? -score : score));
}

}  // namespace specdec::row_math
