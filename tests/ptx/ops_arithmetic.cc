// Arithmetic on integers and floats, comparisons, selection.
#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>

#include "tests/ptx/dispatch.h"
#include "tests/ptx/float_ops.h"

namespace specdec::ptx {
namespace {

// Integers wrap: computed unsigned.
template <class T>
using Unsigned = std::make_unsigned_t<T>;
template <class T>
using Wider =
    std::conditional_t<sizeof(T) == 2,
                       std::conditional_t<std::is_signed_v<T>, std::int32_t, std::uint32_t>,
                       std::conditional_t<std::is_signed_v<T>, std::int64_t, std::uint64_t>>;

struct Add {
  template <class T>
  static T run(T a, T b) {
    return static_cast<T>(static_cast<Unsigned<T>>(a) + static_cast<Unsigned<T>>(b));
  }
};
struct Sub {
  template <class T>
  static T run(T a, T b) {
    return static_cast<T>(static_cast<Unsigned<T>>(a) - static_cast<Unsigned<T>>(b));
  }
};
struct MulLo {
  template <class T>
  static T run(T a, T b) {
    using U = std::conditional_t<sizeof(T) == 2, std::uint32_t,
                                 Unsigned<T>>;  // 16 bits would become a signed int
    return static_cast<T>(static_cast<U>(a) * static_cast<U>(b));
  }
};
struct MulHi {
  template <class T>
  static T run(T a, T b) {
    if constexpr (sizeof(T) == 8) {
      __extension__ using Wide =
          std::conditional_t<std::is_signed_v<T>, __int128, unsigned __int128>;
      return static_cast<T>((static_cast<Wide>(a) * static_cast<Wide>(b)) >> 64);
    } else {
      using Wide = Wider<T>;
      return static_cast<T>((static_cast<Wide>(a) * static_cast<Wide>(b)) >> (8 * sizeof(T)));
    }
  }
};
struct MulWide {
  template <class T>
  static Wider<T> run(T a, T b) {
    return static_cast<Wider<T>>(static_cast<Unsigned<Wider<T>>>(a) *
                                 static_cast<Unsigned<Wider<T>>>(b));
  }
};
struct MadLo {
  template <class T>
  static T run(T a, T b, T c) {
    return Add::run(MulLo::run(a, b), c);
  }
};
struct MadHi {
  template <class T>
  static T run(T a, T b, T c) {
    return Add::run(MulHi::run(a, b), c);
  }
};
struct MadWide {
  template <class T>
  static Wider<T> run(T a, T b, Wider<T> c) {
    return Add::run(MulWide::run(a, b), c);
  }
};
struct Div {  // by 0: all ones, as devices do
  template <class T>
  static T run(T a, T b) {
    if (b == 0) return static_cast<T>(-1);
    if constexpr (std::is_signed_v<T>) {
      if (b == -1) return Sub::run(T{0}, a);
    }
    return static_cast<T>(a / b);
  }
};
struct Rem {
  template <class T>
  static T run(T a, T b) {
    if (b == 0) return a;
    if constexpr (std::is_signed_v<T>) {
      if (b == -1) return 0;
    }
    return static_cast<T>(a % b);
  }
};
struct Min {
  template <class T>
  static T run(T a, T b) {
    return b < a ? b : a;
  }
};
struct Max {
  template <class T>
  static T run(T a, T b) {
    return a < b ? b : a;
  }
};
struct Abs {
  template <class T>
  static T run(T a) {
    return a < 0 ? Sub::run(T{0}, a) : a;
  }
};
struct Neg {
  template <class T>
  static T run(T a) {
    return Sub::run(T{0}, a);
  }
};
struct And {
  template <class T>
  static T run(T a, T b) {
    return static_cast<T>(a & b);
  }
};
struct Or {
  template <class T>
  static T run(T a, T b) {
    return static_cast<T>(a | b);
  }
};
struct Xor {
  template <class T>
  static T run(T a, T b) {
    return static_cast<T>(a ^ b);
  }
};
struct Not {
  template <class T>
  static T run(T a) {
    return static_cast<T>(~a);
  }
};
struct Shl {
  template <class T>
  static T run(T a, std::uint32_t by) {
    const std::uint32_t bits = 8 * sizeof(T);
    return by < bits ? static_cast<T>(static_cast<Unsigned<T>>(a) << by) : T{0};
  }
};
struct Shr {
  template <class T>
  static T run(T a, std::uint32_t by) {
    const std::uint32_t last = 8 * sizeof(T) - 1;
    if constexpr (std::is_signed_v<T>) return static_cast<T>(a >> (by < last ? by : last));
    return by <= last ? static_cast<T>(a >> by) : T{0};
  }
};

// The instance of Op for integers, of FloatOp for floats, through float for 16 bits.
template <class Op, class FloatOp>
Handler two_sources(Type type, bool ftz) {
  if (type.bits == 16 || type.packed == 2) {
    if (type.is_float()) return sixteen_bit_binary<FloatOp>(type);
  }
  if (type.is_float()) {
    if (ftz && type.bits == 32) return &binary<Flushed<FloatOp>, float>;
    return for_float(type,
                     [](auto tag) -> Handler { return &binary<FloatOp, Tagged<decltype(tag)>>; });
  }
  return for_integer(type, [](auto tag) -> Handler { return &binary<Op, Tagged<decltype(tag)>>; });
}

template <class Op, class FloatOp>
void decode_two(Decoder& decoder, const Statement& statement, Words& words) {
  const Type type = words.type();
  words.take("rn");
  const bool ftz = words.take("ftz");
  emit_simple(decoder, statement, two_sources<Op, FloatOp>(type, ftz), type, {type, type});
}

template <class Op>
void decode_one_integer(Decoder& decoder, const Statement& statement, Words& words) {
  const Type type = words.type();
  emit_simple(
      decoder, statement,
      for_integer(type, [](auto tag) -> Handler { return &unary<Op, Tagged<decltype(tag)>>; }),
      type, {type});
}

// and, or, xor, not: on bits or predicates.
struct PredicateAnd {
  static std::uint32_t run(std::uint32_t a, std::uint32_t b) { return a & b; }
};
struct PredicateOr {
  static std::uint32_t run(std::uint32_t a, std::uint32_t b) { return a | b; }
};
struct PredicateXor {
  static std::uint32_t run(std::uint32_t a, std::uint32_t b) { return a ^ b; }
};
template <class Op>
void predicates(Warp& warp, const Instr& instr) {
  write_predicate(warp, instr.d,
                  Op::run(read_predicate(warp, instr.a), read_predicate(warp, instr.b)));
}

template <class Op, class PredicateOp>
void decode_logic(Decoder& decoder, const Statement& statement, Words& words) {
  const Type type = words.type();
  const Handler run =
      type.is_predicate() ? &predicates<PredicateOp> : for_integer(type, [](auto tag) -> Handler {
        return &binary<Op, Tagged<decltype(tag)>>;
      });
  emit_simple(decoder, statement, run, type, {type, type});
}

void decode_not(Decoder& decoder, const Statement& statement, Words& words) {
  if (words.take("pred")) {
    emit_simple(decoder, statement, &negate_predicate, kPredicateType, {kPredicateType});
  } else {
    decode_one_integer<Not>(decoder, statement, words);
  }
}

void decode_mul(Decoder& decoder, const Statement& statement, Words& words) {
  const Type type = words.type();
  if (type.is_float()) {
    words.take("rn");
    const bool ftz = words.take("ftz");
    emit_simple(decoder, statement, two_sources<MulLo, FloatMul>(type, ftz), type, {type, type});
  } else if (words.take("wide")) {
    Type result = type;
    result.bits *= 2;
    Handler run = nullptr;
    switch (type.bits) {
      case 16:
        run = type.is_signed() ? Handler(&binary<MulWide, std::int32_t, std::int16_t>)
                               : Handler(&binary<MulWide, std::uint32_t, std::uint16_t>);
        break;
      case 32:
        run = type.is_signed() ? Handler(&binary<MulWide, std::int64_t, std::int32_t>)
                               : Handler(&binary<MulWide, std::uint64_t, std::uint32_t>);
        break;
      default:
        break;
    }
    emit_simple(decoder, statement, run, result, {type, type});
  } else if (words.take("hi")) {
    emit_simple(
        decoder, statement,
        for_integer(type,
                    [](auto tag) -> Handler { return &binary<MulHi, Tagged<decltype(tag)>>; }),
        type, {type, type});
  } else if (words.take("lo")) {
    emit_simple(
        decoder, statement,
        for_integer(type,
                    [](auto tag) -> Handler { return &binary<MulLo, Tagged<decltype(tag)>>; }),
        type, {type, type});
  } else {
    decoder.unknown(statement);
  }
}

void decode_mad(Decoder& decoder, const Statement& statement, Words& words) {
  const Type type = words.type();
  if (words.take("wide")) {
    Type result = type;
    result.bits *= 2;
    Handler run = nullptr;
    if (type.bits == 32) {
      run =
          type.is_signed()
              ? Handler(&ternary<MadWide, std::int64_t, std::int32_t, std::int32_t, std::int64_t>)
              : Handler(
                    &ternary<MadWide, std::uint64_t, std::uint32_t, std::uint32_t, std::uint64_t>);
    } else if (type.bits == 16) {
      run =
          type.is_signed()
              ? Handler(&ternary<MadWide, std::int32_t, std::int16_t, std::int16_t, std::int32_t>)
              : Handler(
                    &ternary<MadWide, std::uint32_t, std::uint16_t, std::uint16_t, std::uint32_t>);
    }
    emit_simple(decoder, statement, run, result, {type, type, result});
  } else if (words.take("lo")) {
    emit_simple(
        decoder, statement,
        for_integer(type,
                    [](auto tag) -> Handler { return &ternary<MadLo, Tagged<decltype(tag)>>; }),
        type, {type, type, type});
  } else if (words.take("hi")) {
    emit_simple(
        decoder, statement,
        for_integer(type,
                    [](auto tag) -> Handler { return &ternary<MadHi, Tagged<decltype(tag)>>; }),
        type, {type, type, type});
  } else {
    decoder.unknown(statement);
  }
}

void decode_fma(Decoder& decoder, const Statement& statement, Words& words) {
  const Type type = words.type();
  if (!words.take("rn")) decoder.unknown(statement);
  const bool ftz = words.take("ftz");
  Handler run = nullptr;
  if (type.bits == 16 || type.packed == 2) {
    run = sixteen_bit_ternary<FloatFma>(type);
  } else if (ftz && type.bits == 32) {
    run = &ternary<Flushed<FloatFma>, float>;
  } else {
    run = for_float(type,
                    [](auto tag) -> Handler { return &ternary<FloatFma, Tagged<decltype(tag)>>; });
  }
  emit_simple(decoder, statement, run, type, {type, type, type});
}

void decode_div(Decoder& decoder, const Statement& statement, Words& words) {
  const Type type = words.type();
  if (!type.is_float()) {
    emit_simple(
        decoder, statement,
        for_integer(type, [](auto tag) -> Handler { return &binary<Div, Tagged<decltype(tag)>>; }),
        type, {type, type});
    return;
  }
  words.take("rn") || words.take("approx") || words.take("full");
  const bool ftz = words.take("ftz");
  emit_simple(decoder, statement, two_sources<Div, FloatDiv>(type, ftz), type, {type, type});
}

void decode_rem(Decoder& decoder, const Statement& statement, Words& words) {
  const Type type = words.type();
  emit_simple(
      decoder, statement,
      for_integer(type, [](auto tag) -> Handler { return &binary<Rem, Tagged<decltype(tag)>>; }),
      type, {type, type});
}

template <class Op, class FloatOp>
void decode_min_max(Decoder& decoder, const Statement& statement, Words& words) {
  const Type type = words.type();
  const bool ftz = words.take("ftz");
  if (words.take("NaN")) {
    emit_simple(decoder, statement, two_sources<Op, NanWins<FloatOp>>(type, ftz), type,
                {type, type});
  } else {
    emit_simple(decoder, statement, two_sources<Op, FloatOp>(type, ftz), type, {type, type});
  }
}

template <class Op, class FloatOp>
void decode_sign(Decoder& decoder, const Statement& statement, Words& words) {
  const Type type = words.type();
  const bool ftz = words.take("ftz");
  Handler run = nullptr;
  if (!type.is_float()) {
    run = for_integer(type, [](auto tag) -> Handler { return &unary<Op, Tagged<decltype(tag)>>; });
  } else if (type.bits == 16 || type.packed == 2) {
    run = sixteen_bit_unary<FloatOp>(type);
  } else if (ftz && type.bits == 32) {
    run = &unary<Flushed<FloatOp>, float>;
  } else {
    run =
        for_float(type, [](auto tag) -> Handler { return &unary<FloatOp, Tagged<decltype(tag)>>; });
  }
  emit_simple(decoder, statement, run, type, {type});
}

template <class Op>
void decode_one_float(Decoder& decoder, const Statement& statement, Words& words) {
  const Type type = words.type();
  words.take("rn") || words.take("approx");
  const bool ftz = words.take("ftz");
  Handler run = nullptr;
  if (ftz && type.bits == 32 && type.is_float()) {
    run = &unary<Flushed<Op>, float>;
  } else {
    run = for_float(type, [](auto tag) -> Handler { return &unary<Op, Tagged<decltype(tag)>>; });
  }
  emit_simple(decoder, statement, run, type, {type});
}

void decode_copysign(Decoder& decoder, const Statement& statement, Words& words) {
  const Type type = words.type();
  emit_simple(
      decoder, statement,
      for_float(type, [](auto tag) -> Handler { return &binary<CopySign, Tagged<decltype(tag)>>; }),
      type, {type, type});
}

template <class Op>
void decode_shift(Decoder& decoder, const Statement& statement, Words& words) {
  const Type type = words.type();
  emit_simple(decoder, statement,
              for_integer(type,
                          [](auto tag) -> Handler {
                            using T = Tagged<decltype(tag)>;
                            return &binary<Op, T, T, std::uint32_t>;
                          }),
              type, {type, kU32});
}

// Comparisons. Ordered ones are false, the "u" ones true when a NaN is involved.
struct Eq {
  template <class T>
  static bool run(T a, T b) {
    return a == b;
  }
};
struct Lt {
  template <class T>
  static bool run(T a, T b) {
    return a < b;
  }
};
struct Le {
  template <class T>
  static bool run(T a, T b) {
    return a <= b;
  }
};
struct Ordered {
  template <class T>
  static bool run(T a, T b) {
    return a == a && b == b;
  }
};
template <class Op>
struct Swapped {
  template <class T>
  static bool run(T a, T b) {
    return Op::run(b, a);
  }
};
template <class Op>
struct Negated {
  template <class T>
  static bool run(T a, T b) {
    return !Op::run(a, b);
  }
};
struct Ne {
  template <class T>
  static bool run(T a, T b) {
    return Ordered::run(a, b) && a != b;
  }
};

enum : std::uint8_t { kNoCombination, kCombineAnd, kCombineOr, kCombineXor };

std::uint32_t combine(const Warp& warp, const Instr& instr, std::uint32_t bits) {
  switch (instr.kind) {
    case kCombineAnd:
      return bits & read_predicate(warp, instr.c);
    case kCombineOr:
      return bits | read_predicate(warp, instr.c);
    case kCombineXor:
      return bits ^ read_predicate(warp, instr.c);
    default:
      return bits;
  }
}

template <class Op, class T>
void compare(Warp& warp, const Instr& instr) {
  const Cell<T>* a = warp.row<Cell<T>>(instr.a);
  const Cell<T>* b = warp.row<Cell<T>>(instr.b);
  const std::uint32_t bits =
      lane_bits([&](int lane) { return Op::run(from_cell<T>(a[lane]), from_cell<T>(b[lane])); });
  const std::uint32_t second = instr.more_count != 0 ? combine(warp, instr, ~bits) : 0;
  write_predicate(warp, instr.d, combine(warp, instr, bits));
  if (instr.more_count != 0) {
    write_predicate(warp, warp.launch->program->operands[instr.more], second);
  }
}

template <class Op>
Handler comparison(Type type) {
  if (type.is_float()) {
    return for_float(type, [](auto tag) -> Handler { return &compare<Op, Tagged<decltype(tag)>>; });
  }
  return for_integer(type, [](auto tag) -> Handler { return &compare<Op, Tagged<decltype(tag)>>; });
}

Handler comparison(Words& words, Type* type) {
  *type = words.type();
  const bool is_float = type->is_float();
  if (words.take("eq")) return comparison<Eq>(*type);
  if (words.take("ne")) return is_float ? comparison<Ne>(*type) : comparison<Negated<Eq>>(*type);
  if (words.take("lt")) return comparison<Lt>(*type);
  if (words.take("le")) return comparison<Le>(*type);
  if (words.take("gt")) return comparison<Swapped<Lt>>(*type);
  if (words.take("ge")) return comparison<Swapped<Le>>(*type);
  if (words.take("equ")) return comparison<Negated<Ne>>(*type);
  if (words.take("neu")) return comparison<Negated<Eq>>(*type);
  if (words.take("ltu")) return comparison<Negated<Swapped<Le>>>(*type);
  if (words.take("leu")) return comparison<Negated<Swapped<Lt>>>(*type);
  if (words.take("gtu")) return comparison<Negated<Le>>(*type);
  if (words.take("geu")) return comparison<Negated<Lt>>(*type);
  if (words.take("num")) return comparison<Ordered>(*type);
  if (words.take("nan")) return comparison<Negated<Ordered>>(*type);
  if (words.take("lo")) return comparison<Lt>(*type);
  if (words.take("ls")) return comparison<Le>(*type);
  if (words.take("hi")) return comparison<Swapped<Lt>>(*type);
  if (words.take("hs")) return comparison<Swapped<Le>>(*type);
  return nullptr;
}

void decode_setp(Decoder& decoder, const Statement& statement, Words& words) {
  Instr instr;
  Type type;
  if (words.take("and")) instr.kind = kCombineAnd;
  if (words.take("or")) instr.kind = kCombineOr;
  if (words.take("xor")) instr.kind = kCombineXor;
  instr.run = comparison(words, &type);
  if (instr.run == nullptr) decoder.unknown(statement, "this comparison of this type");
  const bool ftz = words.take("ftz");
  if (ftz) decoder.unknown(statement, "comparisons that flush");
  instr.a = decoder.use(statement.operands.at(1), type);
  instr.b = decoder.use(statement.operands.at(2), type);
  if (instr.kind != kNoCombination) instr.c = decoder.use(statement.operands.at(3), kPredicateType);
  const Operand& to = statement.operands.at(0);
  if (to.kind == Operand::Kind::kPair) {
    instr.d = decoder.define(to.parts[0], kPredicateType);
    decoder.more(instr, {}, {decoder.define(to.parts[1], kPredicateType)});
  } else {
    instr.d = decoder.define(to, kPredicateType);
  }
  decoder.emit(instr);
}

template <class T>
void select(Warp& warp, const Instr& instr) {
  const T* a = warp.row<T>(instr.a);
  const T* b = warp.row<T>(instr.b);
  const std::uint32_t bits = read_predicate(warp, instr.c);
  each_lane<T>(warp, instr.d, [&](int lane) {
    const T x = a[lane], y = b[lane];
    return (bits >> lane & 1u) != 0 ? x : y;
  });
}

void decode_selp(Decoder& decoder, const Statement& statement, Words& words) {
  const Type type = words.type();
  emit_simple(decoder, statement, type.bits == 64 ? &select<std::uint64_t> : &select<std::uint32_t>,
              type, {type, type, kPredicateType});
}

}  // namespace

void negate_predicate(Warp& warp, const Instr& instr) {
  write_predicate(warp, instr.d, ~read_predicate(warp, instr.a));
}

void add_arithmetic(OpTable& table) {
  table["add"] = &decode_two<Add, FloatAdd>;
  table["sub"] = &decode_two<Sub, FloatSub>;
  table["mul"] = &decode_mul;
  table["mad"] = &decode_mad;
  table["fma"] = &decode_fma;
  table["div"] = &decode_div;
  table["rem"] = &decode_rem;
  table["min"] = &decode_min_max<Min, FloatMin>;
  table["max"] = &decode_min_max<Max, FloatMax>;
  table["abs"] = &decode_sign<Abs, FloatAbs>;
  table["neg"] = &decode_sign<Neg, FloatNeg>;
  table["and"] = &decode_logic<And, PredicateAnd>;
  table["or"] = &decode_logic<Or, PredicateOr>;
  table["xor"] = &decode_logic<Xor, PredicateXor>;
  table["not"] = &decode_not;
  table["shl"] = &decode_shift<Shl>;
  table["shr"] = &decode_shift<Shr>;
  table["setp"] = &decode_setp;
  table["selp"] = &decode_selp;
  table["rcp"] = &decode_one_float<FloatRcp>;
  table["sqrt"] = &decode_one_float<FloatSqrt>;
  table["rsqrt"] = &decode_one_float<FloatRsqrt>;
  table["ex2"] = &decode_one_float<FloatEx2>;
  table["lg2"] = &decode_one_float<FloatLg2>;
  table["copysign"] = &decode_copysign;
  add_bits(table);
}

}  // namespace specdec::ptx
