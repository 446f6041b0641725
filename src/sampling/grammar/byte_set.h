#pragma once

#include <array>
#include <bit>
#include <cstdint>

namespace specdec::grammar {

/// A set of byte values.
struct ByteSet {
  std::array<std::uint64_t, 4> words{};

  static constexpr ByteSet all() noexcept { return range(0, 255); }
  static constexpr ByteSet range(unsigned first, unsigned last) noexcept {
    ByteSet set;
    for (unsigned byte = first; byte <= last; ++byte) set.insert(byte);
    return set;
  }

  constexpr void insert(unsigned byte) noexcept { words[byte >> 6] |= 1ull << (byte & 63); }
  constexpr bool contains(unsigned byte) const noexcept {
    return (words[byte >> 6] >> (byte & 63)) & 1;
  }
  constexpr int size() const noexcept {
    int count = 0;
    for (const std::uint64_t word : words) count += std::popcount(word);
    return count;
  }
  constexpr bool empty() const noexcept { return (words[0] | words[1] | words[2] | words[3]) == 0; }
  /// The lowest member; the set is not empty.
  constexpr unsigned first() const noexcept {
    unsigned at = 0;
    while (words[at] == 0) ++at;
    return at * 64 + static_cast<unsigned>(std::countr_zero(words[at]));
  }
  /// Calls visit(byte) for each member, ascending, until it says false; whether it never did.
  template <class Visit>
  constexpr bool all_of(Visit visit) const {
    for (unsigned i = 0; i < 4; ++i)
      for (std::uint64_t rest = words[i]; rest != 0; rest &= rest - 1)
        if (!visit(
                static_cast<unsigned char>(i * 64 + static_cast<unsigned>(std::countr_zero(rest)))))
          return false;
    return true;
  }

  constexpr ByteSet operator|(const ByteSet& other) const noexcept {
    ByteSet set;
    for (unsigned i = 0; i < 4; ++i) set.words[i] = words[i] | other.words[i];
    return set;
  }
  constexpr ByteSet operator&(const ByteSet& other) const noexcept {
    ByteSet set;
    for (unsigned i = 0; i < 4; ++i) set.words[i] = words[i] & other.words[i];
    return set;
  }
  constexpr ByteSet operator~() const noexcept {
    ByteSet set;
    for (unsigned i = 0; i < 4; ++i) set.words[i] = ~words[i];
    return set;
  }
  bool operator==(const ByteSet&) const = default;
};

}  // namespace specdec::grammar
