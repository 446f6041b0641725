#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <new>

#include "tests/ptx/machine.h"

namespace specdec::ptx {
namespace {

constexpr std::size_t kAlignment = 256;
constexpr std::size_t kZone = 1024;                   // before and after each allocation
constexpr std::size_t kQuarantineBytes = 64u << 20u;  // released blocks that are kept, in all
constexpr int kFill = 0xA5;

// Large blocks are mapped from a file of one byte's value, again and again: pages that nobody
// touches cost nothing.
constexpr std::size_t kMappedBlock = 4u << 20u;
constexpr std::size_t kPattern = 8u << 20u;

int pattern_file(int value) {
  static std::array<int, 256> files = [] {
    std::array<int, 256> none{};
    none.fill(-1);
    return none;
  }();
  int& file = files[static_cast<std::uint8_t>(value)];
  if (file >= 0) return file;
  const int made = memfd_create("ptx-fill", 0);
  if (made < 0 || ftruncate(made, kPattern) != 0) throw std::bad_alloc();
  void* bytes = mmap(nullptr, kPattern, PROT_READ | PROT_WRITE, MAP_SHARED, made, 0);
  if (bytes == MAP_FAILED) throw std::bad_alloc();
  std::memset(bytes, value, kPattern);
  munmap(bytes, kPattern);
  return file = made;
}

// Of whole pages.
void map_pattern(std::byte* begin, std::size_t bytes, int value) {
  for (std::size_t at = 0; at < bytes; at += kPattern) {
    if (mmap(begin + at, std::min(kPattern, bytes - at), PROT_READ | PROT_WRITE,
             MAP_PRIVATE | MAP_FIXED | MAP_NORESERVE, pattern_file(value), 0) == MAP_FAILED) {
      throw std::bad_alloc();
    }
  }
}

}  // namespace

void GiveBack::operator()(std::byte* storage) const {
  if (mapped == 0) {
    delete[] storage;
  } else {
    munmap(storage, mapped);
  }
}

Memory::Storage Memory::make_storage(std::size_t bytes) {
  if (bytes < kMappedBlock) {
    Storage storage(new std::byte[bytes], GiveBack{0});
    std::memset(storage.get(), kFill, bytes);
    return storage;
  }
  const std::size_t size = (bytes + kPattern - 1) / kPattern * kPattern;
  void* all = mmap(nullptr, size, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (all == MAP_FAILED) throw std::bad_alloc();
  Storage storage(static_cast<std::byte*>(all), GiveBack{size});
  map_pattern(storage.get(), size, kFill);
  return storage;
}

Memory::Memory() = default;
Memory::~Memory() = default;

void* Memory::allocate(std::size_t bytes, Kind kind) {
  const std::size_t size = std::max<std::size_t>(bytes, 1);
  const std::size_t total = size + kAlignment + 2 * kZone;
  Storage storage = make_storage(total);
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
  if (block.storage_bytes < kMappedBlock) {
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

void Memory::fill(void* pointer, int value, std::size_t bytes) {
  constexpr std::size_t kPage = 4096;
  auto* const begin = static_cast<std::byte*>(pointer);
  const Region* region = find(pointer);
  if (bytes < 4 * kMappedBlock || region == nullptr || region->kind != Kind::kDevice) {
    std::memset(begin, value, bytes);
    return;
  }
  const std::size_t head = (kPage - reinterpret_cast<std::uintptr_t>(begin) % kPage) % kPage;
  const std::size_t pages = (bytes - head) / kPage * kPage;
  std::memset(begin, value, head);
  map_pattern(begin + head, pages, value);
  std::memset(begin + head + pages, value, bytes - head - pages);
}

// Reads of memory that was never written are not tracked yet: nothing to note.
void Memory::mark_written(const void* /*pointer*/, std::size_t /*bytes*/) {}

}  // namespace specdec::ptx
