// cvt, mov and cvta.
#include <cmath>
#include <limits>

#include "tests/ptx/dispatch.h"
#include "tests/ptx/float_ops.h"

namespace specdec::ptx {
namespace {

// Integers: through the narrower type, then to the width of the register, by the sign of the
// result's type.
template <class D>
struct ToInteger {
  using Out =
      std::conditional_t<sizeof(D) == 8, D,
                         std::conditional_t<std::is_signed_v<D>, std::int32_t, std::uint32_t>>;
  template <class S>
  static Out run(S value) {
    return static_cast<Out>(static_cast<D>(value));
  }
};

enum class Round { kNearest, kZero, kDown, kUp };

template <Round kRound, class T>
T to_integral(T value) {
  if constexpr (kRound == Round::kNearest) return std::nearbyint(value);
  if constexpr (kRound == Round::kZero) return std::trunc(value);
  if constexpr (kRound == Round::kDown) return std::floor(value);
  return std::ceil(value);
}

// Floats to integers saturate; NaN becomes 0.
template <Round kRound, class D>
struct FloatToInteger {
  using Out = typename ToInteger<D>::Out;
  template <class S>
  static Out run(S value) {
    const S whole = to_integral<kRound>(value);
    if (whole != whole) return 0;
    // The limits as floats: the lower one is exact, the upper one may be one more than the largest
    // value.
    constexpr S kLow = static_cast<S>(std::numeric_limits<D>::min());
    constexpr S kHigh = static_cast<S>(std::numeric_limits<D>::max());
    if (whole <= kLow) return static_cast<Out>(std::numeric_limits<D>::min());
    if (whole >= kHigh) return static_cast<Out>(std::numeric_limits<D>::max());
    return static_cast<Out>(static_cast<D>(whole));
  }
};
template <class D>
struct IntegerToFloat {
  template <class S>
  static D run(S value) {
    return static_cast<D>(value);
  }
};
template <Round kRound>
struct Integral {
  template <class T>
  static T run(T value) {
    return settle_nan(to_integral<kRound>(value));
  }
};
struct Same {
  template <class T>
  static T run(T value) {
    return value;
  }
};
struct Saturate {  // to [0, 1]; NaN to 0
  template <class T>
  static T run(T value) {
    return value > T{0} ? (value < T{1} ? value : T{1}) : T{0};
  }
};
struct Widen {
  static double run(float value) { return static_cast<double>(value); }
};
struct Narrow {
  static float run(double value) { return settle_nan(static_cast<float>(value)); }
};
template <class Format>
struct FromSixteen {
  static float run(Half value) { return settle_nan(Format::widen(value.bits)); }
};
template <class Format>
struct ToSixteen {
  static Half run(float value) { return {Format::round(value)}; }
};
template <class Format>
struct ToPair {
  static std::uint32_t run(float high, float low) {
    return Format::round(low) | static_cast<std::uint32_t>(Format::round(high)) << 16u;
  }
};

/// f(Tag<T>) with the integer of `type`, of 8 bits as well.
template <class F>
Handler any_integer(Type type, F&& f) {
  if (type.bits != 8) return for_integer(type, f);
  return type.is_signed() ? f(Tag<std::int8_t>()) : f(Tag<std::uint8_t>());
}

template <class D, class S>
void convert_integer(Warp& warp, const Instr& instr) {
  unary<ToInteger<D>, typename ToInteger<D>::Out, S>(warp, instr);
}

Handler integer_to_integer(Type to, Type from) {
  return any_integer(to, [&](auto d) -> Handler {
    return any_integer(from, [](auto s) -> Handler {
      return &convert_integer<Tagged<decltype(d)>, Tagged<decltype(s)>>;
    });
  });
}

template <Round kRound>
Handler float_to_integer(Type to, Type from) {
  return any_integer(to, [&](auto d) -> Handler {
    return for_float(from, [](auto s) -> Handler {
      using D = Tagged<decltype(d)>;
      return &unary<FloatToInteger<kRound, D>, typename ToInteger<D>::Out, Tagged<decltype(s)>>;
    });
  });
}

Handler integer_to_float(Type to, Type from) {
  return any_integer(from, [&](auto s) -> Handler {
    return for_float(to, [](auto d) -> Handler {
      using D = Tagged<decltype(d)>;
      return &unary<IntegerToFloat<D>, D, Tagged<decltype(s)>>;
    });
  });
}

template <Round kRound>
Handler integral(Type type) {
  return for_float(
      type, [](auto tag) -> Handler { return &unary<Integral<kRound>, Tagged<decltype(tag)>>; });
}

struct Modifiers {
  bool rni, rzi, rmi, rpi, rn, sat, ftz;
  explicit Modifiers(Words& words)
      : rni(words.take("rni")),
        rzi(words.take("rzi")),
        rmi(words.take("rmi")),
        rpi(words.take("rpi")),
        rn(words.take("rn")),
        sat(words.take("sat")),
        ftz(words.take("ftz")) {}
  bool integral() const { return rni || rzi || rmi || rpi; }
};

Handler float_to_float(Type to, Type from, const Modifiers& how) {
  if (to.bits == from.bits && to.kind == from.kind && to.bits >= 32) {
    if (how.sat && !how.integral()) {
      return for_float(to,
                       [](auto tag) -> Handler { return &unary<Saturate, Tagged<decltype(tag)>>; });
    }
    if (how.sat) return nullptr;
    if (how.rni) return integral<Round::kNearest>(to);
    if (how.rzi) return integral<Round::kZero>(to);
    if (how.rmi) return integral<Round::kDown>(to);
    if (how.rpi) return integral<Round::kUp>(to);
    if (how.ftz && to.bits == 32) return &unary<Flushed<Same>, float>;
    return for_float(to, [](auto tag) -> Handler { return &unary<Same, Tagged<decltype(tag)>>; });
  }
  if (how.sat || how.ftz || how.integral()) return nullptr;
  if (to.bits == 64 && from.bits == 32) return &unary<Widen, double, float>;
  if (!how.rn && to.bits < from.bits) return nullptr;  // toward zero and the like
  if (to.bits == 32 && from.bits == 64) return &unary<Narrow, float, double>;
  const bool bfloat = to.kind == Type::Kind::kBfloat || from.kind == Type::Kind::kBfloat;
  if (to.bits == 32 && from.bits == 16) {
    return bfloat ? &unary<FromSixteen<BfloatFormat>, float, Half>
                  : &unary<FromSixteen<HalfFormat>, float, Half>;
  }
  if (to.bits == 16 && from.bits == 32) {
    return bfloat ? &unary<ToSixteen<BfloatFormat>, Half, float>
                  : &unary<ToSixteen<HalfFormat>, Half, float>;
  }
  return nullptr;
}

// To TF32, to the nearest, ties away from zero, as devices do it: half of the last place that stays
// is added to the bits of what is finite, then the thirteen below are cut. So a NaN all of whose
// bits lie there becomes infinity.
struct ToTf32 {
  static std::uint32_t run(float value) {
    const auto bits = std::bit_cast<std::uint32_t>(value);
    const bool finite = (bits & 0x7F800000u) != 0x7F800000u;
    return (bits + (finite ? 0x1000u : 0u)) & kTf32Bits;
  }
};

void decode_to_tf32(Decoder& decoder, const Statement& statement, Words& words) {
  const Type from = words.type();
  if (from.kind != Type::Kind::kFloat || from.bits != 32 || !words.take("rna"))
    decoder.unknown(statement);
  emit_simple(decoder, statement, &unary<ToTf32, std::uint32_t, float>, kU32, {from});
}

// A source register may be wider than the type: its low bits count.
Place narrowed(Decoder& decoder, const Operand& operand, Type type) {
  if (operand.kind == Operand::Kind::kNumber) return decoder.use(operand, type);
  int bits = 0;
  const Place place = decoder.use_any(operand, &bits);
  if (bits != 64 || type.bits == 64) return place;
  Instr instr;
  instr.run = &unary<ToInteger<std::uint32_t>, std::uint32_t, std::uint64_t>;
  instr.a = place;
  instr.d = decoder.new_register(32);
  decoder.emit(instr);
  return instr.d;
}

void decode_cvt(Decoder& decoder, const Statement& statement, Words& words) {
  if (words.take("tf32")) return decode_to_tf32(decoder, statement, words);
  const Type to = words.type();
  const Type from = words.type();
  const Modifiers how(words);
  if (to.packed == 2) {
    if (from.bits != 32 || !how.rn || how.sat || how.ftz) decoder.unknown(statement);
    emit_simple(decoder, statement,
                to.kind == Type::Kind::kBfloat ? &binary<ToPair<BfloatFormat>, std::uint32_t, float>
                                               : &binary<ToPair<HalfFormat>, std::uint32_t, float>,
                to, {from, from});
    return;
  }
  Handler run = nullptr;
  if (to.is_float() && from.is_float()) {
    run = float_to_float(to, from, how);
  } else if (to.is_float()) {
    run = how.rn && !how.sat ? integer_to_float(to, from) : nullptr;
  } else if (from.is_float()) {
    run = how.rni   ? float_to_integer<Round::kNearest>(to, from)
          : how.rzi ? float_to_integer<Round::kZero>(to, from)
          : how.rmi ? float_to_integer<Round::kDown>(to, from)
          : how.rpi ? float_to_integer<Round::kUp>(to, from)
                    : nullptr;
    if (how.ftz) run = nullptr;
  } else {
    run = how.sat ? nullptr : integer_to_integer(to, from);
  }
  if (run == nullptr) decoder.unknown(statement);
  Instr instr;
  instr.run = run;
  instr.a = narrowed(decoder, statement.operands.at(1), from);
  instr.d = decoder.define(statement.operands.at(0), to);
  decoder.emit(instr);
}

// mov between registers, and between a register and the parts of a vector.

void move_predicate(Warp& warp, const Instr& instr) {
  write_predicate(warp, instr.d, read_predicate(warp, instr.a));
}

// d = {parts}: the first part is the lowest.
template <class T>
void pack(Warp& warp, const Instr& instr) {
  const Place* parts = &warp.launch->program->operands[instr.more];
  const std::uint32_t count = instr.more_count;
  const std::uint32_t bits = static_cast<std::uint32_t>(8 * sizeof(T)) / count;
  const T mask = static_cast<T>((T{1} << bits) - 1);
  each_lane<T>(warp, instr.d, [&](int lane) {
    T value = 0;
    for (std::uint32_t i = 0; i < count; ++i) {
      value |= static_cast<T>(static_cast<T>(warp.row<std::uint32_t>(parts[i])[lane]) & mask)
               << (i * bits);
    }
    return value;
  });
}

template <class T>
void unpack(Warp& warp, const Instr& instr) {
  const Place* parts = &warp.launch->program->operands[instr.more];
  const std::uint32_t count = instr.more_count;
  const std::uint32_t bits = static_cast<std::uint32_t>(8 * sizeof(T)) / count;
  const T mask = static_cast<T>((T{1} << bits) - 1);
  const T* a = warp.row<T>(instr.a);
  T copy[kLanes];  // a part may be the source itself
  for (int lane = 0; lane < kLanes; ++lane) copy[lane] = a[lane];
  for (std::uint32_t i = 0; i < count; ++i) {
    each_lane<std::uint32_t>(warp, parts[i], [&](int lane) {
      return static_cast<std::uint32_t>(copy[lane] >> (i * bits) & mask);
    });
  }
}

void decode_mov(Decoder& decoder, const Statement& statement, Words& words) {
  const Type type = words.type();
  const Operand& to = statement.operands.at(0);
  const Operand& from = statement.operands.at(1);
  Instr instr;
  if (type.is_predicate()) {
    emit_simple(decoder, statement, &move_predicate, type, {type});
    return;
  }
  const auto part_type = [&](std::size_t parts) {
    if (parts == 0 || (type.bits != 32 && type.bits != 64)) decoder.unknown(statement);
    Type part = type;
    part.kind = Type::Kind::kBits;
    part.bits = type.bits / static_cast<int>(parts);
    if (part.bits > 32) decoder.unknown(statement);
    return part;
  };
  if (from.kind == Operand::Kind::kVector) {
    const Type part = part_type(from.parts.size());
    std::vector<Place> places;
    for (const Operand& operand : from.parts) places.push_back(decoder.use(operand, part));
    instr.run = type.bits == 64 ? &pack<std::uint64_t> : &pack<std::uint32_t>;
    instr.d = decoder.define(to, type);
    decoder.more(instr, places, {});
    decoder.emit(instr);
    return;
  }
  if (to.kind == Operand::Kind::kVector) {
    const Type part = part_type(to.parts.size());
    std::vector<Place> places;
    for (const Operand& operand : to.parts) places.push_back(decoder.define(operand, part));
    instr.run = type.bits == 64 ? &unpack<std::uint64_t> : &unpack<std::uint32_t>;
    instr.a = decoder.use(from, type);
    decoder.more(instr, {}, places);
    decoder.emit(instr);
    return;
  }
  instr.run = type.bits == 64 ? &unary<Same, std::uint64_t> : &unary<Same, std::uint32_t>;
  if (from.kind == Operand::Kind::kName &&
      type.bits == 64) {  // the address of dynamic shared memory is a 32-bit row
    int bits = 0;
    instr.a = decoder.use_any(from, &bits);
    if (bits != 64) instr.run = &unary<Same, std::uint64_t, std::uint32_t>;
  } else {
    instr.a = decoder.use(from, type);
  }
  instr.d = decoder.define(to, type);
  decoder.emit(instr);
}

// cvta: between the addresses of a space and generic ones, which are the host's.

std::int64_t generic_of(const Warp& warp, Space space, int lane) {
  switch (space) {
    case Space::kShared:
      return static_cast<std::int64_t>(reinterpret_cast<std::uintptr_t>(warp.block->shared)) -
             kSpaceBase;
    case Space::kLocal:
      return static_cast<std::int64_t>(reinterpret_cast<std::uintptr_t>(warp.local_of(lane))) -
             kSpaceBase;
    case Space::kParam:
      return static_cast<std::int64_t>(
                 reinterpret_cast<std::uintptr_t>(warp.launch->params.data())) -
             kSpaceBase;
    default:
      return 0;
  }
}

template <class A, bool kToSpace>
void change_space(Warp& warp, const Instr& instr) {
  const A* a = warp.row<A>(instr.a);
  const auto space = static_cast<Space>(instr.kind);
  if (kToSpace) {
    each_lane<std::uint64_t>(warp, instr.d, [&](int lane) {
      return static_cast<std::uint64_t>(a[lane]) -
             static_cast<std::uint64_t>(generic_of(warp, space, lane));
    });
  } else {
    each_lane<std::uint64_t>(warp, instr.d, [&](int lane) {
      return static_cast<std::uint64_t>(a[lane]) +
             static_cast<std::uint64_t>(generic_of(warp, space, lane));
    });
  }
}

void decode_cvta(Decoder& decoder, const Statement& statement, Words& words) {
  const bool to_space = words.take("to");
  Instr instr;
  instr.kind = static_cast<std::uint8_t>(words.space());
  const Type type = words.type();
  if (type.bits != 64) decoder.unknown(statement);
  int bits = 0;
  instr.a = decoder.use_any(statement.operands.at(1), &bits);
  if (to_space) {
    if (bits != 64) decoder.unknown(statement);
    instr.run = &change_space<std::uint64_t, true>;
  } else {
    instr.run =
        bits == 64 ? &change_space<std::uint64_t, false> : &change_space<std::uint32_t, false>;
  }
  const auto space = static_cast<Space>(instr.kind);
  if (bits == 64 && (space == Space::kGlobal || space == Space::kConst))
    instr.run = &unary<Same, std::uint64_t>;
  instr.d = decoder.define(statement.operands.at(0), type);
  decoder.emit(instr);
}

}  // namespace

void add_conversions(OpTable& table) {
  table["cvt"] = &decode_cvt;
  table["mov"] = &decode_mov;
  table["cvta"] = &decode_cvta;
}

}  // namespace specdec::ptx
