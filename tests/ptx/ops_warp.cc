// What the lanes of a warp do together, barriers of the block, and the rest of control.
#include <algorithm>

#include "tests/ptx/dispatch.h"

namespace specdec::ptx {
namespace {

// What a lane gets from one that does not take part: PTX leaves it open, so nothing that could pass
// for a value.
constexpr std::uint32_t kNobody = 0xDEADBEEFu;

enum : std::uint8_t { kUp, kDown, kButterfly, kIndex };

template <int kMode>
void shuffle(Warp& warp, const Instr& instr) {
  const std::uint32_t* a = warp.row<std::uint32_t>(instr.a);
  const std::uint32_t* b = warp.row<std::uint32_t>(instr.b);
  const std::uint32_t* c = warp.row<std::uint32_t>(instr.c);
  std::int32_t from[kLanes], in[kLanes];
  for (int lane = 0; lane < kLanes; ++lane) {
    const auto by = static_cast<int>(b[lane] & 31u);
    const auto clamp = static_cast<int>(c[lane] & 31u);
    const auto segment = static_cast<int>(c[lane] >> 8u & 31u);
    const int limit = (lane & segment) | (clamp & ~segment);
    const int source = kMode == kUp          ? lane - by
                       : kMode == kDown      ? lane + by
                       : kMode == kButterfly ? lane ^ by
                                             : (lane & segment) | (by & ~segment);
    const bool inside = kMode == kUp ? source >= limit : source <= limit;
    in[lane] = inside;
    from[lane] = inside ? source : lane;
  }
  std::uint32_t values[kLanes];
  for (int lane = 0; lane < kLanes; ++lane) {
    values[lane] = (warp.taking_part >> from[lane] & 1u) != 0 ? a[from[lane]] : kNobody;
  }
  each_lane<std::uint32_t>(warp, instr.d, [&](int lane) { return values[lane]; });
  if (instr.more_count != 0) {
    write_predicate(warp, warp.launch->program->operands[instr.more],
                    lane_bits([&](int lane) { return in[lane] != 0; }));
  }
}

void decode_shfl(Decoder& decoder, const Statement& statement, Words& words) {
  if (!words.take("sync")) decoder.unknown(statement);
  Instr instr;
  instr.flow = Flow::kMeet;
  if (words.take("up")) {
    instr.run = &shuffle<kUp>;
  } else if (words.take("down")) {
    instr.run = &shuffle<kDown>;
  } else if (words.take("bfly")) {
    instr.run = &shuffle<kButterfly>;
  } else if (words.take("idx")) {
    instr.run = &shuffle<kIndex>;
  } else {
    decoder.unknown(statement);
  }
  const Type type = words.type();
  if (type.bits != 32) decoder.unknown(statement);
  instr.a = decoder.use(statement.operands.at(1), type);
  instr.b = decoder.use(statement.operands.at(2), kU32);
  instr.c = decoder.use(statement.operands.at(3), kU32);
  instr.members = decoder.use(statement.operands.at(4), kU32);
  const Operand& to = statement.operands.at(0);
  instr.d = decoder.define(to.kind == Operand::Kind::kPair ? to.parts[0] : to, type);
  if (to.kind == Operand::Kind::kPair)
    decoder.more(instr, {}, {decoder.define(to.parts[1], kPredicateType)});
  decoder.emit(instr);
}

enum : std::uint8_t { kAll, kAny, kUniform };

void vote(Warp& warp, const Instr& instr) {
  const std::uint32_t yes = read_predicate(warp, instr.a) & warp.taking_part;
  const bool all = yes == warp.taking_part, any = yes != 0;
  const bool result = instr.kind == kAll ? all : instr.kind == kAny ? any : all || !any;
  write_predicate(warp, instr.d, result ? kAllLanes : 0);
}

void ballot(Warp& warp, const Instr& instr) {
  const std::uint32_t yes = read_predicate(warp, instr.a) & warp.taking_part;
  each_lane<std::uint32_t>(warp, instr.d, [&](int) { return yes; });
}

void decode_vote(Decoder& decoder, const Statement& statement, Words& words) {
  if (!words.take("sync")) decoder.unknown(statement);
  Instr instr;
  instr.flow = Flow::kMeet;
  instr.reads_predicate = true;
  instr.a = decoder.use(statement.operands.at(1), kPredicateType);
  instr.members = decoder.use(statement.operands.at(2), kU32);
  if (words.take("ballot")) {
    instr.run = &ballot;
  } else {
    instr.run = &vote;
    if (words.take("all")) {
      instr.kind = kAll;
    } else if (words.take("any")) {
      instr.kind = kAny;
    } else if (words.take("uni")) {
      instr.kind = kUniform;
    } else {
      decoder.unknown(statement);
    }
  }
  instr.d = decoder.define(statement.operands.at(0), words.type());
  decoder.emit(instr);
}

struct ReduceAdd {
  template <class T>
  static T run(T a, T b) {
    return static_cast<T>(static_cast<std::uint32_t>(a) + static_cast<std::uint32_t>(b));
  }
};
struct ReduceMin {
  template <class T>
  static T run(T a, T b) {
    return std::min(a, b);
  }
};
struct ReduceMax {
  template <class T>
  static T run(T a, T b) {
    return std::max(a, b);
  }
};
struct ReduceAnd {
  template <class T>
  static T run(T a, T b) {
    return a & b;
  }
};
struct ReduceOr {
  template <class T>
  static T run(T a, T b) {
    return a | b;
  }
};
struct ReduceXor {
  template <class T>
  static T run(T a, T b) {
    return a ^ b;
  }
};

template <class Op, class T>
void reduce(Warp& warp, const Instr& instr) {
  const std::uint32_t* a = warp.row<std::uint32_t>(instr.a);
  const int first = std::countr_zero(warp.taking_part);
  T total = static_cast<T>(a[first]);
  for_lanes(warp.taking_part & (warp.taking_part - 1),
            [&](int lane) { total = Op::run(total, static_cast<T>(a[lane])); });
  each_lane<T>(warp, instr.d, [&](int) { return total; });
}

template <class Op>
Handler reduce_of(Type type) {
  if (type.bits != 32) return nullptr;
  return type.is_signed() ? Handler(&reduce<Op, std::int32_t>)
                          : Handler(&reduce<Op, std::uint32_t>);
}

void decode_redux(Decoder& decoder, const Statement& statement, Words& words) {
  if (!words.take("sync")) decoder.unknown(statement);
  Instr instr;
  instr.flow = Flow::kMeet;
  const Type type = words.type();
  instr.run = words.take("add")   ? reduce_of<ReduceAdd>(type)
              : words.take("min") ? reduce_of<ReduceMin>(type)
              : words.take("max") ? reduce_of<ReduceMax>(type)
              : words.take("and") ? reduce_of<ReduceAnd>(type)
              : words.take("or")  ? reduce_of<ReduceOr>(type)
              : words.take("xor") ? reduce_of<ReduceXor>(type)
                                  : nullptr;
  if (instr.run == nullptr) decoder.unknown(statement);
  instr.a = decoder.use(statement.operands.at(1), type);
  instr.members = decoder.use(statement.operands.at(2), kU32);
  instr.d = decoder.define(statement.operands.at(0), type);
  decoder.emit(instr);
}

void nothing(Warp& /*warp*/, const Instr& /*instr*/) {}

// bar.warp.sync, bar.sync, bar.arrive, bar.red; barrier.* are the same for threads that need not be
// a whole warp.
void decode_bar(Decoder& decoder, const Statement& statement, Words& words) {
  Instr instr;
  if (words.take("warp")) {
    if (!words.take("sync")) decoder.unknown(statement);
    instr.flow = Flow::kMeet;
    instr.run = &nothing;
    instr.members = decoder.use(statement.operands.at(0), kU32);
    decoder.emit(instr, false);
    return;
  }
  words.take("cta");
  words.take("aligned");
  instr.flow = Flow::kBarrier;
  std::size_t at = 0;
  BarrierOp op = BarrierOp::kSync;
  if (words.take("red")) {
    op = words.take("popc")  ? BarrierOp::kPopc
         : words.take("and") ? BarrierOp::kAnd
                             : BarrierOp::kOr;
    if (op == BarrierOp::kOr && !words.take("or")) decoder.unknown(statement);
    instr.d = decoder.define(statement.operands.at(at++), words.type());
    instr.c = decoder.use(statement.operands.back(), kPredicateType);
  } else if (words.take("arrive")) {
    op = BarrierOp::kArrive;
  } else if (!words.take("sync")) {
    decoder.unknown(statement);
  }
  instr.kind = static_cast<std::uint8_t>(op);
  instr.a = decoder.use(statement.operands.at(at++), kU32);
  const std::size_t last = statement.operands.size() - (instr.c == kNowhere ? 0 : 1);
  if (at < last) instr.b = decoder.use(statement.operands.at(at), kU32);
  decoder.emit(instr);
}

void trap(Warp& warp, const Instr& /*instr*/) {
  fail(warp, Fault::Kind::kTrap, std::countr_zero(warp.exec), "trap");
}

void decode_trap(Decoder& decoder, const Statement& /*statement*/, Words& /*words*/) {
  Instr instr;
  instr.run = &trap;
  decoder.emit(instr, false);
}

void active_mask(Warp& warp, const Instr& instr) {
  const std::uint32_t lanes = warp.exec;
  each_lane<std::uint32_t>(warp, instr.d, [&](int) { return lanes; });
}

void decode_active_mask(Decoder& decoder, const Statement& statement, Words& words) {
  emit_simple(decoder, statement, &active_mask, words.type(), {});
}

// nanosleep: others have their turn.
void sleep(Warp& warp, const Instr& /*instr*/) { warp.polled_in_vain = true; }

void decode_sleep(Decoder& decoder, const Statement& /*statement*/, Words& words) {
  words.type();
  Instr instr;
  instr.flow = Flow::kPoll;
  instr.run = &sleep;
  decoder.emit(instr, false);
}

}  // namespace

void add_warp(OpTable& table) {
  table["shfl"] = &decode_shfl;
  table["vote"] = &decode_vote;
  table["redux"] = &decode_redux;
  table["bar"] = &decode_bar;
  table["barrier"] = &decode_bar;
  table["activemask"] = &decode_active_mask;
}

void add_control(OpTable& table) {
  table["trap"] = &decode_trap;
  table["nanosleep"] = &decode_sleep;
}

}  // namespace specdec::ptx
