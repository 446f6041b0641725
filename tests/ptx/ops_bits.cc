// Instructions on bit patterns.
#include <bit>

#include "tests/ptx/dispatch.h"

namespace specdec::ptx {
namespace {

struct Popc {
  template <class T>
  static std::uint32_t run(T a) {
    return static_cast<std::uint32_t>(std::popcount(a));
  }
};
struct Clz {
  template <class T>
  static std::uint32_t run(T a) {
    return static_cast<std::uint32_t>(std::countl_zero(a));
  }
};
struct Brev {
  template <class T>
  static T run(T a) {
    T reversed = 0;
    for (unsigned i = 0; i < 8 * sizeof(T); ++i)
      reversed |= ((a >> i) & T{1}) << (8 * sizeof(T) - 1 - i);
    return reversed;
  }
};
// The position of the highest bit that is set (signed: that differs from the sign); none: all ones.
struct Bfind {
  template <class T>
  static std::uint32_t run(T a) {
    auto bits = static_cast<std::make_unsigned_t<T>>(a);
    if constexpr (std::is_signed_v<T>) {
      if (a < 0) bits = ~bits;
    }
    return bits == 0 ? 0xFFFFFFFFu : static_cast<std::uint32_t>(std::bit_width(bits)) - 1;
  }
};
// How far to shift left to bring that bit to the top.
struct BfindShift {
  template <class T>
  static std::uint32_t run(T a) {
    const std::uint32_t found = Bfind::run(a);
    return found == 0xFFFFFFFFu ? found : static_cast<std::uint32_t>(8 * sizeof(T) - 1) - found;
  }
};
struct Prmt {
  static std::uint32_t run(std::uint32_t a, std::uint32_t b, std::uint32_t selector) {
    const std::uint64_t bytes = a | static_cast<std::uint64_t>(b) << 32u;
    std::uint32_t result = 0;
    for (unsigned i = 0; i < 4; ++i) {
      const std::uint32_t nibble = selector >> (4 * i) & 15u;
      std::uint32_t byte = static_cast<std::uint32_t>(bytes >> (8 * (nibble & 7u))) & 255u;
      if (nibble & 8u) byte = byte & 128u ? 255u : 0u;  // its sign, eight times
      result |= byte << (8 * i);
    }
    return result;
  }
};
template <bool kRight, bool kWrap>
struct Shf {  // the 64 bits {b, a}: the upper word of a shift to the left, the lower one of a shift
              // to the right
  static std::uint32_t run(std::uint32_t a, std::uint32_t b, std::uint32_t c) {
    const std::uint32_t by = kWrap ? c & 31u : c < 32 ? c : 32;
    const std::uint64_t both = a | static_cast<std::uint64_t>(b) << 32u;
    return static_cast<std::uint32_t>(kRight ? both >> by : both << by >> 32u);
  }
};
struct Bfe {
  template <class T>
  static T run(T a, std::uint32_t b, std::uint32_t c) {
    using U = std::make_unsigned_t<T>;
    const std::uint32_t bits = 8 * sizeof(T);
    const std::uint32_t from = b & 255u, count = c & 255u;
    if (count == 0) return 0;
    const std::uint32_t top = from + count - 1 < bits - 1 ? from + count - 1 : bits - 1;
    const bool sign = std::is_signed_v<T> && (static_cast<U>(a) >> top & 1u) != 0;
    U field = from < bits ? static_cast<U>(static_cast<U>(a) >> from) : U{0};
    const std::uint32_t have = from < bits ? (count < bits - from ? count : bits - from) : 0;
    if (have < bits) {
      const U mask = static_cast<U>((U{1} << have) - 1);
      field = static_cast<U>(sign ? field | static_cast<U>(~mask) : field & mask);
    }
    return static_cast<T>(field);
  }
};

template <class T>
void bfi(Warp& warp, const Instr& instr) {
  const T* a = warp.row<T>(instr.a);
  const T* b = warp.row<T>(instr.b);
  const std::uint32_t* from = warp.row<std::uint32_t>(instr.c);
  const std::uint32_t* count = warp.row<std::uint32_t>(warp.launch->program->operands[instr.more]);
  each_lane<T>(warp, instr.d, [&](int lane) {
    const std::uint32_t bits = 8 * sizeof(T);
    const std::uint32_t at = from[lane] & 255u, wide = count[lane] & 255u;
    if (at >= bits || wide == 0) return b[lane];
    const T mask = static_cast<T>((wide >= bits ? ~T{0} : (T{1} << wide) - 1) << at);
    return static_cast<T>((b[lane] & ~mask) | (a[lane] << at & mask));
  });
}

void lop3(Warp& warp, const Instr& instr) {
  const std::uint32_t* a = warp.row<std::uint32_t>(instr.a);
  const std::uint32_t* b = warp.row<std::uint32_t>(instr.b);
  const std::uint32_t* c = warp.row<std::uint32_t>(instr.c);
  const auto lookup = static_cast<std::uint32_t>(instr.immediate);
  each_lane<std::uint32_t>(warp, instr.d, [&](int lane) {
    std::uint32_t result = 0;
    for (std::uint32_t i = 0; i < 8; ++i) {
      if ((lookup >> i & 1u) == 0) continue;
      result |= (i & 4u ? a[lane] : ~a[lane]) & (i & 2u ? b[lane] : ~b[lane]) &
                (i & 1u ? c[lane] : ~c[lane]);
    }
    return result;
  });
}

template <class Op>
void decode_count(Decoder& decoder, const Statement& statement, Words& words) {
  const Type type = words.type();
  emit_simple(decoder, statement,
              type.bits == 64 ? &unary<Op, std::uint32_t, std::uint64_t>
                              : &unary<Op, std::uint32_t, std::uint32_t>,
              kU32, {type});
}

void decode_brev(Decoder& decoder, const Statement& statement, Words& words) {
  const Type type = words.type();
  emit_simple(decoder, statement,
              type.bits == 64 ? &unary<Brev, std::uint64_t> : &unary<Brev, std::uint32_t>, type,
              {type});
}

template <class Op>
Handler bfind_of(Type type) {
  if (type.bits == 16) return nullptr;
  return for_integer(
      type, [](auto tag) -> Handler { return &unary<Op, std::uint32_t, Tagged<decltype(tag)>>; });
}

void decode_bfind(Decoder& decoder, const Statement& statement, Words& words) {
  const bool shift = words.take("shiftamt");
  const Type type = words.type();
  emit_simple(decoder, statement, shift ? bfind_of<BfindShift>(type) : bfind_of<Bfind>(type), kU32,
              {type});
}

void decode_prmt(Decoder& decoder, const Statement& statement, Words& words) {
  const Type type = words.type();
  emit_simple(decoder, statement, &ternary<Prmt, std::uint32_t>, type, {type, type, type});
}

void decode_shf(Decoder& decoder, const Statement& statement, Words& words) {
  const bool right = words.take("r");
  if (!right && !words.take("l")) decoder.unknown(statement);
  const bool wrap = words.take("wrap");
  if (!wrap && !words.take("clamp")) decoder.unknown(statement);
  const Type type = words.type();
  const Handler run = right ? (wrap ? &ternary<Shf<true, true>, std::uint32_t>
                                    : &ternary<Shf<true, false>, std::uint32_t>)
                            : (wrap ? &ternary<Shf<false, true>, std::uint32_t>
                                    : &ternary<Shf<false, false>, std::uint32_t>);
  emit_simple(decoder, statement, run, type, {type, type, kU32});
}

void decode_bfe(Decoder& decoder, const Statement& statement, Words& words) {
  const Type type = words.type();
  emit_simple(decoder, statement,
              for_integer(type,
                          [](auto tag) -> Handler {
                            using T = Tagged<decltype(tag)>;
                            return &ternary<Bfe, T, T, std::uint32_t, std::uint32_t>;
                          }),
              type, {type, kU32, kU32});
}

void decode_bfi(Decoder& decoder, const Statement& statement, Words& words) {
  const Type type = words.type();
  emit_simple(decoder, statement, type.bits == 64 ? &bfi<std::uint64_t> : &bfi<std::uint32_t>, type,
              {type, type, kU32, kU32});
}

void decode_lop3(Decoder& decoder, const Statement& statement, Words& words) {
  const Type type = words.type();
  Instr instr;
  instr.run = &lop3;
  instr.a = decoder.use(statement.operands.at(1), type);
  instr.b = decoder.use(statement.operands.at(2), type);
  instr.c = decoder.use(statement.operands.at(3), type);
  instr.immediate = statement.operands.at(4).value;
  instr.d = decoder.define(statement.operands.at(0), type);
  decoder.emit(instr);
}

}  // namespace

void add_bits(OpTable& table) {
  table["popc"] = &decode_count<Popc>;
  table["clz"] = &decode_count<Clz>;
  table["brev"] = &decode_brev;
  table["bfind"] = &decode_bfind;
  table["prmt"] = &decode_prmt;
  table["shf"] = &decode_shf;
  table["bfe"] = &decode_bfe;
  table["bfi"] = &decode_bfi;
  table["lop3"] = &decode_lop3;
}

}  // namespace specdec::ptx
