// Asynchronous copies to shared memory, and mbarriers.
//
// A copy may take place at any time between its issue and the wait for it. The machine does it at
// the last possible moment, so that a kernel that reads too early gets what was there before;
// SPECDEC_PTX_COPIES=early does it at once, so that one that overwrites what is still being read is
// found.
#include <algorithm>
#include <cstring>

#include "tests/ptx/access.h"
#include "tests/ptx/dispatch.h"
#include "tests/ptx/mbarrier.h"

namespace specdec::ptx {
namespace {

constexpr std::uint64_t kMark = 0x5Bull << 56u;
constexpr std::uint32_t kCountMask = 0xFFFFFu;  // 20 bits

void perform(PendingCopy& copy, std::uint32_t lanes) {
  for_lanes(lanes & copy.lanes, [&](int lane) {
    auto* to = reinterpret_cast<std::byte*>(copy.to[static_cast<std::size_t>(lane)]);
    const std::size_t bytes = copy.source_bytes[static_cast<std::size_t>(lane)];
    if (bytes != 0)
      std::memcpy(to, reinterpret_cast<const void*>(copy.from[static_cast<std::size_t>(lane)]),
                  bytes);
    std::memset(to + bytes, 0, static_cast<std::size_t>(copy.bytes) - bytes);
  });
  copy.lanes &= ~lanes;
}

void drop_finished(Warp& warp) {
  std::size_t done = 0;
  while (done < warp.copies.size() && warp.copies[done].lanes == 0) ++done;
  warp.copies.erase(warp.copies.begin(), warp.copies.begin() + static_cast<std::ptrdiff_t>(done));
  warp.first_copy += done;
}

void copy_async(Warp& warp, const Instr& instr) {
  Addresses to, from;
  const std::size_t bytes = instr.target;
  resolve(warp, instr, bytes, to);
  PendingCopy copy;
  copy.lanes = warp.exec;
  copy.bytes = static_cast<int>(bytes);
  const Place* operands = &warp.launch->program->operands[instr.more];
  const std::uint32_t* sizes =
      instr.more_count > 2 ? warp.row<std::uint32_t>(operands[2]) : nullptr;
  std::uint32_t reading = 0;
  for_lanes(warp.exec, [&](int lane) {
    const auto i = static_cast<std::size_t>(lane);
    std::uint32_t size = static_cast<std::uint32_t>(bytes);
    if (sizes != nullptr) size = sizes[lane];
    if (size > bytes)
      fail(warp, Fault::Kind::kUndefined, lane, "cp.async: a source larger than the copy");
    copy.source_bytes[i] = static_cast<std::uint8_t>(size);
    reading |= static_cast<std::uint32_t>(size != 0) << lane;
    copy.group[i] = warp.commits[i];
    copy.to[i] = to[lane];
  });
  if (reading != 0) {  // nothing is read where the source has no bytes
    const std::uint32_t all = warp.exec;
    warp.exec = reading;
    resolve(warp, instr, operands[0], instr.b >> 8, operands[1] >> 1, Space::kGlobal, bytes, from);
    warp.exec = all;
    for_lanes(reading, [&](int lane) { copy.from[static_cast<std::size_t>(lane)] = from[lane]; });
  }
  if (warp.launch->late_copies) {
    warp.copies.push_back(copy);
  } else {
    perform(copy, copy.lanes);
  }
}

void commit_group(Warp& warp, const Instr& /*instr*/) {
  for_lanes(warp.exec, [&](int lane) { ++warp.commits[static_cast<std::size_t>(lane)]; });
}

// All but the last Instr::immediate groups of each lane; negative: also what has not been
// committed.
void wait_group(Warp& warp, const Instr& instr) {
  for (PendingCopy& copy : warp.copies) {
    std::uint32_t lanes = 0;
    for_lanes(copy.lanes & warp.exec, [&](int lane) {
      const auto i = static_cast<std::size_t>(lane);
      const bool due = instr.immediate < 0 || copy.group[i] + instr.immediate < warp.commits[i];
      lanes |= static_cast<std::uint32_t>(due) << lane;
    });
    perform(copy, lanes);
  }
  drop_finished(warp);
}

// The copies that arrivals at this barrier wait for, then the arrivals.
void settle_arrivals(Warp& asking, std::uintptr_t barrier) {
  for (const std::unique_ptr<Warp>& warp : asking.block->warps) {
    if (warp->arrivals.empty()) continue;
    for (std::size_t i = 0; i < warp->arrivals.size();) {
      const PendingArrival arrival = warp->arrivals[i];
      if (arrival.barrier != barrier) {
        ++i;
        continue;
      }
      for (std::size_t k = 0; k < warp->copies.size() && warp->first_copy + k < arrival.copies;
           ++k) {
        perform(warp->copies[k], arrival.lanes);
      }
      drop_finished(*warp);
      Mbarrier object = Mbarrier::load(asking, -1, barrier);
      for_lanes(arrival.lanes, [&](int) { object.arrive(asking, -1, 1); });
      object.store(barrier);
      warp->arrivals.erase(warp->arrivals.begin() + static_cast<std::ptrdiff_t>(i));
    }
  }
}

// cp.async.mbarrier.arrive: kind holds the space, target says whether the barrier expects one
// arrival more.
void arrive_after_copies(Warp& warp, const Instr& instr) {
  Addresses addresses;
  resolve(warp, instr, 8, addresses);
  for_lanes(warp.exec, [&](int lane) {
    const std::uintptr_t address = addresses[lane];
    if (instr.target != 0) {
      Mbarrier object = Mbarrier::load(warp, lane, address);
      ++object.pending;
      object.store(address);
    }
    if (!warp.arrivals.empty() && warp.arrivals.back().barrier == address &&
        warp.arrivals.back().copies == warp.first_copy + warp.copies.size() &&
        (warp.arrivals.back().lanes >> lane & 1u) == 0) {
      warp.arrivals.back().lanes |= std::uint32_t{1} << lane;
    } else {
      warp.arrivals.push_back(
          {address, std::uint32_t{1} << lane, warp.first_copy + warp.copies.size()});
    }
  });
  if (!warp.launch->late_copies) {
    for_lanes(warp.exec, [&](int lane) { settle_arrivals(warp, addresses[lane]); });
  }
}

void decode_cp(Decoder& decoder, const Statement& statement, Words& words) {
  if (!words.take("async")) decoder.unknown(statement);
  Instr instr;
  if (words.take("commit_group")) {
    instr.run = &commit_group;
    decoder.emit(instr, false);
    return;
  }
  if (words.take("wait_group")) {
    instr.run = &wait_group;
    instr.immediate = statement.operands.at(0).value;
    decoder.emit(instr, false);
    return;
  }
  if (words.take("wait_all")) {
    instr.run = &wait_group;
    instr.immediate = -1;
    decoder.emit(instr, false);
    return;
  }
  if (words.take("mbarrier")) {
    if (!words.take("arrive")) decoder.unknown(statement);
    instr.target = words.take("noinc") ? 0 : 1;
    instr.run = &arrive_after_copies;
    decoder.set_address(instr, statement.operands.at(0), words.space());
    words.type();
    decoder.emit(instr, false);
    return;
  }
  words.take("ca") || words.take("cg");
  for (const char* hint : {"L2::64B", "L2::128B", "L2::256B"}) words.take(hint);
  if (!words.take("shared") && !words.take("shared::cta")) decoder.unknown(statement);
  if (!words.take("global")) decoder.unknown(statement);
  instr.run = &copy_async;
  decoder.set_address(instr, statement.operands.at(0), Space::kShared);
  const Address from = decoder.address(statement.operands.at(1), Space::kGlobal);
  if (from.offset != static_cast<std::int32_t>(from.offset * 2) / 2)
    decoder.unknown(statement, "offset");
  const std::int64_t bytes = statement.operands.at(2).value;
  if (bytes != 4 && bytes != 8 && bytes != 16) decoder.unknown(statement, "size");
  instr.target = static_cast<std::uint32_t>(bytes);
  // Width and offset of the source are not places: odd, so that nobody takes them for registers.
  instr.b = static_cast<Place>(from.width << 8 | 1);
  std::vector<Place> reads = {from.base, static_cast<Place>(from.offset * 2 | 1)};
  if (statement.operands.size() > 3) reads.push_back(decoder.use(statement.operands[3], kU32));
  decoder.more(instr, reads, {});
  decoder.emit(instr, false);
}

void init(Warp& warp, const Instr& instr) {
  Addresses addresses;
  resolve(warp, instr, 8, addresses);
  const std::uint32_t* b = warp.row<std::uint32_t>(instr.b);
  for_lanes(warp.exec, [&](int lane) {
    if (b[lane] == 0 || b[lane] > kCountMask)
      fail(warp, Fault::Kind::kUndefined, lane, "mbarrier.init: the count");
    Mbarrier object;
    object.pending = object.expected = b[lane];
    object.store(addresses[lane]);
  });
}

void invalidate(Warp& warp, const Instr& instr) {
  Addresses addresses;
  resolve(warp, instr, 8, addresses);
  for_lanes(warp.exec, [&](int lane) {
    Mbarrier::load(warp, lane, addresses[lane]);
    std::memset(reinterpret_cast<void*>(addresses[lane]), 0, 8);
  });
}

void arrive(Warp& warp, const Instr& instr) {
  Addresses addresses;
  resolve(warp, instr, 8, addresses);
  const std::uint32_t* count = instr.b == kNowhere ? nullptr : warp.row<std::uint32_t>(instr.b);
  std::uint64_t* d = instr.d == kNowhere ? nullptr : warp.row<std::uint64_t>(instr.d);
  for_lanes(warp.exec, [&](int lane) {
    Mbarrier object = Mbarrier::load(warp, lane, addresses[lane]);
    const std::uint64_t before = object.bits();
    object.arrive(warp, lane, count == nullptr ? 1 : count[lane]);
    object.store(addresses[lane]);
    if (d != nullptr) d[lane] = before;
  });
}

template <bool kParity>
void test_wait(Warp& warp, const Instr& instr) {
  Addresses addresses;
  resolve(warp, instr, 8, addresses);
  std::uint32_t done = 0;
  for_lanes(warp.exec, [&](int lane) {
    settle_arrivals(warp, addresses[lane]);
    const bool waited = kParity ? (warp.row<std::uint32_t>(instr.b)[lane] & 1u) != 0
                                : Mbarrier::phase_of(warp.row<std::uint64_t>(instr.b)[lane]);
    done |= static_cast<std::uint32_t>(Mbarrier::load(warp, lane, addresses[lane]).phase != waited)
            << lane;
  });
  write_predicate(warp, instr.d, done);
  warp.polled_in_vain = (warp.exec & ~done) != 0;
}

void decode_mbarrier(Decoder& decoder, const Statement& statement, Words& words) {
  Instr instr;
  for (const char* word : {"relaxed", "acquire", "release", "cta"}) words.take(word);
  const Space space = words.space();
  words.type();
  if (words.take("init")) {
    instr.run = &init;
    instr.b = decoder.use(statement.operands.at(1), kU32);
    decoder.set_address(instr, statement.operands.at(0), space);
    decoder.emit(instr, false);
  } else if (words.take("inval")) {
    instr.run = &invalidate;
    decoder.set_address(instr, statement.operands.at(0), space);
    decoder.emit(instr, false);
  } else if (words.take("arrive")) {
    instr.run = &arrive;
    const bool sink = statement.operands.at(0).name == "_";
    if (!sink) instr.d = decoder.define(statement.operands[0], kU64);
    decoder.set_address(instr, statement.operands.at(1), space);
    if (statement.operands.size() > 2) instr.b = decoder.use(statement.operands[2], kU32);
    decoder.emit(instr);
  } else if (words.take("test_wait") || words.take("try_wait")) {
    const bool parity = words.take("parity");
    instr.run = parity ? &test_wait<true> : &test_wait<false>;
    instr.flow = Flow::kPoll;
    instr.d = decoder.define(statement.operands.at(0), kPredicateType);
    decoder.set_address(instr, statement.operands.at(1), space);
    instr.b = decoder.use(statement.operands.at(2), parity ? kU32 : kU64);
    decoder.emit(instr);
  } else {
    decoder.unknown(statement);
  }
}

}  // namespace

Mbarrier Mbarrier::load(const Warp& warp, int lane, std::uintptr_t address) {
  std::uint64_t bits = 0;
  std::memcpy(&bits, reinterpret_cast<const void*>(address), sizeof(bits));
  if ((bits & 0xFFull << 56u) != kMark)
    fail(warp, Fault::Kind::kUndefined, lane, "no mbarrier was made there");
  Mbarrier object;
  object.pending = static_cast<std::uint32_t>(bits) & kCountMask;
  object.expected = static_cast<std::uint32_t>(bits >> 20u) & kCountMask;
  object.phase = phase_of(bits);
  object.bytes = static_cast<std::int32_t>(static_cast<std::uint32_t>(bits >> 41u & 0x7FFFu));
  return object;
}

std::uint64_t Mbarrier::bits() const {
  return kMark | static_cast<std::uint64_t>(bytes & 0x7FFF) << 41u |
         static_cast<std::uint64_t>(phase) << 40u | static_cast<std::uint64_t>(expected) << 20u |
         pending;
}

void Mbarrier::store(std::uintptr_t address) const {
  const std::uint64_t raw = bits();
  std::memcpy(reinterpret_cast<void*>(address), &raw, sizeof(raw));
}

void Mbarrier::arrive(const Warp& warp, int lane, std::uint32_t count) {
  if (count > pending)
    fail(warp, Fault::Kind::kUndefined, lane, "more arrivals at an mbarrier than it expects");
  pending -= count;
  settle();
}

void Mbarrier::settle() {
  if (pending != 0 || bytes != 0) return;
  pending = expected;
  phase = !phase;
}

void finish_copies(Warp& warp) {
  for (PendingCopy& copy : warp.copies) perform(copy, copy.lanes);
  drop_finished(warp);
}

void add_async(OpTable& table) {
  table["cp"] = &decode_cp;
  table["mbarrier"] = &decode_mbarrier;
}

}  // namespace specdec::ptx
