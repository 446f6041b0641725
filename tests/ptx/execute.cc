// Blocks and grids.
#include "tests/ptx/execute.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <optional>

namespace specdec::ptx {
namespace {

constexpr std::size_t kMaxResident = 64;
constexpr std::uint32_t kWarpTurn = 8192;      // instructions of a warp before the block's next one
constexpr std::uint64_t kBlockTurn = 400'000;  // instructions of a block before the next one
constexpr std::uint64_t kLaunchLimit = 2'000'000'000;
constexpr std::uint64_t kVainRounds = 10'000;  // in which every warp of the launch asked in vain
constexpr std::size_t kSharedAlign = 1024, kDynamicAlign = 128;
constexpr std::size_t kLocalZone = 64;
constexpr std::size_t kMergedRow = 4 * kLanes;  // after a warp's rows: see join() in warp.cc
constexpr int kFill = 0xA5;

Counts total;

std::size_t round_up(std::size_t value, std::size_t to) { return (value + to - 1) / to * to; }

std::byte* align(std::byte* pointer, std::size_t to) {
  return reinterpret_cast<std::byte*>(round_up(reinterpret_cast<std::uintptr_t>(pointer), to));
}

std::string to_text(const Dim3& at) {
  return "(" + std::to_string(at.x) + ", " + std::to_string(at.y) + ", " + std::to_string(at.z) +
         ")";
}

Dim3 unfold(std::uint64_t index, const Dim3& size) {
  Dim3 at;
  at.x = static_cast<unsigned>(index % size.x);
  at.y = static_cast<unsigned>(index / size.x % size.y);
  at.z = static_cast<unsigned>(index / size.x / size.y);
  return at;
}

std::uint64_t volume(const Dim3& size) { return std::uint64_t{size.x} * size.y * size.z; }

std::uint32_t special_value(const Warp& warp, Special special, int lane) {
  const Launch& launch = *warp.launch;
  const Dim3 thread =
      unfold(static_cast<std::uint64_t>(warp.index) * kLanes + static_cast<unsigned>(lane),
             launch.shape.block);
  const std::uint32_t bit = std::uint32_t{1} << lane;
  switch (special) {
    case Special::kTidX:
      return thread.x;
    case Special::kTidY:
      return thread.y;
    case Special::kTidZ:
      return thread.z;
    case Special::kNtidX:
      return launch.shape.block.x;
    case Special::kNtidY:
      return launch.shape.block.y;
    case Special::kNtidZ:
      return launch.shape.block.z;
    case Special::kCtaidX:
      return warp.block->index.x;
    case Special::kCtaidY:
      return warp.block->index.y;
    case Special::kCtaidZ:
      return warp.block->index.z;
    case Special::kNctaidX:
      return launch.shape.grid.x;
    case Special::kNctaidY:
      return launch.shape.grid.y;
    case Special::kNctaidZ:
      return launch.shape.grid.z;
    case Special::kLaneId:
      return static_cast<std::uint32_t>(lane);
    case Special::kWarpId:
      return static_cast<std::uint32_t>(warp.index);
    case Special::kNwarpId:
      return static_cast<std::uint32_t>(warp.block->warps.size());
    case Special::kLaneMaskEq:
      return bit;
    case Special::kLaneMaskLt:
      return bit - 1;
    case Special::kLaneMaskLe:
      return bit | (bit - 1);
    case Special::kLaneMaskGt:
      return ~(bit | (bit - 1));
    case Special::kLaneMaskGe:
      return ~(bit - 1);
    case Special::kClusterRank:
      return 0;
    case Special::kClusterSize:
      return 1;
    case Special::kDynamicShared:
      return kSpaceBase +
             static_cast<std::uint32_t>(round_up(launch.program->static_shared, kDynamicAlign));
    case Special::kSmId:
      return 0;
    case Special::kNsmId:
      return 1;
  }
  return 0;
}

void start_warp(Warp& warp, Block& block, int index) {
  Launch& launch = *block.launch;
  const Program& program = *launch.program;
  const auto threads = static_cast<std::int64_t>(volume(launch.shape.block));
  const std::int64_t lanes = std::min<std::int64_t>(kLanes, threads - std::int64_t{index} * kLanes);
  warp.block = &block;
  warp.launch = &launch;
  warp.index = index;
  warp.exited = lanes == kLanes ? 0 : ~((std::uint32_t{1} << lanes) - 1);
  warp.groups.assign(1, Group{~warp.exited, 0});
  warp.at_barrier = -1;
  warp.copies.clear();
  warp.arrivals.clear();
  warp.commits.fill(0);
  if (!warp.rows_storage) {
    warp.rows_storage.reset(new std::byte[program.rows_bytes + kMergedRow + 64]);
    warp.base[0] = align(warp.rows_storage.get(), 64);
    warp.base[1] =
        reinterpret_cast<std::byte*>(const_cast<std::uint64_t*>(program.constants.data()));
    if (program.local_bytes != 0) {
      warp.local_stride = round_up(program.local_bytes, kLocalZone) + kLocalZone;
      warp.local_storage.reset(new std::byte[warp.local_stride * kLanes + kLocalZone]);
      warp.local_base = align(warp.local_storage.get(), kLocalZone);
    }
  }
  std::memset(warp.base[0], kFill, program.rows_bytes);
  if (program.local_bytes != 0) std::memset(warp.local_base, kFill, warp.local_stride * kLanes);
  for (const auto& [special, place] : program.specials) {
    std::uint32_t* row = warp.row<std::uint32_t>(place);
    for (int lane = 0; lane < kLanes; ++lane) row[lane] = special_value(warp, special, lane);
  }
}

std::unique_ptr<Block> make_block(Launch& launch) {
  auto block = std::make_unique<Block>();
  block->launch = &launch;
  const std::uint64_t threads = volume(launch.shape.block);
  for (std::uint64_t first = 0; first < threads; first += kLanes)
    block->warps.push_back(std::make_unique<Warp>());
  block->shared_bytes = launch.shape.dynamic_shared;
  const std::size_t own = launch.program->static_shared;
  block->shared_bytes += launch.shape.dynamic_shared != 0 ? round_up(own, kDynamicAlign) : own;
  block->shared_storage.reset(new std::byte[block->shared_bytes + kSharedAlign]);
  block->shared = align(block->shared_storage.get(), kSharedAlign);
  return block;
}

void start_block(Block& block, std::uint64_t number) {
  block.index = unfold(number, block.launch->shape.grid);
  std::memset(block.shared, kFill, block.shared_bytes);
  block.barriers.fill(Barrier());
  block.live_warps = static_cast<int>(block.warps.size());
  for (std::size_t i = 0; i < block.warps.size(); ++i)
    start_warp(*block.warps[i], block, static_cast<int>(i));
}

void release(Block& block, int number) {
  Barrier& barrier = block.barriers[static_cast<std::size_t>(number)];
  for (const std::unique_ptr<Warp>& warp : block.warps) {
    if (warp->at_barrier != number) continue;
    Group& group = warp->groups.front();
    const Instr& instr = block.launch->program->code[group.pc];
    if (instr.d != kNowhere) {
      const auto op = static_cast<BarrierOp>(instr.kind);
      std::uint32_t* d = warp->row<std::uint32_t>(instr.d);
      if (op == BarrierOp::kPopc) {
        for_lanes(group.lanes, [&](int lane) { d[lane] = barrier.count; });
      } else {
        const bool yes = op == BarrierOp::kAnd ? barrier.all : barrier.any;
        *d = yes ? *d | group.lanes : *d & ~group.lanes;
      }
    }
    ++group.pc;
    warp->at_barrier = -1;
  }
  barrier = Barrier();
}

void complete(Block& block, int number) {
  const Barrier& barrier = block.barriers[static_cast<std::size_t>(number)];
  if (barrier.arrived == 0) return;
  const int expected = barrier.expected != 0 ? barrier.expected : block.live_warps;
  if (barrier.arrived >= expected) release(block, number);
}

enum class Outcome { kDone, kTurn, kVain };

[[noreturn]] void report_stuck(Block& block) {
  std::string where;
  Warp* first = nullptr;
  for (const std::unique_ptr<Warp>& warp : block.warps) {
    if (warp->groups.empty()) continue;
    if (first == nullptr) first = warp.get();
    warp->pc = warp->groups.front().pc;
    where += "; warp " + std::to_string(warp->index) +
             (warp->at_barrier >= 0 ? " waits at barrier " + std::to_string(warp->at_barrier)
                                    : std::string(" asks")) +
             ", line " + std::to_string(block.launch->program->lines[warp->pc]);
  }
  fail(*first, Fault::Kind::kDeadlock, -1, "nothing in the block can move" + where);
}

// A turn of a block.
Outcome run_block(Block& block) {
  Launch& launch = *block.launch;
  const std::uint64_t end = launch.warp_instructions + kBlockTurn;
  while (launch.warp_instructions < end) {
    bool any = false, vain = true;
    for (const std::unique_ptr<Warp>& warp : block.warps) {
      if (warp->groups.empty() || warp->at_barrier >= 0) continue;
      any = true;
      const Stop stop = run_warp(*warp, kWarpTurn);
      vain &= stop == Stop::kVain;
      if (stop != Stop::kDone) continue;
      finish_copies(*warp);
      --block.live_warps;
      leave_barriers(block);
    }
    if (block.live_warps == 0) return Outcome::kDone;
    if (!any) report_stuck(block);
    if (vain) return Outcome::kVain;
  }
  return Outcome::kTurn;
}

void run_grid(Launch& launch) {
  const std::uint64_t blocks = volume(launch.shape.grid);
  std::vector<std::unique_ptr<Block>> resident, spare;
  std::uint64_t next = 0, vain_rounds = 0;
  std::size_t allowed = 1;  // more blocks at a time only if they wait for something, or take long
  while (next < blocks || !resident.empty()) {
    while (resident.size() < allowed && next < blocks) {
      std::unique_ptr<Block> block;
      if (spare.empty()) {
        block = make_block(launch);
      } else {
        block = std::move(spare.back());
        spare.pop_back();
      }
      start_block(*block, next++);
      resident.push_back(std::move(block));
    }
    bool all_vain = true;
    for (std::size_t i = 0; i < resident.size();) {
      const Outcome outcome = run_block(*resident[i]);
      all_vain &= outcome == Outcome::kVain;
      if (outcome == Outcome::kDone) {
        spare.push_back(std::move(resident[i]));
        resident.erase(resident.begin() + static_cast<std::ptrdiff_t>(i));
      } else {
        ++i;
      }
      if (launch.warp_instructions > kLaunchLimit) {
        throw Fault(Fault::Kind::kDeadlock, "kernel " + launch.program->name + " runs without end");
      }
    }
    if (resident.size() == allowed) allowed = std::min(kMaxResident, allowed + 1);
    vain_rounds = all_vain ? vain_rounds + 1 : 0;
    if (vain_rounds > kVainRounds && !resident.empty()) report_stuck(*resident.front());
  }
}

void check_shape(const Kernel& kernel, const LaunchShape& shape, std::size_t params) {
  const std::uint64_t threads = volume(shape.block);
  if (volume(shape.grid) == 0 || threads == 0)
    throw std::invalid_argument(kernel.name + ": an empty grid or block");
  if (threads > kernel.max_threads)
    throw std::invalid_argument(kernel.name + ": more threads than the kernel allows");
  if (params != kernel.params_size)
    throw std::invalid_argument(kernel.name + ": the size of the parameters");
  if (volume(shape.cluster) != 1)
    throw std::invalid_argument(kernel.name + ": clusters are not there");
}

}  // namespace

void fail(const Warp& warp, Fault::Kind kind, int lane, const std::string& what) {
  const Launch& launch = *warp.launch;
  std::string text = "kernel " + launch.program->name + ", block " + to_text(warp.block->index);
  if (lane >= 0) {
    const std::uint64_t thread =
        static_cast<std::uint64_t>(warp.index) * kLanes + static_cast<unsigned>(lane);
    text += ", thread " + to_text(unfold(thread, launch.shape.block));
  } else {
    text += ", warp " + std::to_string(warp.index);
  }
  const int line = launch.program->lines[warp.pc];
  text += ", PTX line " + std::to_string(line) + " `" + std::string(launch.module->line(line)) +
          "`: " + what;
  throw Fault(kind, text);
}

void arrive_at_barrier(Warp& warp, const Instr& instr) {
  Block& block = *warp.block;
  const int first = std::countr_zero(warp.exec);
  const std::uint32_t number = warp.row<std::uint32_t>(instr.a)[first];
  std::uint32_t threads = 0;
  if (instr.b != kNowhere) threads = warp.row<std::uint32_t>(instr.b)[first];
  for_lanes(warp.exec, [&](int lane) {
    if (warp.row<std::uint32_t>(instr.a)[lane] != number ||
        (instr.b != kNowhere && warp.row<std::uint32_t>(instr.b)[lane] != threads)) {
      fail(warp, Fault::Kind::kUndefined, lane, "lanes of a warp at different barriers");
    }
  });
  if (number >= block.barriers.size())
    fail(warp, Fault::Kind::kUndefined, first, "no such barrier");
  if (instr.b != kNowhere && (threads == 0 || threads % kLanes != 0)) {
    fail(warp, Fault::Kind::kUndefined, first,
         "a barrier of " + std::to_string(threads) + " threads");
  }
  const auto expected = static_cast<int>(threads / kLanes);
  Barrier& barrier = block.barriers[number];
  if (barrier.arrived != 0 && barrier.expected != expected) {
    fail(warp, Fault::Kind::kUndefined, first,
         "warps at one barrier expect different numbers of threads");
  }
  barrier.expected = expected;
  ++barrier.arrived;
  const auto op = static_cast<BarrierOp>(instr.kind);
  if (instr.c != kNowhere) {
    const std::uint32_t yes = *warp.row<std::uint32_t>(instr.c) & warp.exec;
    barrier.count += static_cast<std::uint32_t>(std::popcount(yes));
    barrier.all &= yes == warp.exec;
    barrier.any |= yes != 0;
  }
  if (op == BarrierOp::kArrive) {
    ++warp.groups.front().pc;
  } else {
    warp.at_barrier = static_cast<int>(number);
  }
  complete(block, static_cast<int>(number));
}

void leave_barriers(Block& block) {
  for (std::size_t i = 0; i < block.barriers.size(); ++i) {
    if (block.barriers[i].expected == 0) complete(block, static_cast<int>(i));
  }
}

Counts counts() { return total; }

void run(Module& module, const Kernel& kernel, const LaunchShape& shape,
         std::span<const std::byte> params, Memory& memory, const SetConditional& set_conditional) {
  check_shape(kernel, shape, params.size());
  Launch launch;
  launch.module = &module;
  launch.program = &module.program(kernel);
  launch.memory = &memory;
  launch.set_conditional = &set_conditional;
  launch.shape = shape;
  launch.params.assign(params.begin(), params.end());
  const char* copies = std::getenv("SPECDEC_PTX_COPIES");
  launch.late_copies = copies == nullptr || std::string_view(copies) != "early";
  run_grid(launch);
  ++total.launches;
  total.warp_instructions += launch.warp_instructions;
  total.lane_instructions += launch.lane_instructions;
}

}  // namespace specdec::ptx
