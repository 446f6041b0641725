#pragma once

// The vector bodies behind row_math.h, on compiler vectors of W floats: each is inlined into one
// wrapper per instruction set, W being what its registers hold (wider ones are taken apart lane by
// lane by g++ 12). Sums always run over kLanes = 16 lanes, in 16 / W vectors, and there are no
// fused multiply-adds, so the bits are the same for every W.

#include <cstring>

#include "sampling/row_math.h"

#define SPECDEC_INLINE inline __attribute__((always_inline))
#define SPECDEC_INLINE_LAMBDA __attribute__((always_inline))

#pragma GCC diagnostic ignored "-Wpsabi"  // every function here is inlined: no ABI to change

namespace specdec::row_math::body {

inline constexpr int kLanes = 16;
constexpr float kNegativeInfinity = -__builtin_inff();

template <int W>
struct Vectors;
#define SPECDEC_VECTORS(W, BYTES)                                    \
  template <>                                                        \
  struct Vectors<W> {                                                \
    using Floats = float __attribute__((vector_size(BYTES)));        \
    using Ints = std::int32_t __attribute__((vector_size(BYTES)));   \
    using Words = std::uint32_t __attribute__((vector_size(BYTES))); \
  };
SPECDEC_VECTORS(4, 16)
SPECDEC_VECTORS(8, 32)
SPECDEC_VECTORS(16, 64)
#undef SPECDEC_VECTORS

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
template <typename To, typename From>
SPECDEC_INLINE To bits_of(const From& value) {
  To bits;
  std::memcpy(&bits, &value, sizeof(To));
  return bits;
}
// Vectors know only + of a scalar.
template <typename Floats>
SPECDEC_INLINE Floats splat(float value) {
  return Floats{} + value;
}

// kLanes values in vectors of W.
template <int W, typename Vector>
struct Lanes {
  Vector part[kLanes / W];
};

template <int W>
SPECDEC_INLINE float reduce_max(const Lanes<W, typename Vectors<W>::Floats>& lanes) {
  float values[kLanes];
  std::memcpy(values, lanes.part, sizeof(values));
  float result = values[0];
  for (int i = 1; i < kLanes; ++i) result = values[i] > result ? values[i] : result;
  return result;
}
template <int W>
SPECDEC_INLINE float reduce_add(const Lanes<W, typename Vectors<W>::Floats>& lanes) {
  float values[kLanes];
  std::memcpy(values, lanes.part, sizeof(values));
  for (int width = kLanes / 2; width > 0; width /= 2)
    for (int i = 0; i < width; ++i) values[i] += values[i + width];
  return values[0];
}

// exp(x) = 2^n * exp(r), n = round(x / ln 2), |r| <= 0.347; Taylor to r^7 (truncation 5e-9).
template <int W>
SPECDEC_INLINE typename Vectors<W>::Floats exp_lanes(const typename Vectors<W>::Floats& input) {
  using Floats = typename Vectors<W>::Floats;
  using Ints = typename Vectors<W>::Ints;
  constexpr float kLowest = -87.0f;
  constexpr float kRound = 0x1.8p23f;
  const Floats x = input > kLowest ? input : splat<Floats>(kLowest);
  const Floats n = (x * 0x1.715476p0f + kRound) - kRound;
  const Floats r = (x - n * 0x1.62e4p-1f) - n * 0x1.7f7d1cp-20f;
  Floats series = r * (1.0f / 5040) + 1.0f / 720;
  series = series * r + 1.0f / 120;
  series = series * r + 1.0f / 24;
  series = series * r + 1.0f / 6;
  series = series * r + 0.5f;
  series = series * r + 1.0f;
  series = series * r + 1.0f;
  const Ints exponent = (__builtin_convertvector(n, Ints) + 127) << 23;
  const Floats result = series * bits_of<Floats>(exponent);
  return input > kLowest ? result : Floats{};
}

// Calls visit(pointer to kChunk floats, offset, count) per chunk; a short last chunk is padded with
// -infinity.
template <typename Visit>
SPECDEC_INLINE void for_chunks(std::span<const float> row, const Visit& visit) {
  const int n = static_cast<int>(row.size());
  int begin = 0;
  for (; begin + kChunk <= n; begin += kChunk) visit(row.data() + begin, begin, kChunk);
  if (begin < n) {
    float padded[kChunk];
    for (int i = 0; i < kChunk; ++i) padded[i] = begin + i < n ? row[begin + i] : kNegativeInfinity;
    visit(static_cast<const float*>(padded), begin, n - begin);
  }
}

// Calls visit(offset of W floats in the chunk, index of their vector in a Lanes).
template <int W, typename Visit>
SPECDEC_INLINE void for_vectors(const Visit& visit) {
  for (int i = 0; i < kChunk; i += kLanes)
    for (int part = 0; part < kLanes / W; ++part) visit(i + part * W, part);
}

template <int W>
SPECDEC_INLINE RowScan scan(std::span<const float> row, std::span<float> chunk_max) {
  using Floats = typename Vectors<W>::Floats;
  using Ints = typename Vectors<W>::Ints;
  RowScan result{kNegativeInfinity, false};
  Ints largest{};  // of the bits without sign: beyond infinity's for NaN
  for_chunks(row, [&](const float* x, int begin, int) SPECDEC_INLINE_LAMBDA {
    Lanes<W, Floats> best;
    for (Floats& part : best.part) part = splat<Floats>(kNegativeInfinity);
    for_vectors<W>([&](int i, int part) SPECDEC_INLINE_LAMBDA {
      const Floats value = load<Floats>(x + i);
      best.part[part] = value > best.part[part] ? value : best.part[part];
      const Ints bits = bits_of<Ints>(value) & 0x7FFFFFFF;
      largest = bits > largest ? bits : largest;
    });
    const float chunk_best = reduce_max<W>(best);
    chunk_max[begin / kChunk] = chunk_best;
    if (chunk_best > result.max) result.max = chunk_best;
  });
  for (int i = 0; i < W; ++i) result.has_nan |= largest[i] > 0x7F800000;
  return result;
}

template <int W>
SPECDEC_INLINE double sum_exp(std::span<const float> row, float max, float scale) {
  using Floats = typename Vectors<W>::Floats;
  double total = 0;
  for_chunks(row, [&](const float* x, int, int) SPECDEC_INLINE_LAMBDA {
    Lanes<W, Floats> sum{};
    for_vectors<W>([&](int i, int part) SPECDEC_INLINE_LAMBDA {
      sum.part[part] += exp_lanes<W>((load<Floats>(x + i) - max) * scale);
    });
    total += reduce_add<W>(sum);
  });
  return total;
}

template <int W>
SPECDEC_INLINE void exp_row(std::span<const float> row, float max, float scale,
                            std::span<float> out) {
  using Floats = typename Vectors<W>::Floats;
  for_chunks(row, [&](const float* x, int begin, int count) SPECDEC_INLINE_LAMBDA {
    float values[kChunk];
    for_vectors<W>([&](int i, int) SPECDEC_INLINE_LAMBDA {
      store(values + i, exp_lanes<W>((load<Floats>(x + i) - max) * scale));
    });
    std::memcpy(out.data() + begin, values, sizeof(float) * static_cast<std::size_t>(count));
  });
}

template <int W>
SPECDEC_INLINE std::int64_t exp_masses(std::span<const float> row, float max, float scale,
                                       std::span<std::int32_t> out) {
  using Floats = typename Vectors<W>::Floats;
  using Ints = typename Vectors<W>::Ints;
  // A mass has 30 bits: a chunk's sum of each half fits a 32-bit lane.
  constexpr int kHalf = 15;
  std::int64_t total = 0;
  for_chunks(row, [&](const float* x, int begin, int count) SPECDEC_INLINE_LAMBDA {
    std::int32_t values[kChunk];
    Ints high{};
    Ints low{};
    for_vectors<W>([&](int i, int) SPECDEC_INLINE_LAMBDA {
      const Floats weight = exp_lanes<W>((load<Floats>(x + i) - max) * scale);
      const Ints mass =
          __builtin_convertvector(weight * static_cast<float>(kUnitMass) + 0.5f, Ints);
      high += mass >> kHalf;
      low += mass & ((1 << kHalf) - 1);
      store(values + i, mass);
    });
    std::int64_t chunk_high = 0;
    std::int64_t chunk_low = 0;
    for (int i = 0; i < W; ++i) {
      chunk_high += high[i];
      chunk_low += low[i];
    }
    total += (chunk_high << kHalf) + chunk_low;
    std::memcpy(out.data() + begin, values, sizeof(std::int32_t) * static_cast<std::size_t>(count));
  });
  return total;
}

template <int W>
SPECDEC_INLINE float noisy_bound(std::span<const float> row, float max, float scale,
                                 std::span<const std::uint32_t, kChunk> words,
                                 std::span<float, kChunk> bounds) {
  using Floats = typename Vectors<W>::Floats;
  using Ints = typename Vectors<W>::Ints;
  using Words = typename Vectors<W>::Words;
  // d >= 2 * (~word >> 1) * 2^-32; the shift keeps the conversion to float a signed one.
  constexpr float kLn2 = 0x1.62e43p-1f;
  constexpr float kPerBit = kLn2 * 0x1p-23f;
  constexpr float kOffset = kLn2 * (127 + 31);
  float best = kNegativeInfinity;
  for_chunks(row, [&](const float* x, int, int) SPECDEC_INLINE_LAMBDA {
    Lanes<W, Floats> lanes;
    for (Floats& part : lanes.part) part = splat<Floats>(kNegativeInfinity);
    for_vectors<W>([&](int i, int part) SPECDEC_INLINE_LAMBDA {
      const Words half = ~load<Words>(words.data() + i) >> 1;
      const Floats tail = __builtin_convertvector(bits_of<Ints>(half), Floats);
      const Floats noise = kOffset - __builtin_convertvector(bits_of<Ints>(tail), Floats) * kPerBit;
      const Floats bound = (load<Floats>(x + i) - max) * scale + noise;
      store(bounds.data() + i, bound);
      lanes.part[part] = bound > lanes.part[part] ? bound : lanes.part[part];
    });
    best = reduce_max<W>(lanes);
  });
  return best;
}

}  // namespace specdec::row_math::body
