#include "engine/model/quantise.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>

#include "kernels/cpu/row_format.h"

namespace specdec {

namespace {

constexpr std::size_t kGroup = kernels::kGroupSize;

/// What a group of 32 becomes: value = d * q + m.
struct AffineGroup {
  float d = 0;
  float m = 0;
  std::array<float, kGroup> q = {};  // 0 to 15
  float error = 0;                   // squared, over the group
};

constexpr float kMostNibble = 15;

using Group = std::array<float, kGroup>;

/// Sums over a group in lanes, so that they take vector instructions.
template <typename Term>
float sum_of(const Term& term) {
  constexpr std::size_t kLanes = 8;
  std::array<float, kLanes> lanes = {};
  for (std::size_t i = 0; i < kGroup; i += kLanes)
    for (std::size_t lane = 0; lane < kLanes; ++lane) lanes[lane] += term(i + lane);
  float sum = 0;
  for (const float lane : lanes) sum += lane;
  return sum;
}

/// The nearest q for the group's d and m.
void round_to(AffineGroup& group, const Group& values) {
  const float inverse = group.d == 0 ? 0.0f : 1 / group.d;
  for (std::size_t i = 0; i < kGroup; ++i) {
    // A NaN goes to 0.
    const float at = std::min(std::max(0.0f, (values[i] - group.m) * inverse), kMostNibble);
    group.q[i] = static_cast<float>(static_cast<int>(at + 0.5f));
  }
}

/// The d and m that suit the group's q best (least squares).
void fit(AffineGroup& group, const Group& values) {
  constexpr auto kCount = static_cast<float>(kGroup);
  const auto& q = group.q;
  const float sum_q = sum_of([&](std::size_t i) { return q[i]; });
  const float sum_qq = sum_of([&](std::size_t i) { return q[i] * q[i]; });
  const float sum_v = sum_of([&](std::size_t i) { return values[i]; });
  const float sum_qv = sum_of([&](std::size_t i) { return q[i] * values[i]; });
  const float spread = kCount * sum_qq - sum_q * sum_q;
  if (spread <= 0) return;
  group.d = (kCount * sum_qv - sum_q * sum_v) / spread;
  group.m = (sum_v - group.d * sum_q) / kCount;
}

AffineGroup best_group(const Group& values) {
  const auto [low, high] = std::minmax_element(values.begin(), values.end());
  AffineGroup best;
  best.error = std::numeric_limits<float>::infinity();
  // The outermost values pull the steps apart for all others: narrower ranges cut them off.
  constexpr std::array kCuts = {0.0f, 0.04f, 0.08f, 0.12f, 0.16f, 0.2f};
  for (const float cut : kCuts) {
    const float range = *high - *low;
    AffineGroup group{.d = range * (1 - cut) / kMostNibble, .m = *low + 0.5f * cut * range};
    constexpr int kRounds = 2;
    for (int round = 0; round < kRounds; ++round) {
      round_to(group, values);
      fit(group, values);
    }
    group.d = kernels::f16_to_f32(kernels::f32_to_f16(group.d));
    group.m = kernels::f16_to_f32(kernels::f32_to_f16(group.m));
    round_to(group, values);
    group.error = sum_of([&](std::size_t i) {
      const float off = group.d * group.q[i] + group.m - values[i];
      return off * off;
    });
    if (group.error < best.error) best = group;
  }
  return best;
}

}  // namespace

void append_q4_1(std::span<const float> values, std::vector<std::byte>& out) {
  Group group_values;
  for (std::size_t begin = 0; begin < values.size(); begin += kGroup) {
    std::ranges::copy(values.subspan(begin, kGroup), group_values.begin());
    const AffineGroup group = best_group(group_values);
    const std::array scales = {kernels::f32_to_f16(group.d), kernels::f32_to_f16(group.m)};
    const std::size_t at = out.size();
    out.resize(at + sizeof scales + kGroup / 2);
    std::memcpy(&out[at], scales.data(), sizeof scales);
    const auto nibble = [&](std::size_t i) { return static_cast<unsigned>(group.q[i]); };
    for (std::size_t i = 0; i < kGroup / 2; ++i)
      out[at + sizeof scales + i] = static_cast<std::byte>(nibble(i) | nibble(i + kGroup / 2) << 4);
  }
}

void append_quantised(kernels::DataType type, std::span<const float> values,
                      std::vector<std::byte>& out) {
  if (type == kernels::DataType::q4_1)
    append_q4_1(values, out);
  else
    append_q8_0(values, out);
}

void append_q8_0(std::span<const float> values, std::vector<std::byte>& out) {
  for (std::size_t begin = 0; begin < values.size(); begin += kGroup) {
    const std::span<const float> group = values.subspan(begin, kGroup);
    float amax = 0;
    for (const float value : group) amax = std::max(amax, std::fabs(value));
    const float d = amax / 127.0f;
    const float inverse = d == 0 ? 0.0f : 1.0f / d;
    const std::uint16_t scale = kernels::f32_to_f16(d);
    const std::size_t at = out.size();
    out.resize(at + sizeof scale + kGroup);
    std::memcpy(&out[at], &scale, sizeof scale);
    for (std::size_t i = 0; i < kGroup; ++i) {
      const long rounded = std::lround(std::clamp(group[i] * inverse, -127.0f, 127.0f));
      out[at + sizeof scale + i] = static_cast<std::byte>(static_cast<std::int8_t>(rounded));
    }
  }
}

}  // namespace specdec
