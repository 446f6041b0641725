// Arithmetic, bits and conversions against plain C++.
#include <doctest/doctest.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>
#include <random>

#include "tests/ptx/ptx_fixture.h"

namespace specdec::ptx::testing {
namespace {

constexpr float kInf = std::numeric_limits<float>::infinity();
const float kNan = std::numeric_limits<float>::quiet_NaN();

std::vector<std::uint32_t> words(std::size_t count, unsigned seed = 1) {
  std::vector<std::uint32_t> values = {
      0, 1, 2, 31, 32, 33, 0x7FFFFFFF, 0x80000000, 0x80000001, 0xFFFFFFFF, 0x0000FFFF, 0xFFFF0000};
  std::mt19937 random(seed);
  std::shuffle(values.begin(), values.end(), random);
  while (values.size() < count)
    values.push_back(static_cast<std::uint32_t>(random()) >> (random() % 32));
  values.resize(count);
  return values;
}
std::vector<std::uint64_t> long_words(std::size_t count, unsigned seed = 1) {
  std::mt19937_64 random(seed);
  std::vector<std::uint64_t> values = {
      0, 1, ~0ull, 1ull << 63u, (1ull << 63u) - 1, 1ull << 32u, 0xFFFFFFFFull};
  while (values.size() < count) values.push_back(random() >> (random() % 64));
  return values;
}
template <class T, class S>
std::vector<T> as(const std::vector<S>& values) {
  std::vector<T> cast;
  for (const S value : values) cast.push_back(static_cast<T>(value));
  return cast;
}

// Every pair of the interesting floats.
const std::vector<float> kFloats = {0.0F,   -0.0F,       1.0F,          -1.0F,  0.5F,
                                    1.5F,   2.5F,        -2.5F,         3.0F,   1e-3F,
                                    1e10F,  -1e10F,      3e38F,         -3e38F, 1.17549435e-38F,
                                    1e-40F, -1e-42F,     1.401298e-45F, kInf,   -kInf,
                                    kNan,   16777217.0F, 0.1F};
void float_pairs(std::vector<float>* a, std::vector<float>* b) {
  for (const float x : kFloats) {
    for (const float y : kFloats) {
      a->push_back(x);
      b->push_back(y);
    }
  }
}

template <class T>
bool same_bits(T x, T y) {
  if constexpr (std::is_same_v<T, float>)
    return std::bit_cast<std::uint32_t>(x) == std::bit_cast<std::uint32_t>(y);
  if constexpr (std::is_same_v<T, double>) {
    return std::bit_cast<std::uint64_t>(x) == std::bit_cast<std::uint64_t>(y) || (x != x && y != y);
  }
  return x == y;
}

template <class D, class F>
void check(const std::vector<D>& got, F&& expected) {
  int wrong = 0;
  for (std::size_t i = 0; i < got.size(); ++i) {
    const D want = expected(i);
    if (same_bits(got[i], want)) continue;
    if (++wrong <= 3) MESSAGE("element " << i << ": got " << got[i] << ", want " << want);
  }
  CHECK(wrong == 0);
}

float one_nan(float value) { return value == value ? value : std::bit_cast<float>(0x7FFFFFFFu); }

TEST_CASE("integers wrap, multiply and divide") {
  const auto a = words(100, 1), b = words(100, 2);
  const auto sa = as<std::int32_t>(a), sb = as<std::int32_t>(b);
  const auto la = long_words(100, 3), lb = long_words(100, 4);
  check(apply<std::uint32_t>("add.s32 %d, %a, %b;", a, b),
        [&](std::size_t i) { return a[i] + b[i]; });
  check(apply<std::uint64_t>("sub.s64 %d, %a, %b;", la, lb),
        [&](std::size_t i) { return la[i] - lb[i]; });
  check(apply<std::uint32_t>("mad.lo.s32 %d, %a, %b, %c;", a, b, a),
        [&](std::size_t i) { return a[i] * b[i] + a[i]; });
  check(apply<std::int32_t>("mul.hi.s32 %d, %a, %b;", sa, sb), [&](std::size_t i) {
    return static_cast<std::int32_t>((std::int64_t{sa[i]} * sb[i]) >> 32);
  });
  check(apply<std::uint32_t>("mul.hi.u32 %d, %a, %b;", a, b), [&](std::size_t i) {
    return static_cast<std::uint32_t>((std::uint64_t{a[i]} * b[i]) >> 32);
  });
  check(apply<std::int64_t>("mul.wide.s32 %d, %a, %b;", sa, sb),
        [&](std::size_t i) { return std::int64_t{sa[i]} * sb[i]; });
  check(apply<std::uint64_t>("mad.wide.u32 %d, %a, %b, %c;", a, b, la),
        [&](std::size_t i) { return std::uint64_t{a[i]} * b[i] + la[i]; });
  check(apply<std::int32_t>("div.s32 %d, %a, %b;", sa, sb), [&](std::size_t i) -> std::int32_t {
    return sb[i] == 0 ? -1 : static_cast<std::int32_t>(std::int64_t{sa[i]} / sb[i]);
  });
  check(apply<std::int32_t>("rem.s32 %d, %a, %b;", sa, sb), [&](std::size_t i) -> std::int32_t {
    return sb[i] == 0 ? sa[i] : static_cast<std::int32_t>(std::int64_t{sa[i]} % sb[i]);
  });
  check(apply<std::int32_t>("min.s32 %d, %a, %b;", sa, sb),
        [&](std::size_t i) { return std::min(sa[i], sb[i]); });
  check(apply<std::uint64_t>("max.u64 %d, %a, %b;", la, lb),
        [&](std::size_t i) { return std::max(la[i], lb[i]); });
  check(apply<std::int64_t>("abs.s64 %d, %a;", as<std::int64_t>(la)),
        [&](std::size_t i) { return static_cast<std::int64_t>(la[i] >> 63u ? 0 - la[i] : la[i]); });
}

TEST_CASE("shifts take amounts beyond the width") {
  const auto a = words(64, 1);
  auto by = words(64, 2);
  for (std::size_t i = 0; i < by.size(); ++i) by[i] = static_cast<std::uint32_t>(i);
  check(apply<std::uint32_t>("shl.b32 %d, %a, %b;", a, by),
        [&](std::size_t i) { return i < 32 ? a[i] << i : 0u; });
  check(apply<std::uint32_t>("shr.u32 %d, %a, %b;", a, by),
        [&](std::size_t i) { return i < 32 ? a[i] >> i : 0u; });
  check(apply<std::int32_t>("shr.s32 %d, %a, %b;", as<std::int32_t>(a), by), [&](std::size_t i) {
    return static_cast<std::int32_t>(a[i]) >> std::min<std::size_t>(i, 31);
  });
  const auto la = long_words(64);
  check(apply<std::uint64_t>("shl.b64 %d, %a, %b;", la, by),
        [&](std::size_t i) { return la[i] << i; });
}

TEST_CASE("bit patterns") {
  const auto a = words(200, 5), b = words(200, 6), c = words(200, 7);
  check(apply<std::uint32_t>("popc.b32 %d, %a;", a), [&](std::size_t i) {
    std::uint32_t count = 0;
    for (unsigned k = 0; k < 32; ++k) count += a[i] >> k & 1u;
    return count;
  });
  check(apply<std::uint32_t>("brev.b32 %d, %a;", a), [&](std::size_t i) {
    std::uint32_t reversed = 0;
    for (unsigned k = 0; k < 32; ++k) reversed = reversed << 1u | (a[i] >> k & 1u);
    return reversed;
  });
  check(apply<std::uint32_t>("bfind.u32 %d, %a;", a), [&](std::size_t i) -> std::uint32_t {
    for (int k = 31; k >= 0; --k) {
      if (a[i] >> k & 1u) return static_cast<std::uint32_t>(k);
    }
    return ~0u;
  });
  check(apply<std::uint32_t>("bfind.shiftamt.u32 %d, %a;", a), [&](std::size_t i) -> std::uint32_t {
    for (int k = 0; k < 32; ++k) {
      if (a[i] << k & 0x80000000u) return static_cast<std::uint32_t>(k);
    }
    return ~0u;
  });
  check(apply<std::uint32_t>("prmt.b32 %d, %a, %b, %c;", a, b, c), [&](std::size_t i) {
    std::uint8_t bytes[8];
    std::memcpy(bytes, &a[i], 4);
    std::memcpy(bytes + 4, &b[i], 4);
    std::uint32_t result = 0;
    for (unsigned k = 0; k < 4; ++k) {
      const unsigned nibble = c[i] >> 4 * k & 15u;
      const std::uint8_t byte = bytes[nibble % 8];
      result |= (nibble < 8 ? byte : byte >= 128 ? 255u : 0u) << 8 * k;
    }
    return result;
  });
  std::vector<std::uint32_t> at = c;
  for (std::uint32_t& value : at) value %= 40;
  for (const unsigned wide : {0u, 1u, 7u, 20u, 32u, 40u}) {
    const std::string length = std::to_string(wide);
    check(apply<std::uint32_t>("bfi.b32 %d, %a, %b, %c, " + length + ";", a, b, at),
          [&](std::size_t i) {
            std::uint32_t result = b[i];
            for (unsigned k = 0; k < wide && at[i] + k < 32; ++k) {
              result = (result & ~(1u << (at[i] + k))) | (a[i] >> k & 1u) << (at[i] + k);
            }
            return result;
          });
    check(apply<std::uint32_t>("bfe.u32 %d, %a, %c, " + length + ";", a, b, at),
          [&](std::size_t i) {
            std::uint32_t result = 0;
            for (unsigned k = 0; k < wide && k < 32 && at[i] + k < 32; ++k)
              result |= (a[i] >> (at[i] + k) & 1u) << k;
            return result;
          });
  }
  check(apply<std::uint32_t>("shf.l.wrap.b32 %d, %a, %b, %c;", a, b, c), [&](std::size_t i) {
    const unsigned by = c[i] & 31u;
    return by == 0 ? b[i] : b[i] << by | a[i] >> (32 - by);
  });
  check(apply<std::uint32_t>("lop3.b32 %d, %a, %b, %c, 0xCA;", a, b, c),
        [&](std::size_t i) { return (a[i] & b[i]) | (~a[i] & c[i]); });
}

TEST_CASE("floats: the host's results, one NaN, -0 below 0") {
  std::vector<float> a, b;
  float_pairs(&a, &b);
  check(apply<float>("add.f32 %d, %a, %b;", a, b),
        [&](std::size_t i) { return one_nan(a[i] + b[i]); });
  check(apply<float>("mul.rn.f32 %d, %a, %b;", a, b),
        [&](std::size_t i) { return one_nan(a[i] * b[i]); });
  check(apply<float>("div.rn.f32 %d, %a, %b;", a, b),
        [&](std::size_t i) { return one_nan(a[i] / b[i]); });
  check(apply<float>("fma.rn.f32 %d, %a, %b, %c;", a, b, b),
        [&](std::size_t i) { return one_nan(std::fma(a[i], b[i], b[i])); });
  check(apply<float>("copysign.f32 %d, %a, %b;", a, b),
        [&](std::size_t i) { return std::copysign(b[i], a[i]); });
  check(apply<float>("min.f32 %d, %a, %b;", a, b), [&](std::size_t i) {
    if (a[i] != a[i] && b[i] != b[i]) return one_nan(a[i]);
    if (a[i] == 0 && b[i] == 0) return std::signbit(a[i]) || std::signbit(b[i]) ? -0.0F : 0.0F;
    return std::fmin(a[i], b[i]);
  });
  check(apply<float>("max.NaN.f32 %d, %a, %b;", a, b), [&](std::size_t i) {
    if (a[i] != a[i] || b[i] != b[i]) return one_nan(kNan);
    if (a[i] == 0 && b[i] == 0) return std::signbit(a[i]) && std::signbit(b[i]) ? -0.0F : 0.0F;
    return std::fmax(a[i], b[i]);
  });
  check(apply<float>("add.ftz.f32 %d, %a, %b;", a, b), [&](std::size_t i) {
    const auto flush = [](float x) {
      return std::fpclassify(x) == FP_SUBNORMAL ? std::copysign(0.0F, x) : x;
    };
    return one_nan(flush(flush(a[i]) + flush(b[i])));
  });
  std::vector<double> wide(a.begin(), a.end()), other(b.begin(), b.end());
  check(apply<double>("fma.rn.f64 %d, %a, %b, %c;", wide, other, other),
        [&](std::size_t i) { return std::fma(wide[i], other[i], other[i]); });
}

TEST_CASE("comparisons, ordered and not, combined with a predicate") {
  std::vector<float> a, b;
  float_pairs(&a, &b);
  const auto compared = [&](const std::string& what) {
    return apply<std::uint32_t>("setp." + what + ".f32 %p1, %a, %b; selp.u32 %d, 1, 0, %p1;", a, b);
  };
  const auto nan = [&](std::size_t i) { return a[i] != a[i] || b[i] != b[i]; };
  check(compared("lt"), [&](std::size_t i) { return std::uint32_t{!nan(i) && a[i] < b[i]}; });
  check(compared("ge"), [&](std::size_t i) { return std::uint32_t{!nan(i) && a[i] >= b[i]}; });
  check(compared("ne"), [&](std::size_t i) { return std::uint32_t{!nan(i) && a[i] != b[i]}; });
  check(compared("neu"), [&](std::size_t i) { return std::uint32_t{nan(i) || a[i] != b[i]}; });
  check(compared("equ"), [&](std::size_t i) { return std::uint32_t{nan(i) || a[i] == b[i]}; });
  check(compared("ltu"), [&](std::size_t i) { return std::uint32_t{nan(i) || a[i] < b[i]}; });
  check(compared("gtu"), [&](std::size_t i) { return std::uint32_t{nan(i) || a[i] > b[i]}; });
  check(compared("leu"), [&](std::size_t i) { return std::uint32_t{nan(i) || a[i] <= b[i]}; });
  check(compared("geu"), [&](std::size_t i) { return std::uint32_t{nan(i) || a[i] >= b[i]}; });
  check(compared("num"), [&](std::size_t i) { return std::uint32_t{!nan(i)}; });
  check(compared("nan"), [&](std::size_t i) { return std::uint32_t{nan(i)}; });
  const auto x = words(100, 8), y = words(100, 9);
  check(apply<std::uint32_t>("setp.ne.u32 %p2, %c, 0; setp.lt.and.s32 %p1|%p3, %a, %b, !%p2;\n"
                             "selp.u32 %d, 1, 0, %p1; @%p3 add.u32 %d, %d, 2;",
                             x, y, as<std::uint32_t>(std::vector<int>(100, 0))),
        [&](std::size_t i) {
          return static_cast<std::int32_t>(x[i]) < static_cast<std::int32_t>(y[i]) ? 1u : 2u;
        });
  check(
      apply<std::uint32_t>(
          "setp.gt.u32 %p1, %a, %b; @!%p1 bra NO; mov.u32 %d, 7; bra END; NO: mov.u32 %d, 9; END:",
          x, y),
      [&](std::size_t i) { return x[i] > y[i] ? 7u : 9u; });
}

TEST_CASE("floats to integers saturate and round as asked") {
  std::vector<float> a = kFloats;
  for (const float x :
       {2147483520.0F, 2147483648.0F, -2147483648.0F, -2147483904.0F, 4294967040.0F, 4294967296.0F,
        0.4999F, -0.5F, -1.5F, 127.5F, 9.2233715e18F, 9.223372e18F, -9.223372e18F}) {
    a.push_back(x);
  }
  const auto clamp = [](double x, double low, double high) {
    return x != x ? 0.0 : std::min(std::max(x, low), high);
  };
  check(apply<std::int32_t>("cvt.rzi.s32.f32 %d, %a;", a), [&](std::size_t i) {
    return static_cast<std::int32_t>(
        clamp(std::trunc(static_cast<double>(a[i])), -2147483648.0, 2147483647.0));
  });
  check(apply<std::uint32_t>("cvt.rni.u32.f32 %d, %a;", a), [&](std::size_t i) {
    return static_cast<std::uint32_t>(
        clamp(std::nearbyint(static_cast<double>(a[i])), 0.0, 4294967295.0));
  });
  check(apply<std::int32_t>("cvt.rmi.s32.f32 %d, %a;", a), [&](std::size_t i) {
    return static_cast<std::int32_t>(
        clamp(std::floor(static_cast<double>(a[i])), -2147483648.0, 2147483647.0));
  });
  std::vector<double> wide(a.begin(), a.end());
  check(apply<std::int64_t>("cvt.rzi.s64.f64 %d, %a;", wide), [&](std::size_t i) -> std::int64_t {
    const double x = std::trunc(wide[i]);
    if (x != x) return 0;
    if (x >= 9223372036854775808.0) return std::numeric_limits<std::int64_t>::max();
    if (x < -9223372036854775808.0) return std::numeric_limits<std::int64_t>::min();
    return static_cast<std::int64_t>(x);
  });
  check(apply<double>("cvt.rpi.f64.f64 %d, %a;", wide),
        [&](std::size_t i) { return std::ceil(wide[i]); });
}

TEST_CASE("integers to floats and to other widths") {
  const auto a = words(100, 11);
  const auto la = long_words(100, 12);
  check(apply<float>("cvt.rn.f32.s32 %d, %a;", as<std::int32_t>(a)),
        [&](std::size_t i) { return static_cast<float>(static_cast<std::int32_t>(a[i])); });
  check(apply<float>("cvt.rn.f32.u32 %d, %a;", a),
        [&](std::size_t i) { return static_cast<float>(a[i]); });
  check(apply<double>("cvt.rn.f64.u64 %d, %a;", la),
        [&](std::size_t i) { return static_cast<double>(la[i]); });
  check(apply<std::int64_t>("cvt.s64.s32 %d, %a;", as<std::int32_t>(a)),
        [&](std::size_t i) { return std::int64_t{static_cast<std::int32_t>(a[i])}; });
  check(apply<std::uint32_t>("cvt.u32.u64 %d, %a;", la),
        [&](std::size_t i) { return static_cast<std::uint32_t>(la[i]); });
  check(apply<std::int32_t>("cvt.s32.s8 %d, %a;", a),
        [&](std::size_t i) { return std::int32_t{static_cast<std::int8_t>(a[i])}; });
  check(apply<std::uint16_t>("cvt.u16.u32 %d, %a;", a),
        [&](std::size_t i) { return static_cast<std::uint16_t>(a[i]); });
  check(apply<std::uint32_t>("cvt.u16.u32 %rs1, %a; cvt.u32.u16 %d, %rs1;", a),
        [&](std::size_t i) { return a[i] & 0xFFFFu; });
  check(
      apply<std::int32_t>("cvt.u16.u32 %rs1, %a; add.s16 %rs1, %rs1, 5; cvt.s32.s16 %d, %rs1;", a),
      [&](std::size_t i) { return std::int32_t{static_cast<std::int16_t>(a[i] + 5)}; });
}

// The nearest 16-bit float found by trying them all: ties to the one whose last bit is 0.
std::uint16_t nearest(float value, int exponent_bits, int digits) {
  if (value != value) return 0x7FFF;
  const auto sign = static_cast<std::uint16_t>(std::signbit(value) ? 0x8000 : 0);
  const double x = std::fabs(static_cast<double>(value));
  const int bias = (1 << (exponent_bits - 1)) - 1;
  const auto decode = [&](int bits) {
    const int exponent = bits >> digits, fraction = bits & ((1 << digits) - 1);
    return exponent == 0 ? std::ldexp(fraction, 1 - bias - digits)
                         : std::ldexp(fraction + (1 << digits), exponent - bias - digits);
  };
  const int infinity = ((1 << exponent_bits) - 1)
                       << digits;  // counts as the next power of two would
  int low = 0, high = infinity;
  while (high - low > 1) {
    const int middle = (low + high) / 2;
    (decode(middle) <= x ? low : high) = middle;
  }
  const double below = x - decode(low), above = decode(high) - x;
  const bool up =
      above < below || (above == below && low % 2 == 1) || x == static_cast<double>(kInf);
  return static_cast<std::uint16_t>(sign | (up ? high : low));
}

TEST_CASE("16-bit floats round to the nearest") {
  std::vector<float> a = kFloats;
  std::mt19937 random(3);
  while (a.size() < 1000) {
    // Bits of every exponent that half has, many of them ties.
    const auto next = [&] { return static_cast<std::uint32_t>(random()); };
    std::uint32_t bits = (100 + next() % 45) << 23u | (next() & 0x7FF000u);
    if (next() % 4 == 0) bits |= next() & 0xFFFu;
    a.push_back(std::bit_cast<float>(bits | (next() & 1u) << 31u));
  }
  for (const float x : {65504.0F, 65519.9F, 65520.0F, 6.1035e-5F, 5.96e-8F, 2.98e-8F, 2.99e-8F})
    a[a.size() - static_cast<std::size_t>(x) % 7 - 1] = x;
  check(apply<std::uint16_t>("cvt.rn.f16.f32 %d, %a;", a),
        [&](std::size_t i) { return nearest(a[i], 5, 10); });
  check(apply<std::uint16_t>("cvt.rn.bf16.f32 %d, %a;", a),
        [&](std::size_t i) { return nearest(a[i], 8, 7); });
  check(apply<std::uint32_t>("cvt.rn.f16x2.f32 %d, %a, %b;", a, kFloats), [&](std::size_t i) {
    return static_cast<std::uint32_t>(nearest(a[i], 5, 10)) << 16u |
           nearest(i < kFloats.size() ? kFloats[i] : 0.0F, 5, 10);
  });
  std::vector<std::uint16_t> halves;
  for (unsigned bits = 0; bits < 1024; ++bits)
    halves.push_back(static_cast<std::uint16_t>(bits * 64 + bits % 64));
  const auto widened = apply<float>("cvt.f32.f16 %d, %a;", halves);
  for (std::size_t i = 0; i < halves.size(); ++i) {
    if (widened[i] == widened[i]) CHECK(nearest(widened[i], 5, 10) == halves[i]);
  }
}

TEST_CASE("TF32 is the nearest of ten bits of fraction, of two the larger") {
  std::vector<float> a = kFloats;
  std::mt19937 random(4);
  for (const float x : {std::numeric_limits<float>::max(), 0x1.FFDFFEp127F, 0x1.FFEp127F, 0x1p-126F,
                        0x1p-136F, 0x1p-137F, 0x1.8p-136F})
    a.insert(a.end(), {x, -x});
  while (a.size() < 1000) {
    // All exponents, a quarter of them ties, another a bit beside one.
    const auto next = [&] { return static_cast<std::uint32_t>(random()); };
    std::uint32_t bits = next() % 255 << 23u | (next() & 0x7FFFFFu);
    if (next() % 2 == 0) bits = (bits & ~0x1FFFu) | 0x1000u;
    if (next() % 2 == 0) bits += next() % 3 - 1;
    a.push_back(std::bit_cast<float>(bits | (next() & 1u) << 31u));
  }
  check(apply<std::uint32_t>("cvt.rna.tf32.f32 %d, %a;", a), [&](std::size_t i) {
    if (!(std::fabs(a[i]) < kInf)) return std::bit_cast<std::uint32_t>(a[i]) & 0xFFFFE000u;
    // Units of the last place; std::round takes ties away from zero. Past float's largest:
    // infinity.
    const int last = a[i] == 0 ? 0 : std::max(std::ilogb(a[i]), -126) - 10;
    const double whole = std::round(std::ldexp(static_cast<double>(a[i]), -last));
    return std::bit_cast<std::uint32_t>(
        static_cast<float>(std::copysign(std::ldexp(whole, last), static_cast<double>(a[i]))));
  });
  // What a NaN has below the ten bits is cut like everything else.
  const auto cut = apply<std::uint32_t>(
      "cvt.rna.tf32.f32 %d, %a;",
      std::vector<float>{std::bit_cast<float>(0x7F801FFFu), std::bit_cast<float>(0xFF802001u)});
  CHECK(cut == std::vector<std::uint32_t>{0x7F800000u, 0xFF802000u});
}

TEST_CASE("approximate and rounded functions") {
  std::vector<float> a = kFloats;
  for (int i = 0; i < 900; ++i) a.push_back(static_cast<float>(i - 450) / 3.0F);
  check(apply<float>("sqrt.rn.f32 %d, %a;", a),
        [&](std::size_t i) { return one_nan(std::sqrt(a[i])); });
  check(apply<float>("rcp.rn.f32 %d, %a;", a), [&](std::size_t i) { return one_nan(1.0F / a[i]); });
  check(apply<float>("ex2.approx.f32 %d, %a;", a), [&](std::size_t i) {
    return one_nan(static_cast<float>(std::exp2(static_cast<double>(a[i]))));
  });
  check(apply<float>("ex2.approx.ftz.f32 %d, %a;", a), [&](std::size_t i) {
    const auto y = static_cast<float>(std::exp2(static_cast<double>(a[i])));
    return one_nan(std::fpclassify(y) == FP_SUBNORMAL ? 0.0F : y);
  });
}

TEST_CASE("vectors of parts") {
  const auto a = words(40), b = words(40, 2);
  check(apply<std::uint32_t>("mov.b32 {%rs1, %rs2}, %a; mov.b32 %d, {%rs2, %rs1};", a),
        [&](std::size_t i) { return a[i] >> 16u | a[i] << 16u; });
  check(apply<std::uint64_t>("mov.b64 %d, {%a, %b};", a, b),
        [&](std::size_t i) { return a[i] | std::uint64_t{b[i]} << 32u; });
  check(apply<std::uint32_t>(
            "mov.b64 %rd10, {%a, %b}; mov.b64 {%a, %b}, %rd10; sub.u32 %d, %b, %a;", a, b),
        [&](std::size_t i) { return b[i] - a[i]; });
}

}  // namespace
}  // namespace specdec::ptx::testing
