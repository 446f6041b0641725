#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>
#include <type_traits>
#include <vector>

#include "sampling/grammar/flat_table.h"

namespace specdec::grammar {

/// Gives equal lists of small values the same index; the empty list is index 0.
template <class T>
class ListInterner {
  static_assert(std::has_unique_object_representations_v<T> && sizeof(T) % 4 == 0);

 public:
  ListInterner() { intern({}); }

  /// The index of the list, and whether it is new.
  struct Result {
    std::uint32_t index;
    bool added;
  };
  Result intern(std::span<const T> list) {
    const std::uint64_t hash = hash_of(list);
    const std::uint32_t found =
        table_.find(hash, [&](std::uint32_t at) { return std::ranges::equal((*this)[at], list); });
    if (found != FlatTable::kNone) return {found, false};
    const auto index = static_cast<std::uint32_t>(begins_.size());
    begins_.push_back(values_.size());
    values_.insert(values_.end(), list.begin(), list.end());
    table_.insert(hash, index, [&](std::uint32_t at) { return hash_of((*this)[at]); });
    return {index, true};
  }

  /// Valid until the next intern().
  std::span<const T> operator[](std::uint32_t index) const noexcept {
    const std::size_t begin = begins_[index];
    const std::size_t end = index + 1 < begins_.size() ? begins_[index + 1] : values_.size();
    return {values_.data() + begin, end - begin};
  }
  std::size_t size() const noexcept { return begins_.size(); }
  std::size_t memory_bytes() const noexcept {
    return begins_.capacity() * sizeof(std::size_t) + values_.capacity() * sizeof(T) +
           table_.memory_bytes();
  }

 private:
  static std::uint64_t hash_of(std::span<const T> list) noexcept {
    std::uint64_t hash = list.size();
    const auto* words = reinterpret_cast<const std::uint32_t*>(list.data());
    for (std::size_t i = 0; i < list.size() * (sizeof(T) / 4); ++i) hash = hash_mix(hash, words[i]);
    return hash;
  }

  std::vector<std::size_t> begins_;
  std::vector<T> values_;
  FlatTable table_;
};

/// A map from pairs of indices to an index; nothing is ever removed.
class PairTable {
 public:
  static constexpr std::uint32_t kNone = FlatTable::kNone;

  std::uint32_t find(std::uint32_t a, std::uint32_t b) const {
    const std::uint64_t key = std::uint64_t{a} << 32 | b;
    const std::uint32_t at =
        table_.find(hash_mix(0, key), [&](std::uint32_t i) { return entries_[i].key == key; });
    return at == kNone ? kNone : entries_[at].value;
  }
  /// The pair has no value yet.
  void insert(std::uint32_t a, std::uint32_t b, std::uint32_t value) {
    const std::uint64_t key = std::uint64_t{a} << 32 | b;
    entries_.push_back({key, value});
    table_.insert(hash_mix(0, key), static_cast<std::uint32_t>(entries_.size() - 1),
                  [&](std::uint32_t i) { return hash_mix(0, entries_[i].key); });
  }
  std::size_t memory_bytes() const noexcept {
    return entries_.capacity() * sizeof(Entry) + table_.memory_bytes();
  }

 private:
  struct Entry {
    std::uint64_t key;
    std::uint32_t value;
  };
  std::vector<Entry> entries_;
  FlatTable table_;
};

}  // namespace specdec::grammar
