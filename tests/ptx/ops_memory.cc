// Loads, stores, atomics and fences. Blocks and warps take turns, so each instruction is atomic as
// a whole and fences have nothing to do.
#include <algorithm>
#include <cstring>

#include "tests/ptx/access.h"
#include "tests/ptx/dispatch.h"
#include "tests/ptx/float_ops.h"

namespace specdec::ptx {
namespace {

// Caching, ordering and scope say nothing to this machine.
void skip_hints(Words& words) {
  for (const char* word : {"volatile",
                           "relaxed",
                           "acquire",
                           "release",
                           "acq_rel",
                           "weak",
                           "ca",
                           "cg",
                           "cs",
                           "cv",
                           "lu",
                           "wb",
                           "wt",
                           "nc",
                           "gpu",
                           "cta",
                           "sys",
                           "cluster",
                           "L1::evict_last",
                           "L1::evict_first",
                           "L1::no_allocate",
                           "L1::evict_normal",
                           "L1::evict_unchanged",
                           "L2::64B",
                           "L2::128B",
                           "L2::256B"}) {
    words.take(word);
  }
}

std::size_t vector_length(Words& words) {
  return words.take("v2") ? 2 : words.take("v4") ? 4 : words.take("v8") ? 8 : 1;
}

template <class T>
T load_value(std::uintptr_t address) {
  T value;
  std::memcpy(&value, reinterpret_cast<const void*>(address), sizeof(T));
  return value;
}
template <class T>
void store_value(std::uintptr_t address, T value) {
  std::memcpy(reinterpret_cast<void*>(address), &value, sizeof(T));
}

// Of kCount values of type T each; R: what a register's cell holds.
template <class T, class R, int kCount>
void load(Warp& warp, const Instr& instr) {
  Addresses addresses;
  resolve(warp, instr, sizeof(T) * kCount, addresses);
  for (int i = 0; i < kCount; ++i) {
    R* d = warp.row<R>(
        kCount == 1 ? instr.d
                    : warp.launch->program->operands[instr.more + static_cast<std::uint32_t>(i)]);
    const std::size_t offset = sizeof(T) * static_cast<std::size_t>(i);
    if (warp.full()) {
      for (int lane = 0; lane < kLanes; ++lane)
        d[lane] = static_cast<R>(load_value<T>(addresses[lane] + offset));
    } else {
      for_lanes(warp.exec, [&](int lane) {
        d[lane] = static_cast<R>(load_value<T>(addresses[lane] + offset));
      });
    }
  }
}

template <class T, class R, int kCount>
void store(Warp& warp, const Instr& instr) {
  Addresses addresses;
  resolve(warp, instr, sizeof(T) * kCount, addresses);
  for (int i = 0; i < kCount; ++i) {
    const R* b = warp.row<R>(
        kCount == 1 ? instr.b
                    : warp.launch->program->operands[instr.more + static_cast<std::uint32_t>(i)]);
    const std::size_t offset = sizeof(T) * static_cast<std::size_t>(i);
    for_lanes(warp.exec,
              [&](int lane) { store_value<T>(addresses[lane] + offset, static_cast<T>(b[lane])); });
  }
}

/// What moves one value: f(Tag<T>, Tag<R>) by the type and the register's width.
template <class F>
Handler for_moved(Type type, int register_bits, F&& f) {
  if (register_bits == 64) {
    switch (type.bits) {
      case 8:
        return type.is_signed() ? f(Tag<std::int8_t>(), Tag<std::uint64_t>())
                                : f(Tag<std::uint8_t>(), Tag<std::uint64_t>());
      case 16:
        return type.is_signed() ? f(Tag<std::int16_t>(), Tag<std::uint64_t>())
                                : f(Tag<std::uint16_t>(), Tag<std::uint64_t>());
      case 32:
        return type.is_signed() ? f(Tag<std::int32_t>(), Tag<std::uint64_t>())
                                : f(Tag<std::uint32_t>(), Tag<std::uint64_t>());
      case 64:
        return f(Tag<std::uint64_t>(), Tag<std::uint64_t>());
      default:
        return nullptr;
    }
  }
  switch (type.bits) {
    case 8:
      return type.is_signed() ? f(Tag<std::int8_t>(), Tag<std::uint32_t>())
                              : f(Tag<std::uint8_t>(), Tag<std::uint32_t>());
    case 16:
      return type.is_signed() ? f(Tag<std::int16_t>(), Tag<std::uint32_t>())
                              : f(Tag<std::uint16_t>(), Tag<std::uint32_t>());
    case 32:
      return f(Tag<std::uint32_t>(), Tag<std::uint32_t>());
    default:
      return nullptr;
  }
}

template <bool kLoad>
Handler mover(Type type, int register_bits, std::size_t count) {
  return for_moved(type, register_bits, [&](auto t, auto r) -> Handler {
    using T = Tagged<decltype(t)>;
    using R = Tagged<decltype(r)>;
    switch (count) {
      case 1:
        return kLoad ? &load<T, R, 1> : &store<T, R, 1>;
      case 2:
        return kLoad ? &load<T, R, 2> : &store<T, R, 2>;
      case 4:
        return kLoad ? &load<T, R, 4> : &store<T, R, 4>;
      default:
        return nullptr;
    }
  });
}

void decode_ld(Decoder& decoder, const Statement& statement, Words& words) {
  skip_hints(words);
  const Space space = words.space();
  const std::size_t count = vector_length(words);
  const Type type = words.type();
  Instr instr;
  decoder.set_address(instr, statement.operands.at(1), space);
  const Operand& to = statement.operands.at(0);
  int bits = 0;
  const auto destination = [&](const Operand& operand) {
    int own = 0;
    Place place = decoder.define_any(operand, &own);
    if (own == 0) {
      own = type.bits;
      place = decoder.new_register(type.bits);
    }
    const int wide = own == 64 ? 64 : 32;
    if (bits != 0 && bits != wide) decoder.unknown(statement, "registers of different widths");
    bits = wide;
    return place;
  };
  if (count == 1) {
    const Operand& single = to.kind == Operand::Kind::kVector ? to.parts.at(0) : to;
    instr.d = destination(single);
  } else {
    std::vector<Place> places;
    if (to.parts.size() != count) decoder.unknown(statement, "length of the vector");
    for (const Operand& part : to.parts) places.push_back(destination(part));
    decoder.more(instr, {}, places);
  }
  instr.run = mover<true>(type, bits, count);
  if (instr.run == nullptr) decoder.unknown(statement);
  decoder.emit(instr);
}

void decode_st(Decoder& decoder, const Statement& statement, Words& words) {
  skip_hints(words);
  const Space space = words.space();
  const std::size_t count = vector_length(words);
  const Type type = words.type();
  Instr instr;
  decoder.set_address(instr, statement.operands.at(0), space);
  const Operand& from = statement.operands.at(1);
  int bits = 0;
  const auto source = [&](const Operand& operand) {
    int own = type.bits;
    const Place place = operand.kind == Operand::Kind::kNumber ? decoder.use(operand, type)
                                                               : decoder.use_any(operand, &own);
    const int wide = own == 64 ? 64 : 32;
    if (bits != 0 && bits != wide) decoder.unknown(statement, "registers of different widths");
    bits = wide;
    return place;
  };
  if (count == 1) {
    const Operand& single = from.kind == Operand::Kind::kVector ? from.parts.at(0) : from;
    instr.b = source(single);
  } else {
    std::vector<Place> places;
    if (from.parts.size() != count) decoder.unknown(statement, "length of the vector");
    for (const Operand& part : from.parts) places.push_back(source(part));
    decoder.more(instr, places, {});
  }
  instr.run = mover<false>(type, bits, count);
  if (instr.run == nullptr) decoder.unknown(statement);
  decoder.emit(instr);
}

// Atomics. f(old, b, c) is the new value.
struct AtomAdd {
  template <class T>
  static T run(T old, T b, T /*c*/) {
    if constexpr (std::is_floating_point_v<T>) {
      return settle_nan(old + b);
    } else {
      return static_cast<T>(old + b);
    }
  }
};
struct AtomMin {
  template <class T>
  static T run(T old, T b, T /*c*/) {
    return std::min(old, b);
  }
};
struct AtomMax {
  template <class T>
  static T run(T old, T b, T /*c*/) {
    return std::max(old, b);
  }
};
struct AtomAnd {
  template <class T>
  static T run(T old, T b, T /*c*/) {
    return old & b;
  }
};
struct AtomOr {
  template <class T>
  static T run(T old, T b, T /*c*/) {
    return old | b;
  }
};
struct AtomXor {
  template <class T>
  static T run(T old, T b, T /*c*/) {
    return old ^ b;
  }
};
struct AtomExch {
  template <class T>
  static T run(T /*old*/, T b, T /*c*/) {
    return b;
  }
};
struct AtomCas {
  template <class T>
  static T run(T old, T b, T c) {
    return old == b ? c : old;
  }
};
struct AtomInc {
  template <class T>
  static T run(T old, T b, T /*c*/) {
    return old >= b ? T{0} : static_cast<T>(old + 1);
  }
};
struct AtomDec {
  template <class T>
  static T run(T old, T b, T /*c*/) {
    return old == 0 || old > b ? b : static_cast<T>(old - 1);
  }
};

template <class Op, class T>
void atomic(Warp& warp, const Instr& instr) {
  Addresses addresses;
  resolve(warp, instr, sizeof(T), addresses);
  const Cell<T>* b = warp.row<Cell<T>>(instr.b);
  const Cell<T>* c = instr.c == kNowhere ? b : warp.row<Cell<T>>(instr.c);
  Cell<T>* d = instr.d == kNowhere ? nullptr : warp.row<Cell<T>>(instr.d);
  for_lanes(warp.exec, [&](int lane) {
    const T old = load_value<T>(addresses[lane]);
    store_value<T>(addresses[lane], Op::run(old, from_cell<T>(b[lane]), from_cell<T>(c[lane])));
    if (d != nullptr) d[lane] = to_cell<T>(old);
  });
}

template <class Op>
Handler atomic_integer(Type type) {
  if (type.bits == 16) return nullptr;
  return for_integer(type, [](auto tag) -> Handler { return &atomic<Op, Tagged<decltype(tag)>>; });
}
template <class Op>
Handler atomic_unsigned(Type type) {
  if (type.is_signed()) return nullptr;
  return atomic_integer<Op>(type);
}

Handler atomic_of(Words& words, Type type, bool* swap) {
  *swap = false;
  if (words.take("add")) {
    if (type.is_float()) {
      return for_float(type,
                       [](auto tag) -> Handler { return &atomic<AtomAdd, Tagged<decltype(tag)>>; });
    }
    return atomic_integer<AtomAdd>(Type{Type::Kind::kUnsigned, type.bits});
  }
  if (words.take("min")) return atomic_integer<AtomMin>(type);
  if (words.take("max")) return atomic_integer<AtomMax>(type);
  if (words.take("and")) return atomic_unsigned<AtomAnd>(type);
  if (words.take("or")) return atomic_unsigned<AtomOr>(type);
  if (words.take("xor")) return atomic_unsigned<AtomXor>(type);
  if (words.take("exch")) return atomic_unsigned<AtomExch>(type);
  if (words.take("inc")) return atomic_unsigned<AtomInc>(type);
  if (words.take("dec")) return atomic_unsigned<AtomDec>(type);
  if (words.take("cas")) {
    *swap = true;
    return atomic_unsigned<AtomCas>(type);
  }
  return nullptr;
}

template <bool kReturns>
void decode_atomic(Decoder& decoder, const Statement& statement, Words& words) {
  skip_hints(words);
  words.take("noftz");
  const Space space = words.space();
  const Type type = words.type();
  bool swap = false;
  Instr instr;
  instr.run = atomic_of(words, type, &swap);
  if (instr.run == nullptr) decoder.unknown(statement);
  const std::size_t first = kReturns ? 1 : 0;
  decoder.set_address(instr, statement.operands.at(first), space);
  instr.b = decoder.use(statement.operands.at(first + 1), type);
  if (swap) instr.c = decoder.use(statement.operands.at(first + 2), type);
  if (kReturns) instr.d = decoder.define(statement.operands.at(0), type);
  decoder.emit(instr);
}

void decode_fence(Decoder& /*decoder*/, const Statement& /*statement*/, Words& words) {
  for (const char* word :
       {"gl", "cta", "sys", "gpu", "cluster", "sc", "acq_rel", "acquire", "release", "proxy",
        "async", "alias", "mbarrier_init", "async::generic", "sync_restrict::shared::cta"}) {
    words.take(word);
  }
  words.space();
}

}  // namespace

void set_conditional(Warp& warp, const Instr& instr) {
  if (warp.launch->set_conditional == nullptr || !*warp.launch->set_conditional) {
    fail(warp, Fault::Kind::kUndefined, -1, "cudaGraphSetConditional outside a graph");
  }
  for_lanes(warp.exec, [&](int lane) {
    const std::byte* base = warp.local_of(lane);
    const auto at = [&](std::int64_t address) {
      return reinterpret_cast<std::uintptr_t>(base) + static_cast<std::uintptr_t>(address) -
             kSpaceBase;
    };
    (*warp.launch->set_conditional)(
        load_value<std::uint64_t>(at(instr.immediate)),
        load_value<std::uint32_t>(at(static_cast<std::int64_t>(instr.target))));
  });
}

void add_memory(OpTable& table) {
  table["ld"] = &decode_ld;
  table["ldu"] = &decode_ld;
  table["st"] = &decode_st;
  table["atom"] = &decode_atomic<true>;
  table["red"] = &decode_atomic<false>;
  table["membar"] = &decode_fence;
  table["fence"] = &decode_fence;
}

}  // namespace specdec::ptx
