#pragma once

// The vector bodies behind row_math.h, on compiler vectors of 16 floats. Each is inlined into one
// wrapper per instruction set; without fused multiply-adds they have the same bits in all of them.

#include <cstring>

#include "sampling/row_math.h"

#define SPECDEC_INLINE inline __attribute__((always_inline))
#define SPECDEC_INLINE_LAMBDA __attribute__((always_inline))

#pragma GCC diagnostic ignored "-Wpsabi"  // every function here is inlined: no ABI to change

namespace specdec::row_math::body {

inline constexpr int kLanes = 16;
using Floats = float __attribute__((vector_size(64)));
using Ints = std::int32_t __attribute__((vector_size(64)));
using Words = std::uint32_t __attribute__((vector_size(64)));
using Longs = std::int64_t __attribute__((vector_size(128)));

template <typename Vector, typename T>
SPECDEC_INLINE Vector load(const T* source) {
  Vector value;
  std::memcpy(&value, source, sizeof(Vector));
  return value;
}
template <typename Vector, typename T>
SPECDEC_INLINE void store(T* target, const Vector& value) {
  std::memcpy(target, &value, sizeof(Vector));
}
SPECDEC_INLINE Floats splat(float value) { return Floats{} + value; }

SPECDEC_INLINE float reduce_max(const Floats& lanes) {
  float result = lanes[0];
  for (int i = 1; i < kLanes; ++i) result = lanes[i] > result ? lanes[i] : result;
  return result;
}
SPECDEC_INLINE float reduce_add(const Floats& lanes) {
  float part[kLanes];
  store(part, lanes);
  for (int width = kLanes / 2; width > 0; width /= 2)
    for (int i = 0; i < width; ++i) part[i] += part[i + width];
  return part[0];
}
SPECDEC_INLINE bool any(const Ints& mask) {
  std::int64_t part[kLanes / 2];
  std::memcpy(part, &mask, sizeof(part));
  std::int64_t joined = 0;
  for (std::int64_t value : part) joined |= value;
  return joined != 0;
}

// exp(x) = 2^n * exp(r), n = round(x / ln 2), |r| <= 0.347; Taylor to r^7 (truncation 5e-9).
SPECDEC_INLINE Floats exp_lanes(const Floats& input) {
  constexpr float kLowest = -87.0f;
  constexpr float kRound = 0x1.8p23f;
  const Floats x = input > kLowest ? input : splat(kLowest);
  const Floats n = (x * 0x1.715476p0f + kRound) - kRound;
  const Floats r = (x - n * 0x1.62e4p-1f) - n * 0x1.7f7d1cp-20f;
  Floats series = splat(1.0f / 5040) * r + 1.0f / 720;
  series = series * r + 1.0f / 120;
  series = series * r + 1.0f / 24;
  series = series * r + 1.0f / 6;
  series = series * r + 0.5f;
  series = series * r + 1.0f;
  series = series * r + 1.0f;
  const Ints exponent = (__builtin_convertvector(n, Ints) + 127) << 23;
  Floats power;
  std::memcpy(&power, &exponent, sizeof(power));
  const Floats result = series * power;
  return input > kLowest ? result : Floats{};
}

// Calls visit(pointer to kChunk floats, offset, count) per chunk; a short last chunk is padded with
// `padding`.
template <typename Visit>
SPECDEC_INLINE void for_chunks(std::span<const float> row, float padding, const Visit& visit) {
  const int n = static_cast<int>(row.size());
  int begin = 0;
  for (; begin + kChunk <= n; begin += kChunk) visit(row.data() + begin, begin, kChunk);
  if (begin < n) {
    float padded[kChunk];
    for (int i = 0; i < kChunk; ++i) padded[i] = begin + i < n ? row[begin + i] : padding;
    visit(static_cast<const float*>(padded), begin, n - begin);
  }
}

constexpr float kNegativeInfinity = -__builtin_inff();

SPECDEC_INLINE RowScan scan(std::span<const float> row, std::span<float> chunk_max) {
  RowScan result{kNegativeInfinity, false};
  Ints largest{};  // of the bits without sign: beyond infinity's for NaN
  for_chunks(row, kNegativeInfinity, [&](const float* x, int begin, int) SPECDEC_INLINE_LAMBDA {
    Floats best = splat(kNegativeInfinity);
    for (int i = 0; i < kChunk; i += kLanes) {
      const Floats value = load<Floats>(x + i);
      best = value > best ? value : best;
      Ints bits;
      std::memcpy(&bits, &value, sizeof(bits));
      bits &= 0x7FFFFFFF;
      largest = bits > largest ? bits : largest;
    }
    const float chunk_best = reduce_max(best);
    chunk_max[begin / kChunk] = chunk_best;
    if (chunk_best > result.max) result.max = chunk_best;
  });
  result.has_nan = any(largest > 0x7F800000);
  return result;
}

SPECDEC_INLINE int find_first(std::span<const float> row, float value) {
  const int n = static_cast<int>(row.size());
  int begin = 0;
  for (; begin + kLanes <= n; begin += kLanes)
    if (any(load<Floats>(row.data() + begin) == value)) break;
  for (; begin < n; ++begin)
    if (row[begin] == value) return begin;
  return -1;
}

SPECDEC_INLINE double sum_exp(std::span<const float> row, float max, float scale) {
  double total = 0;
  for_chunks(row, kNegativeInfinity, [&](const float* x, int, int) SPECDEC_INLINE_LAMBDA {
    Floats sum{};
    for (int i = 0; i < kChunk; i += kLanes) sum += exp_lanes((load<Floats>(x + i) - max) * scale);
    total += reduce_add(sum);
  });
  return total;
}

SPECDEC_INLINE void exp_row(std::span<const float> row, float max, float scale,
                            std::span<float> out) {
  for_chunks(
      row, kNegativeInfinity, [&](const float* x, int begin, int count) SPECDEC_INLINE_LAMBDA {
        float values[kChunk];
        for (int i = 0; i < kChunk; i += kLanes)
          store(values + i, exp_lanes((load<Floats>(x + i) - max) * scale));
        std::memcpy(out.data() + begin, values, sizeof(float) * static_cast<std::size_t>(count));
      });
}

SPECDEC_INLINE std::int64_t exp_masses(std::span<const float> row, float max, float scale,
                                       std::span<std::int32_t> out) {
  Longs total{};
  for_chunks(row, kNegativeInfinity,
             [&](const float* x, int begin, int count) SPECDEC_INLINE_LAMBDA {
               std::int32_t values[kChunk];
               for (int i = 0; i < kChunk; i += kLanes) {
                 const Floats weight = exp_lanes((load<Floats>(x + i) - max) * scale);
                 const Ints mass =
                     __builtin_convertvector(weight * static_cast<float>(kUnitMass) + 0.5f, Ints);
                 total += __builtin_convertvector(mass, Longs);
                 store(values + i, mass);
               }
               std::memcpy(out.data() + begin, values,
                           sizeof(std::int32_t) * static_cast<std::size_t>(count));
             });
  std::int64_t sum = 0;
  for (int i = 0; i < kLanes; ++i) sum += total[i];
  return sum;
}

SPECDEC_INLINE float noisy_bound(std::span<const float> row, float max, float scale,
                                 std::span<const std::uint32_t, kChunk> words,
                                 std::span<float, kChunk> bounds) {
  // d >= 2 * (~word >> 1) * 2^-32; the shift keeps the conversion to float a signed one.
  constexpr float kLn2 = 0x1.62e43p-1f;
  constexpr float kPerBit = kLn2 * 0x1p-23f;
  constexpr float kOffset = kLn2 * (127 + 31);
  float best = kNegativeInfinity;
  for_chunks(row, kNegativeInfinity, [&](const float* x, int, int) SPECDEC_INLINE_LAMBDA {
    Floats lanes = splat(kNegativeInfinity);
    for (int i = 0; i < kChunk; i += kLanes) {
      const Words half = ~load<Words>(words.data() + i) >> 1;
      const Floats tail = __builtin_convertvector((Ints)half, Floats);
      Ints bits;
      std::memcpy(&bits, &tail, sizeof(bits));
      const Floats noise = kOffset - __builtin_convertvector(bits, Floats) * kPerBit;
      const Floats bound = (load<Floats>(x + i) - max) * scale + noise;
      store(bounds.data() + i, bound);
      lanes = bound > lanes ? bound : lanes;
    }
    best = reduce_max(lanes);
  });
  return best;
}

}  // namespace specdec::row_math::body
