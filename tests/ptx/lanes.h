// Building blocks for the functions of instructions: element-wise operations on rows of 32 values.
#pragma once

#include <bit>
#include <cstdint>
#include <type_traits>

#include "tests/ptx/warp.h"

namespace specdec::ptx {

/// Bits of a 16-bit float that is not computed with as such.
struct Half {
  std::uint16_t bits = 0;
};

/// A row's cell for a value of type T: 4 bytes, 8 for 64-bit types.
template <class T>
using Cell = std::conditional_t<sizeof(T) == 8, std::uint64_t, std::uint32_t>;

template <class T>
inline T from_cell(Cell<T> cell) {
  if constexpr (std::is_same_v<T, Half>) {
    return Half{static_cast<std::uint16_t>(cell)};
  } else if constexpr (std::is_floating_point_v<T>) {
    return std::bit_cast<T>(cell);
  } else {
    return static_cast<T>(cell);
  }
}

template <class T>
inline Cell<T> to_cell(T value) {
  if constexpr (std::is_same_v<T, Half>) {
    return value.bits;
  } else if constexpr (std::is_floating_point_v<T>) {
    return std::bit_cast<Cell<T>>(value);
  } else if constexpr (sizeof(T) < 4) {
    return static_cast<std::make_unsigned_t<T>>(value);
  } else {
    return static_cast<Cell<T>>(value);
  }
}

/// d = f(lane) in the lanes that run. Exact overlap of d with a source is allowed: each lane reads
/// its own cells first.
template <class D, class F>
inline void each_lane(Warp& warp, Place place, F&& f) {
  Cell<D>* d = warp.row<Cell<D>>(place);
  if (warp.full()) {
#pragma GCC ivdep
    for (int lane = 0; lane < kLanes; ++lane) d[lane] = to_cell<D>(f(lane));
  } else if ((warp.exec & (warp.exec - 1)) ==
             0) {  // one lane: reductions' ends, single-threaded parts
    const int lane = std::countr_zero(warp.exec);
    d[lane] = to_cell<D>(f(lane));
  } else if constexpr (sizeof(D) == 8) {
    const std::int64_t* mask = warp.mask64();
#pragma GCC ivdep
    for (int lane = 0; lane < kLanes; ++lane) {
      const Cell<D> value = to_cell<D>(f(lane));
      d[lane] = mask[lane] != 0 ? value : d[lane];
    }
  } else {
    const std::int32_t* mask = warp.mask32();
#pragma GCC ivdep
    for (int lane = 0; lane < kLanes; ++lane) {
      const Cell<D> value = to_cell<D>(f(lane));
      d[lane] = mask[lane] != 0 ? value : d[lane];
    }
  }
}

template <class Op, class D, class A = D>
void unary(Warp& warp, const Instr& instr) {
  const Cell<A>* a = warp.row<Cell<A>>(instr.a);
  each_lane<D>(warp, instr.d, [&](int lane) { return Op::run(from_cell<A>(a[lane])); });
}

template <class Op, class D, class A = D, class B = A>
void binary(Warp& warp, const Instr& instr) {
  const Cell<A>* a = warp.row<Cell<A>>(instr.a);
  const Cell<B>* b = warp.row<Cell<B>>(instr.b);
  each_lane<D>(warp, instr.d,
               [&](int lane) { return Op::run(from_cell<A>(a[lane]), from_cell<B>(b[lane])); });
}

template <class Op, class D, class A = D, class B = A, class C = D>
void ternary(Warp& warp, const Instr& instr) {
  const Cell<A>* a = warp.row<Cell<A>>(instr.a);
  const Cell<B>* b = warp.row<Cell<B>>(instr.b);
  const Cell<C>* c = warp.row<Cell<C>>(instr.c);
  each_lane<D>(warp, instr.d, [&](int lane) {
    return Op::run(from_cell<A>(a[lane]), from_cell<B>(b[lane]), from_cell<C>(c[lane]));
  });
}

/// Bits of the lanes for which `f` holds; all lanes are asked.
template <class F>
inline std::uint32_t lane_bits(F&& f) {
  alignas(32) std::int32_t hit[kLanes];
#pragma GCC ivdep
  for (int lane = 0; lane < kLanes; ++lane) hit[lane] = f(lane) ? 1 << lane : 0;
  std::uint32_t bits = 0;
  for (int lane = 0; lane < kLanes; ++lane) bits |= static_cast<std::uint32_t>(hit[lane]);
  return bits;
}

inline void write_predicate(Warp& warp, Place place, std::uint32_t bits) {
  std::uint32_t* d = warp.row<std::uint32_t>(place);
  *d = (*d & ~warp.exec) | (bits & warp.exec);
}
inline std::uint32_t read_predicate(const Warp& warp, Place place) {
  return *warp.row<std::uint32_t>(place);
}

}  // namespace specdec::ptx
