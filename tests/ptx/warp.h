// The state of a warp and its block while they run, as the instructions' functions see it.
#pragma once

#include <array>
#include <bit>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "tests/ptx/machine.h"
#include "tests/ptx/program.h"

namespace specdec::ptx {

struct Block;
struct Launch;

/// Lanes that go together.
struct Group {
  std::uint32_t lanes = 0;
  std::uint32_t pc = 0;
  bool waits = false;  ///< at a kMeet or kBarrier instruction for other lanes of the warp
  bool tired = false;  ///< has run for long, or asked in vain: the others have their turn first
};

/// A cp.async of one instruction: what each lane still has to copy.
struct PendingCopy {
  std::uint32_t lanes = 0;
  int bytes = 0;
  std::array<std::uint32_t, kLanes> group{};  ///< the lane's commit count when it was issued
  std::array<std::uintptr_t, kLanes> from{}, to{};
  std::array<std::uint8_t, kLanes> source_bytes{};  ///< the rest is zeros
};

/// A cp.async.mbarrier.arrive: a lane arrives when its copies so far are done.
struct PendingArrival {
  std::uintptr_t barrier = 0;
  std::uint32_t lanes = 0;
  std::uint64_t copies = 0;  ///< sequence number of the last copy it waits for
};

struct Warp {
  std::byte* base[2] = {nullptr, nullptr};  // own rows, constants
  std::uint32_t exec = 0;                   ///< lanes that run the present instruction
  std::uint32_t taking_part =
      0;  ///< of a kMeet: lanes whose values count; those of `exec` get the result
  bool polled_in_vain = false;
  Block* block = nullptr;
  Launch* launch = nullptr;
  int index = 0;  ///< in its block
  std::uint32_t pc = 0;

  std::vector<Group> groups;  ///< of live lanes
  std::uint32_t exited = 0;   ///< lanes that are through, or never were
  int at_barrier = -1;        ///< waits there, whole
  std::uint32_t steps = 0;    ///< of the present group, while there are several

  std::vector<PendingCopy> copies;
  std::uint64_t first_copy = 0;  ///< sequence number of copies[0]
  std::vector<PendingArrival> arrivals;
  std::array<std::uint32_t, kLanes> commits{};

  std::unique_ptr<std::byte[]> rows_storage;
  std::unique_ptr<std::byte[]> local_storage;
  std::byte* local_base = nullptr;  ///< lane 0's; the next lane's lies local_stride further

  std::size_t local_stride = 0;

  std::byte* local_of(int lane) const {
    return local_base + local_stride * static_cast<std::size_t>(lane);
  }
  bool full() const { return exec == kAllLanes; }

  template <class T>
  T* row(Place place) const {
    return reinterpret_cast<T*>(base[place & 1] + (place & ~1));
  }
  /// Masks of `exec`, all ones in the lanes that take part.
  const std::int32_t* mask32() {
    if (masked_ != exec) set_masks();
    return mask32_;
  }
  const std::int64_t* mask64() {
    if (masked_ != exec) set_masks();
    return mask64_;
  }
  void set_masks();

 private:
  std::uint32_t masked_ = 0;
  alignas(32) std::int32_t mask32_[kLanes] = {};
  alignas(32) std::int64_t mask64_[kLanes] = {};
};

struct Barrier {
  int arrived = 0;   ///< warps
  int expected = 0;  ///< warps; 0: all live warps of the block
  std::uint32_t count = 0;
  bool all = true, any = false;
};

struct Block {
  Dim3 index;
  Launch* launch = nullptr;
  std::vector<std::unique_ptr<Warp>> warps;
  int live_warps = 0;
  std::byte* shared = nullptr;  ///< what address kSpaceBase means
  std::size_t shared_bytes = 0;
  std::unique_ptr<std::byte[]> shared_storage;
  std::array<Barrier, 16> barriers{};
  std::uint64_t vain_rounds = 0;
};

/// Region of memory that an access lay in, by instruction: most accesses of an instruction go to
/// one allocation.
struct CachedRegion {
  std::uintptr_t begin = 1, end = 0;
};

struct Launch {
  Module* module = nullptr;
  const Program* program = nullptr;
  Memory* memory = nullptr;
  const SetConditional* set_conditional = nullptr;
  LaunchShape shape;
  std::vector<std::byte> params;
  std::array<CachedRegion, 256> regions{};
  std::uint64_t warp_instructions = 0, lane_instructions = 0;
  bool late_copies = true;  ///< cp.async takes place when it is waited for; else at once
};

/// Does all copies of a warp that are still to be done.
void finish_copies(Warp& warp);

/// A fault at the present instruction of `warp`; `lane` < 0: of the warp.
[[noreturn]] void fail(const Warp& warp, Fault::Kind kind, int lane, const std::string& what);

/// Calls `f(lane)` for each lane of `lanes`, lowest first.
template <class F>
inline void for_lanes(std::uint32_t lanes, F&& f) {
  while (lanes != 0) {
    f(std::countr_zero(lanes));
    lanes &= lanes - 1;
  }
}

}  // namespace specdec::ptx
