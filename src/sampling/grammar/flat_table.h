#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace specdec::grammar {

/// Open addressing from a hash to indices of a vector that someone else owns: the set behind every
/// hash-consed thing here. Indices only grow, nothing is ever removed.
class FlatTable {
 public:
  static constexpr std::uint32_t kNone = 0xFFFFFFFF;

  /// The index whose hash is `hash` and for which `same(index)` holds, or kNone.
  template <class Same>
  std::uint32_t find(std::uint64_t hash, Same same) const {
    if (slots_.empty()) return kNone;
    const std::size_t mask = slots_.size() - 1;
    for (std::size_t at = mix(hash) & mask;; at = (at + 1) & mask) {
      const Slot& slot = slots_[at];
      if (slot.index == kNone) return kNone;
      if (slot.tag == static_cast<std::uint32_t>(hash) && same(slot.index)) return slot.index;
    }
  }

  /// Adds an index that find() did not find. `hash_of(index)` gives the hash of an older one.
  template <class HashOf>
  void insert(std::uint64_t hash, std::uint32_t index, HashOf hash_of) {
    if ((count_ + 1) * 4 > slots_.size() * 3) grow(hash_of);
    place(hash, index);
    ++count_;
  }

  std::size_t memory_bytes() const noexcept { return slots_.capacity() * sizeof(Slot); }

 private:
  struct Slot {
    std::uint32_t tag = 0;
    std::uint32_t index = kNone;
  };

  static std::size_t mix(std::uint64_t hash) noexcept {
    return static_cast<std::size_t>((hash * 0x9E3779B97F4A7C15ull) >> 32);
  }
  void place(std::uint64_t hash, std::uint32_t index) {
    const std::size_t mask = slots_.size() - 1;
    std::size_t at = mix(hash) & mask;
    while (slots_[at].index != kNone) at = (at + 1) & mask;
    slots_[at] = {static_cast<std::uint32_t>(hash), index};
  }
  template <class HashOf>
  void grow(HashOf hash_of) {
    std::vector<Slot> old(slots_.empty() ? 64 : slots_.size() * 2);
    old.swap(slots_);
    for (const Slot& slot : old)
      if (slot.index != kNone) place(hash_of(slot.index), slot.index);
  }

  std::vector<Slot> slots_;
  std::size_t count_ = 0;
};

/// Mixes a value into a hash (the finaliser of MurmurHash3).
constexpr std::uint64_t hash_mix(std::uint64_t hash, std::uint64_t value) noexcept {
  hash = (hash ^ value) * 0xFF51AFD7ED558CCDull;
  hash ^= hash >> 33;
  hash *= 0xC4CEB9FE1A85EC53ull;
  return hash ^ (hash >> 29);
}

}  // namespace specdec::grammar
