// Checked addresses of a warp's accesses.
#pragma once

#include <cstdint>

#include "tests/ptx/decoder.h"
#include "tests/ptx/warp.h"

namespace specdec::ptx {

using Addresses = std::uintptr_t[kLanes];

/// Host addresses of an access of `bytes` (also its alignment) per lane that runs: row `base` of
/// `width` bits plus `offset`, in `space`. Faults if a lane's access is misaligned or does not lie
/// in live memory.
void resolve(Warp& warp, const Instr& instr, Place base, int width, std::int64_t offset,
             Space space, std::size_t bytes, Addresses& addresses);

/// The same for the usual operand: row a, Instr::width, Instr::immediate, space in Instr::kind.
inline void resolve(Warp& warp, const Instr& instr, std::size_t bytes, Addresses& addresses) {
  resolve(warp, instr, instr.a, instr.width, instr.immediate, static_cast<Space>(instr.kind), bytes,
          addresses);
}

/// One address that is already the host's.
void check_flat(Warp& warp, int lane, std::uintptr_t address, std::size_t bytes);

}  // namespace specdec::ptx
