// Rows for virtual registers. nvcc's PTX names a new register for each value, thousands per kernel;
// a warp's rows should fit the first-level cache. A lane only ever touches its own value of a row,
// so liveness is that of one thread, and lanes that have diverged can share rows as any two threads
// could.
#include <algorithm>
#include <bit>
#include <functional>
#include <queue>

#include "tests/ptx/decoder.h"

namespace specdec::ptx {
namespace {

using Bits = std::vector<std::uint64_t>;

struct BasicBlock {
  std::size_t begin = 0, end = 0;
  std::vector<std::size_t> next;
  Bits in, out, reads, writes;  // reads: before any write in the block
};

void set(Bits& bits, std::size_t i) { bits[i / 64] |= std::uint64_t{1} << (i % 64); }
bool has(const Bits& bits, std::size_t i) { return (bits[i / 64] >> (i % 64) & 1u) != 0; }

// Calls read(register) and then write(register) for all that an instruction touches.
template <class Read, class Write>
void touch(const Decoder& decoder, std::size_t i, Read&& read, Write&& write) {
  const Instr& instr = decoder.program.code[i];
  const Decoder::Draft& draft = decoder.drafts[i];
  const auto is_register = [](Place place) { return place >= 0 && (place & 1) == 0; };
  const auto number = [](Place place) { return static_cast<std::size_t>(place) / 2; };
  const bool partial = instr.guard != kNowhere;  // lanes without the guard keep what was there
  for (const Place place : {instr.a, instr.b, instr.c, instr.guard, instr.members}) {
    if (is_register(place)) read(number(place));
  }
  if (is_register(instr.d) && (!draft.defines_d || partial)) read(number(instr.d));
  for (std::uint32_t k = 0; k < instr.more_count; ++k) {
    const Place place = decoder.program.operands[instr.more + k];
    if (is_register(place) && (k < draft.more_reads || partial)) read(number(place));
  }
  if (is_register(instr.d) && draft.defines_d) write(number(instr.d));
  for (std::uint32_t k = draft.more_reads; k < instr.more_count; ++k) {
    const Place place = decoder.program.operands[instr.more + k];
    if (is_register(place)) write(number(place));
  }
}

std::vector<BasicBlock> split(const std::vector<Instr>& code) {
  std::vector<bool> leads(code.size() + 1, false);
  leads[0] = true;
  for (std::size_t i = 0; i < code.size(); ++i) {
    if (code[i].flow == Flow::kBranch) leads[code[i].target] = true;
    if (code[i].flow == Flow::kBranch || code[i].flow == Flow::kExit) leads[i + 1] = true;
  }
  std::vector<std::size_t> block_of(code.size() + 1, 0);
  std::vector<BasicBlock> blocks;
  for (std::size_t i = 0; i < code.size(); ++i) {
    if (leads[i]) {
      blocks.emplace_back();
      blocks.back().begin = i;
    }
    blocks.back().end = i + 1;
    block_of[i] = blocks.size() - 1;
  }
  for (std::size_t b = 0; b < blocks.size(); ++b) {
    const Instr& last = code[blocks[b].end - 1];
    if (last.flow == Flow::kBranch) blocks[b].next.push_back(block_of[last.target]);
    const bool leaves =
        (last.flow == Flow::kBranch || last.flow == Flow::kExit) && last.guard == kNowhere;
    if (!leaves && b + 1 < blocks.size()) blocks[b].next.push_back(b + 1);
  }
  return blocks;
}

void find_live(const Decoder& decoder, std::vector<BasicBlock>& blocks) {
  const std::size_t words = decoder.registers.size() / 64 + 1;
  std::vector<std::vector<std::size_t>> before(blocks.size());
  for (std::size_t b = 0; b < blocks.size(); ++b) {
    BasicBlock& block = blocks[b];
    for (Bits* bits : {&block.in, &block.out, &block.reads, &block.writes}) bits->assign(words, 0);
    for (std::size_t i = block.begin; i < block.end; ++i) {
      touch(
          decoder, i,
          [&](std::size_t r) {
            if (!has(block.writes, r)) set(block.reads, r);
          },
          [&](std::size_t r) { set(block.writes, r); });
    }
    for (const std::size_t next : block.next) before[next].push_back(b);
  }
  std::vector<std::size_t> work;
  std::vector<bool> queued(blocks.size(), true);
  for (std::size_t b = 0; b < blocks.size(); ++b) work.push_back(b);
  while (!work.empty()) {
    BasicBlock& block = blocks[work.back()];
    const std::size_t b = work.back();
    work.pop_back();
    queued[b] = false;
    for (const std::size_t next : block.next) {
      for (std::size_t w = 0; w < words; ++w) block.out[w] |= blocks[next].in[w];
    }
    bool changed = false;
    for (std::size_t w = 0; w < words; ++w) {
      const std::uint64_t in = block.reads[w] | (block.out[w] & ~block.writes[w]);
      changed |= in != block.in[w];
      block.in[w] = in;
    }
    if (!changed) continue;
    for (const std::size_t previous : before[b]) {
      if (!queued[previous]) work.push_back(previous);
      queued[previous] = true;
    }
  }
}

struct Interval {
  std::size_t first = SIZE_MAX, last = 0;
  void extend(std::size_t at) {
    first = std::min(first, at);
    last = std::max(last, at);
  }
};

std::vector<Interval> intervals(const Decoder& decoder, const std::vector<BasicBlock>& blocks) {
  std::vector<Interval> all(decoder.registers.size());
  for (const BasicBlock& block : blocks) {
    for (std::size_t w = 0; w < block.in.size(); ++w) {
      for (std::uint64_t bits = block.in[w]; bits != 0; bits &= bits - 1) {
        all[w * 64 + static_cast<std::size_t>(std::countr_zero(bits))].extend(block.begin);
      }
      for (std::uint64_t bits = block.out[w]; bits != 0; bits &= bits - 1) {
        all[w * 64 + static_cast<std::size_t>(std::countr_zero(bits))].extend(block.end - 1);
      }
    }
    for (std::size_t i = block.begin; i < block.end; ++i) {
      const auto extend = [&](std::size_t r) { all[r].extend(i); };
      touch(decoder, i, extend, extend);
    }
  }
  // Special registers are set before the first instruction.
  for (const auto& [special, place] : decoder.program.specials)
    all[static_cast<std::size_t>(place) / 2].extend(0);
  return all;
}

std::size_t row_bytes(int bits) {
  return bits == 1 ? sizeof(std::uint32_t) : static_cast<std::size_t>(bits) / 8 * kLanes;
}

}  // namespace

void allocate_rows(Decoder& decoder) {
  Program& program = decoder.program;
  std::vector<BasicBlock> blocks = split(program.code);
  find_live(decoder, blocks);
  const std::vector<Interval> live = intervals(decoder, blocks);

  std::vector<std::size_t> order;
  for (std::size_t r = 0; r < live.size(); ++r) {
    if (live[r].first != SIZE_MAX) order.push_back(r);
  }
  std::sort(order.begin(), order.end(),
            [&](std::size_t x, std::size_t y) { return live[x].first < live[y].first; });
  struct Class {
    int bits = 0;
    std::vector<std::size_t> free;
    std::size_t used = 0, base = 0;
    std::priority_queue<std::pair<std::size_t, std::size_t>,
                        std::vector<std::pair<std::size_t, std::size_t>>,
                        std::greater<>>
        active;  // last use, slot
  };
  Class classes[3];
  classes[0].bits = 64;
  classes[1].bits = 32;
  classes[2].bits = 1;
  std::vector<std::size_t> slots(live.size(), 0);
  const auto class_of = [&](std::size_t r) -> Class& {
    const int bits = decoder.registers[r].bits;
    return classes[bits == 64 ? 0 : bits == 32 ? 1 : 2];
  };
  for (const std::size_t r : order) {
    Class& rows = class_of(r);
    // A row is free for a result only after the instruction that last reads it: functions may write
    // before they read.
    while (!rows.active.empty() && rows.active.top().first < live[r].first) {
      rows.free.push_back(rows.active.top().second);
      rows.active.pop();
    }
    if (rows.free.empty()) rows.free.push_back(rows.used++);
    slots[r] = rows.free.back();
    rows.free.pop_back();
    rows.active.emplace(live[r].last, slots[r]);
  }
  for (Class& rows : classes) {
    rows.base = program.rows_bytes;
    program.rows_bytes += rows.used * row_bytes(rows.bits);
  }
  program.num_registers = static_cast<int>(classes[1].used + 2 * classes[0].used);

  const auto settle = [&](Place& place) {
    if (place < 0 || (place & 1) != 0) return;
    const std::size_t r = static_cast<std::size_t>(place) / 2;
    const Class& rows = class_of(r);
    place = static_cast<Place>(rows.base + slots[r] * row_bytes(rows.bits));
  };
  for (Instr& instr : program.code) {
    for (Place* place : {&instr.d, &instr.a, &instr.b, &instr.c, &instr.guard, &instr.members})
      settle(*place);
  }
  for (Place& place : program.operands) settle(place);
  std::vector<std::pair<Special, Place>> used;
  for (auto& [special, place] : program.specials) {
    settle(place);
    used.emplace_back(special, place);
  }
  program.specials = std::move(used);
}

}  // namespace specdec::ptx
