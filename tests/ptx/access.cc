#include "tests/ptx/access.h"

#include <cstdio>

namespace specdec::ptx {
namespace {

std::string hex(std::uint64_t value) {
  char text[32];
  std::snprintf(text, sizeof(text), "0x%llx", static_cast<unsigned long long>(value));
  return text;
}

[[noreturn]] void misaligned(const Warp& warp, int lane, std::uintptr_t address,
                             std::size_t bytes) {
  fail(warp, Fault::Kind::kMisalignedAddress, lane,
       "an access of " + std::to_string(bytes) + " bytes at " + hex(address) + ", not aligned");
}

[[noreturn]] void outside(const Warp& warp, int lane, std::uint64_t address, std::size_t bytes,
                          const char* space) {
  fail(warp, Fault::Kind::kIllegalAddress, lane,
       "an access of " + std::to_string(bytes) + " bytes at " + hex(address) + " lies outside " +
           space);
}

// True if all lanes of the mask lie in [begin, end) with their `bytes`.
bool all_inside(const Addresses& addresses, const std::int64_t* mask, std::uintptr_t begin,
                std::uintptr_t end, std::size_t bytes) {
  if (end - begin < bytes) return false;
  const auto last = static_cast<std::int64_t>(end - begin - bytes);
  std::int64_t bad = 0;
  for (int lane = 0; lane < kLanes; ++lane) {
    const auto offset = static_cast<std::int64_t>(addresses[lane] - begin);
    bad |= (offset | static_cast<std::int64_t>(static_cast<std::uint64_t>(last) -
                                               static_cast<std::uint64_t>(offset))) &
           mask[lane];
  }
  return bad >= 0;
}

void check_alignment(const Warp& warp, const Addresses& addresses, const std::int64_t* mask,
                     std::size_t bytes) {
  std::uintptr_t low = 0;
  for (int lane = 0; lane < kLanes; ++lane)
    low |= addresses[lane] & static_cast<std::uintptr_t>(mask[lane]);
  if ((low & (bytes - 1)) == 0) return;
  for_lanes(warp.exec, [&](int lane) {
    if ((addresses[lane] & (bytes - 1)) != 0) misaligned(warp, lane, addresses[lane], bytes);
  });
}

void check_region(Warp& warp, const Addresses& addresses, std::size_t bytes) {
  CachedRegion& cached = warp.launch->regions[warp.pc % warp.launch->regions.size()];
  if (all_inside(addresses, warp.mask64(), cached.begin, cached.end, bytes)) return;
  const int first = std::countr_zero(warp.exec);
  if (const Memory::Region* region =
          warp.launch->memory->find(reinterpret_cast<void*>(addresses[first]))) {
    cached = {region->begin, region->end};
    if (all_inside(addresses, warp.mask64(), cached.begin, cached.end, bytes)) return;
  }
  for_lanes(warp.exec, [&](int lane) { check_flat(warp, lane, addresses[lane], bytes); });
}

}  // namespace

void check_flat(Warp& warp, int lane, std::uintptr_t address, std::size_t bytes) {
  const auto inside = [&](std::uintptr_t begin, std::size_t size) {
    return address >= begin && size >= bytes && address - begin <= size - bytes;
  };
  if (warp.launch->memory->contains(reinterpret_cast<void*>(address), bytes)) return;
  if (inside(reinterpret_cast<std::uintptr_t>(warp.block->shared), warp.block->shared_bytes))
    return;
  if (inside(reinterpret_cast<std::uintptr_t>(warp.local_of(lane)),
             warp.launch->program->local_bytes))
    return;
  if (inside(reinterpret_cast<std::uintptr_t>(warp.launch->params.data()),
             warp.launch->params.size()))
    return;
  outside(warp, lane, address, bytes, "live memory");
}

void resolve(Warp& warp, const Instr& /*instr*/, Place base, int width, std::int64_t offset,
             Space space, std::size_t bytes, Addresses& addresses) {
  const auto add = static_cast<std::uintptr_t>(offset);
  if (width == 64) {
    const std::uint64_t* a = warp.row<std::uint64_t>(base);
    for (int lane = 0; lane < kLanes; ++lane) addresses[lane] = a[lane] + add;
  } else {
    const std::uint32_t* a = warp.row<std::uint32_t>(base);
    for (int lane = 0; lane < kLanes; ++lane) addresses[lane] = a[lane] + add;
  }
  const std::int64_t* mask = warp.mask64();
  switch (space) {
    case Space::kShared: {
      for (int lane = 0; lane < kLanes; ++lane) addresses[lane] &= 0xFFFFFFFFu;
      if (!all_inside(addresses, mask, kSpaceBase, kSpaceBase + warp.block->shared_bytes, bytes)) {
        for_lanes(warp.exec, [&](int lane) {
          const std::uintptr_t at = addresses[lane] - kSpaceBase;
          if (addresses[lane] < kSpaceBase || at + bytes > warp.block->shared_bytes) {
            outside(warp, lane, at, bytes, "the block's shared memory");
          }
        });
      }
      check_alignment(warp, addresses, mask, bytes);
      const auto begin = reinterpret_cast<std::uintptr_t>(warp.block->shared) - kSpaceBase;
      for (int lane = 0; lane < kLanes; ++lane) addresses[lane] += begin;
      break;
    }
    case Space::kLocal:
    case Space::kParam: {
      const bool local = space == Space::kLocal;
      const std::size_t size =
          local ? warp.launch->program->local_bytes : warp.launch->params.size();
      if (!all_inside(addresses, mask, kSpaceBase, kSpaceBase + size, bytes)) {
        for_lanes(warp.exec, [&](int lane) {
          const std::uintptr_t at = addresses[lane] - kSpaceBase;
          if (addresses[lane] < kSpaceBase || at + bytes > size) {
            outside(warp, lane, at, bytes, local ? "the thread's local memory" : "the parameters");
          }
        });
      }
      check_alignment(warp, addresses, mask, bytes);
      for (int lane = 0; lane < kLanes; ++lane) {
        const void* begin =
            local ? static_cast<const void*>(warp.local_of(lane)) : warp.launch->params.data();
        addresses[lane] += reinterpret_cast<std::uintptr_t>(begin) - kSpaceBase;
      }
      break;
    }
    default:
      check_alignment(warp, addresses, mask, bytes);
      check_region(warp, addresses, bytes);
  }
}

}  // namespace specdec::ptx
