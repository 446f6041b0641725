// One warp: lanes that have diverged form groups. The group that is furthest behind in the text
// runs, so that the others are waited for where branches join again, which in nvcc's code lies
// behind the branches.
#include "tests/ptx/warp.h"

#include <cstdio>

#include "tests/ptx/execute.h"

namespace specdec::ptx {
namespace {

constexpr std::uint32_t kGroupTurn =
    4096;  // instructions after which another group must have its turn

std::uint32_t live_lanes(const Warp& warp) { return ~warp.exited; }

[[noreturn]] void report_stuck(Warp& warp) {
  std::string where;
  for (const Group& group : warp.groups) {
    warp.pc = group.pc;
    char lanes[16];
    std::snprintf(lanes, sizeof(lanes), "%08x", group.lanes);
    where += "; lanes " + std::string(lanes) + " wait at line " +
             std::to_string(warp.launch->program->lines[group.pc]);
  }
  fail(warp, Fault::Kind::kDeadlock, -1, "the lanes of the warp do not meet" + where);
}

// Index of the group that runs next; merges groups that are at the same place.
std::size_t choose(Warp& warp) {
  std::vector<Group>& groups = warp.groups;
  for (std::size_t i = 0; i < groups.size(); ++i) {
    for (std::size_t k = groups.size() - 1; k > i; --k) {
      if (groups[k].pc != groups[i].pc) continue;
      groups[i].lanes |= groups[k].lanes;
      groups[i].waits = false;
      groups[i].tired = groups[i].tired && groups[k].tired;
      groups.erase(groups.begin() + static_cast<std::ptrdiff_t>(k));
    }
  }
  for (int round = 0; round < 2; ++round) {
    std::size_t best = groups.size();
    for (std::size_t i = 0; i < groups.size(); ++i) {
      if (groups[i].waits || groups[i].tired) continue;
      if (best == groups.size() || groups[i].pc < groups[best].pc) best = i;
    }
    if (best != groups.size()) return best;
    for (Group& group : groups) group.tired = false;
  }
  report_stuck(warp);
}

// True if the lanes of `exec` with the member mask `members` are all there; runs the instruction
// for them.
bool meet(Warp& warp, const Instr& instr, std::uint32_t exec) {
  if (instr.members == kNowhere) {
    if (exec != live_lanes(warp)) return false;
    warp.exec = warp.taking_part = exec;
    instr.run(warp, instr);
    return true;
  }
  const std::uint32_t* members = warp.row<std::uint32_t>(instr.members);
  if ((instr.members & 1) != 0 &&
      (members[0] & live_lanes(warp)) == exec) {  // a constant, and all are there
    warp.exec = warp.taking_part = exec;
    instr.run(warp, instr);
    return true;
  }
  for (std::uint32_t left = exec; left != 0;) {  // usually one mask for all
    const std::uint32_t mask = members[std::countr_zero(left)];
    std::uint32_t same = 0;
    for_lanes(left,
              [&](int lane) { same |= static_cast<std::uint32_t>(members[lane] == mask) << lane; });
    if ((same & ~mask) != 0) {
      fail(warp, Fault::Kind::kUndefined, std::countr_zero(same & ~mask),
           "a lane that is not in its own member mask");
    }
    if ((mask & live_lanes(warp) & ~same) != 0) return false;
    left &= ~same;
  }
  for (std::uint32_t left = exec; left != 0;) {
    const std::uint32_t lanes = members[std::countr_zero(left)] & left;
    warp.exec = warp.taking_part = lanes;
    instr.run(warp, instr);
    left &= ~lanes;
  }
  return true;
}

// PTX asks for the same operation with the same member mask, not for the same place in the text:
// nvcc makes two copies of a loop whose body asks which lane it is, each with its own shfl.sync of
// all lanes. True if the groups that wait at such instructions are all the lanes of the mask; then
// all of them have done theirs.
bool join(Warp& warp, const Group& own) {
  const Instr* const code = warp.launch->program->code.data();
  const Instr& first = code[own.pc];
  if (first.members == kNowhere || first.guard != kNowhere) return false;
  const std::uint32_t mask = warp.row<std::uint32_t>(first.members)[std::countr_zero(own.lanes)];
  std::vector<Group*> partners;
  std::uint32_t there = 0;
  for (Group& group : warp.groups) {
    const Instr& instr = code[group.pc];
    if (&group != &own && !group.waits) continue;
    if (instr.flow != Flow::kMeet || instr.run != first.run || instr.kind != first.kind ||
        instr.guard != kNowhere)
      continue;
    const std::uint32_t* members = warp.row<std::uint32_t>(instr.members);
    bool same = true;
    for_lanes(group.lanes, [&](int lane) { same &= members[lane] == mask; });
    if (!same) continue;
    partners.push_back(&group);
    there |= group.lanes;
  }
  if ((mask & live_lanes(warp) & ~there) != 0 || (there & ~mask) != 0) return false;
  // All of them read one row, put together of their own.
  const auto merged = static_cast<Place>(warp.launch->program->rows_bytes);
  if (first.a != kNowhere) {
    auto* to = warp.row<std::uint32_t>(merged);
    for (const Group* group : partners) {
      const auto* from = warp.row<std::uint32_t>(code[group->pc].a);
      if (first.reads_predicate) {
        *to = (*to & ~group->lanes) | (*from & group->lanes);
      } else {
        for_lanes(group->lanes, [&](int lane) { to[lane] = from[lane]; });
      }
    }
  }
  for (Group* group : partners) {
    Instr instr = code[group->pc];
    if (instr.a != kNowhere) instr.a = merged;
    warp.pc = group->pc;
    warp.exec = group->lanes;
    warp.taking_part = there;
    instr.run(warp, instr);
    group->waits = false;
    ++group->pc;
  }
  return true;
}

}  // namespace

void Warp::set_masks() {
  masked_ = exec;
  for (int lane = 0; lane < kLanes; ++lane) {
    const auto bit = static_cast<std::int32_t>(exec >> lane & 1u);
    mask32_[lane] = -bit;
    mask64_[lane] = -static_cast<std::int64_t>(bit);
  }
}

Stop run_warp(Warp& warp, std::uint32_t budget) {
  const Instr* const code = warp.launch->program->code.data();
  Launch& launch = *warp.launch;
  std::uint64_t lane_count = 0;
  std::uint32_t used = 0;
  const auto leave = [&](Stop stop) {
    launch.warp_instructions += used;
    launch.lane_instructions += lane_count;
    return stop;
  };
  while (used < budget) {
    const std::size_t current = choose(warp);
    Group& group = warp.groups[current];
    const bool alone = warp.groups.size() == 1;
    const std::uint32_t lanes = group.lanes;
    std::uint32_t pc = group.pc;
    // A straight run: until the set of groups changes or another one's turn has come.
    for (std::uint32_t steps = 0; used < budget; ++steps) {
      if (!alone && steps != 0) {
        bool regroup = false;
        for (const Group& other : warp.groups) {
          if (&other == &group) continue;
          regroup |= other.pc == pc || (!other.waits && !other.tired && other.pc < pc);
        }
        group.tired = steps >= kGroupTurn;
        if (regroup || group.tired) break;
      }
      const Instr& instr = code[pc];
      warp.pc = pc;
      std::uint32_t exec = lanes;
      if (instr.guard != kNowhere) {
        const std::uint32_t guard = *warp.row<std::uint32_t>(instr.guard);
        exec &= instr.guard_negated ? ~guard : guard;
      }
      ++used;
      lane_count += static_cast<std::uint64_t>(std::popcount(exec));
      if (instr.flow == Flow::kPlain) {
        if (exec != 0) {
          warp.exec = exec;
          instr.run(warp, instr);
        }
        ++pc;
        continue;
      }
      if (exec == 0) {
        ++pc;
        continue;
      }
      warp.exec = exec;
      group.pc = pc;
      bool changed = false;
      switch (instr.flow) {
        case Flow::kBranch:
          if (exec == lanes) {
            pc = instr.target;
          } else {
            group.lanes = lanes & ~exec;
            ++pc;
            group.pc = pc;
            warp.groups.push_back({exec, instr.target});  // `group` may be gone
            changed = true;
          }
          break;
        case Flow::kExit:
          warp.exited |= exec;
          group.lanes = lanes & ~exec;
          ++group.pc;
          if (group.lanes == 0)
            warp.groups.erase(warp.groups.begin() + static_cast<std::ptrdiff_t>(current));
          for (Group& other : warp.groups) other.waits = false;  // fewer lanes to wait for
          if (warp.groups.empty()) return leave(Stop::kDone);
          changed = true;
          break;
        case Flow::kMeet:
          if (meet(warp, instr, exec)) {
            ++pc;
          } else if (join(warp, group)) {
            changed = true;
          } else {
            group.waits = true;
            changed = true;
          }
          break;
        case Flow::kBarrier:
          if (exec != live_lanes(warp)) {
            group.waits = true;
            changed = true;
          } else {
            arrive_at_barrier(warp, instr);
            if (warp.at_barrier >= 0) return leave(Stop::kBarrier);
            pc = group.pc;
          }
          break;
        case Flow::kPoll:
          warp.polled_in_vain = false;
          instr.run(warp, instr);
          ++pc;
          if (warp.polled_in_vain) {
            group.pc = pc;
            group.tired = true;  // what it waits for may be up to the warp's other lanes
            return leave(Stop::kVain);
          }
          break;
        case Flow::kPlain:
          break;
      }
      if (changed) {
        pc = UINT32_MAX;
        break;
      }
    }
    if (pc != UINT32_MAX) group.pc = pc;
  }
  return leave(Stop::kTurn);
}

}  // namespace specdec::ptx
