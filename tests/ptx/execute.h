// How warps and blocks take turns.
#pragma once

#include <cstdint>

#include "tests/ptx/warp.h"

namespace specdec::ptx {

enum class Stop {
  kTurn,     ///< has had its share of instructions
  kVain,     ///< asked for something that has not happened yet
  kBarrier,  ///< waits at a barrier
  kDone      ///< all lanes are through
};

/// Runs a warp for up to `budget` instructions.
Stop run_warp(Warp& warp, std::uint32_t budget);

/// Arrival of a whole warp at the barrier instruction at its pc.
void arrive_at_barrier(Warp& warp, const Instr& instr);
/// A warp of the block is through: barriers that wait for all live warps may be complete.
void leave_barriers(Block& block);

}  // namespace specdec::ptx
