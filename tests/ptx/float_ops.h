// Operations on floats with the device's results where PTX fixes them: round to nearest even, no
// contraction, one NaN. Approximate instructions (ex2, rsqrt, lg2, div.approx) give the correctly
// rounded value or nearly so, which the device's need not be.
#pragma once

#include <bit>
#include <cmath>
#include <limits>

#include "tests/ptx/dispatch.h"
#include "tests/ptx/half.h"

namespace specdec::ptx {

/// The device's NaN for results in float.
inline float settle_nan(float value) {
  return value == value ? value : std::bit_cast<float>(0x7FFFFFFFu);
}
inline double settle_nan(double value) { return value; }

struct FloatAdd {
  template <class T>
  static T run(T a, T b) {
    return settle_nan(a + b);
  }
};
struct FloatSub {
  template <class T>
  static T run(T a, T b) {
    return settle_nan(a - b);
  }
};
struct FloatMul {
  template <class T>
  static T run(T a, T b) {
    return settle_nan(a * b);
  }
};
struct FloatDiv {
  template <class T>
  static T run(T a, T b) {
    return settle_nan(a / b);
  }
};
struct FloatFma {
  template <class T>
  static T run(T a, T b, T c) {
    return settle_nan(std::fma(a, b, c));
  }
};
struct FloatMin {  // the operand that is a number; -0 < +0
  template <class T>
  static T run(T a, T b) {
    const T smaller = a < b ? a : b < a ? b : std::signbit(a) ? a : b;
    return a != a ? (b != b ? settle_nan(b) : b) : b != b ? a : smaller;
  }
};
struct FloatMax {
  template <class T>
  static T run(T a, T b) {
    const T larger = a > b ? a : b > a ? b : std::signbit(a) ? b : a;
    return a != a ? (b != b ? settle_nan(b) : b) : b != b ? a : larger;
  }
};
template <class Op>
struct NanWins {
  template <class T>
  static T run(T a, T b) {
    return a != a ? settle_nan(a) : b != b ? settle_nan(b) : Op::run(a, b);
  }
};
struct FloatAbs {
  template <class T>
  static T run(T a) {
    return std::fabs(a);
  }
};
struct FloatNeg {
  template <class T>
  static T run(T a) {
    return -a;
  }
};
struct CopySign {  // the sign of a, the magnitude of b
  template <class T>
  static T run(T a, T b) {
    return std::copysign(b, a);
  }
};
struct FloatRcp {
  template <class T>
  static T run(T a) {
    return settle_nan(T{1} / a);
  }
};
struct FloatSqrt {
  template <class T>
  static T run(T a) {
    return settle_nan(std::sqrt(a));
  }
};
struct FloatRsqrt {
  template <class T>
  static T run(T a) {
    return settle_nan(static_cast<T>(1.0 / std::sqrt(static_cast<double>(a))));
  }
};
struct FloatEx2 {
  // 2^n * 2^f with f in [-1/2, 1/2] by its series to the 13th power, whose error is far below
  // float's last bit.
  static float run(float a) {
    constexpr double kLn2 = 0.693147180559945309417;
    const double x = a < -200.0F ? -200.0 : a > 200.0F ? 200.0 : static_cast<double>(a);
    const double whole = std::nearbyint(x);
    const double y = (x - whole) * kLn2;
    double sum = 1.0;
    for (int k = 13; k > 0; --k) sum = 1.0 + sum * y / k;
    const auto exponent = static_cast<std::int64_t>(static_cast<std::int32_t>(whole)) + 1023;
    const double power = std::bit_cast<double>(exponent << 52);
    return a != a ? settle_nan(a) : static_cast<float>(sum * power);
  }
  static double run(double a) { return std::exp2(a); }
};
struct FloatLg2 {
  template <class T>
  static T run(T a) {
    return settle_nan(static_cast<T>(std::log2(static_cast<double>(a))));
  }
};

/// Subnormals to zeros of their sign.
inline float flush(float value) {
  return std::fabs(value) < std::numeric_limits<float>::min() ? std::copysign(0.0F, value) : value;
}
template <class Op>
struct Flushed {
  template <class... T>
  static float run(T... values) {
    return flush(Op::run(flush(values)...));
  }
};

// 16-bit floats, alone or two in a word: computed in float (fma: in double) and rounded to 16 bits.
// Float has more than twice the digits, so rounding twice gives what rounding once would.
template <class Op, class Format>
struct Sixteen {
  static Half run(Half a) { return {Format::round(Op::run(Format::widen(a.bits)))}; }
  static Half run(Half a, Half b) {
    return {Format::round(Op::run(Format::widen(a.bits), Format::widen(b.bits)))};
  }
  static Half run(Half a, Half b, Half c) {
    const double sum = Op::run(static_cast<double>(Format::widen(a.bits)),
                               static_cast<double>(Format::widen(b.bits)),
                               static_cast<double>(Format::widen(c.bits)));
    return {Format::round(static_cast<float>(sum))};
  }
  template <class... T>
  static std::uint32_t run(T... words) {
    const Half low = run(Half{static_cast<std::uint16_t>(words)}...);
    const Half high = run(Half{static_cast<std::uint16_t>(words >> 16u)}...);
    return low.bits | static_cast<std::uint32_t>(high.bits) << 16u;
  }
};

template <class Op>
Handler sixteen_bit_unary(Type type) {
  if (type.kind == Type::Kind::kFloat) {
    return type.packed == 2 ? Handler(&unary<Sixteen<Op, HalfFormat>, std::uint32_t>)
                            : Handler(&unary<Sixteen<Op, HalfFormat>, Half>);
  }
  return type.packed == 2 ? Handler(&unary<Sixteen<Op, BfloatFormat>, std::uint32_t>)
                          : Handler(&unary<Sixteen<Op, BfloatFormat>, Half>);
}
template <class Op>
Handler sixteen_bit_binary(Type type) {
  if (type.kind == Type::Kind::kFloat) {
    return type.packed == 2 ? Handler(&binary<Sixteen<Op, HalfFormat>, std::uint32_t>)
                            : Handler(&binary<Sixteen<Op, HalfFormat>, Half>);
  }
  return type.packed == 2 ? Handler(&binary<Sixteen<Op, BfloatFormat>, std::uint32_t>)
                          : Handler(&binary<Sixteen<Op, BfloatFormat>, Half>);
}
template <class Op>
Handler sixteen_bit_ternary(Type type) {
  if (type.kind == Type::Kind::kFloat) {
    return type.packed == 2 ? Handler(&ternary<Sixteen<Op, HalfFormat>, std::uint32_t>)
                            : Handler(&ternary<Sixteen<Op, HalfFormat>, Half>);
  }
  return type.packed == 2 ? Handler(&ternary<Sixteen<Op, BfloatFormat>, std::uint32_t>)
                          : Handler(&ternary<Sixteen<Op, BfloatFormat>, Half>);
}

}  // namespace specdec::ptx
