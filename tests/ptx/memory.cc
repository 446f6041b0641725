#include <algorithm>
#include <cstring>

#include "tests/ptx/machine.h"

namespace specdec::ptx {
namespace {

constexpr std::size_t kAlignment = 256;
constexpr std::size_t kZone = 1024;                   // before and after each allocation
constexpr std::size_t kQuarantineBytes = 64u << 20u;  // released blocks that are kept, in all
constexpr std::size_t kQuarantineBlock = 16u << 20u;  // larger blocks are given back at once
constexpr int kFill = 0xA5;

}  // namespace

Memory::Memory() = default;
Memory::~Memory() = default;

void* Memory::allocate(std::size_t bytes, Kind kind) {
  const std::size_t size = std::max<std::size_t>(bytes, 1);
  const std::size_t total = size + kAlignment + 2 * kZone;
  std::unique_ptr<std::byte[]> storage(new std::byte[total]);
  std::memset(storage.get(), kFill, total);
  const auto start = reinterpret_cast<std::uintptr_t>(storage.get()) + kZone;
  const std::uintptr_t begin = (start + kAlignment - 1) / kAlignment * kAlignment;
  Block block;
  block.region = {begin, begin + size, kind};
  block.storage = std::move(storage);
  block.storage_bytes = total;
  live_.emplace(begin, std::move(block));
  if (kind == Kind::kDevice) device_bytes_ += size;
  ++generation_;
  return reinterpret_cast<void*>(begin);
}

bool Memory::release(void* pointer, Kind kind) {
  const auto found = live_.find(reinterpret_cast<std::uintptr_t>(pointer));
  if (found == live_.end() || found->second.region.kind != kind || !found->second.storage)
    return false;
  Block& block = found->second;
  const std::size_t size = block.region.end - block.region.begin;
  if (kind == Kind::kDevice) device_bytes_ -= size;
  if (block.storage_bytes <= kQuarantineBlock) {
    std::memset(pointer, kFill, size);
    quarantine_bytes_ += block.storage_bytes;
    quarantine_.push_back(std::move(block.storage));
    quarantined_.push_back(block.storage_bytes);
    while (quarantine_bytes_ > kQuarantineBytes) {
      quarantine_bytes_ -= quarantined_.front();
      quarantined_.pop_front();
      quarantine_.pop_front();
    }
  }
  live_.erase(found);
  ++generation_;
  return true;
}

void Memory::adopt(void* pointer, std::size_t bytes) {
  const auto begin = reinterpret_cast<std::uintptr_t>(pointer);
  Block block;
  block.region = {begin, begin + bytes, Kind::kAdopted};
  live_.insert_or_assign(begin, std::move(block));
  ++generation_;
}

bool Memory::abandon(void* pointer) {
  const auto found = live_.find(reinterpret_cast<std::uintptr_t>(pointer));
  if (found == live_.end() || found->second.region.kind != Kind::kAdopted) return false;
  live_.erase(found);
  ++generation_;
  return true;
}

const Memory::Region* Memory::find(const void* address) const {
  const auto at = reinterpret_cast<std::uintptr_t>(address);
  auto next = live_.upper_bound(at);
  if (next == live_.begin()) return nullptr;
  const Region& region = std::prev(next)->second.region;
  return at < region.end ? &region : nullptr;
}

bool Memory::contains(const void* pointer, std::size_t bytes) const {
  const Region* region = find(pointer);
  return region != nullptr && bytes <= region->end - reinterpret_cast<std::uintptr_t>(pointer);
}

// Reads of memory that was never written are not tracked yet: nothing to note.
void Memory::mark_written(const void* /*pointer*/, std::size_t /*bytes*/) {}

}  // namespace specdec::ptx
