// The 64 bits of an mbarrier object, as this machine lays them out: arrivals that are still to
// come, arrivals per phase, phase, bytes that are still to come, and a mark.
#pragma once

#include <cstdint>

#include "tests/ptx/warp.h"

namespace specdec::ptx {

struct Mbarrier {
  std::uint32_t pending = 0, expected = 0;
  bool phase = false;
  std::int32_t bytes = 0;

  static Mbarrier load(const Warp& warp, int lane, std::uintptr_t address);
  void store(std::uintptr_t address) const;
  std::uint64_t bits() const;
  static bool phase_of(std::uint64_t bits) { return (bits >> 40u & 1u) != 0; }

  /// Takes arrivals and bytes off the present phase; the next one begins when nothing is left.
  void arrive(const Warp& warp, int lane, std::uint32_t count);
  void settle();
};

}  // namespace specdec::ptx
