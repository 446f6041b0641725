#pragma once

#include <array>
#include <cstdint>

#include "sampling/grammar/byte_set.h"

namespace specdec::grammar {

/// Kinds of bytes, a bit each: letters and digits by what patterns mostly tell apart, each mark of
/// ASCII, some control characters, everything beyond ASCII. What a subtree of a vocabulary holds is
/// one word, and is compared with what a lexeme takes in one operation.
using ByteKinds = std::uint64_t;

inline constexpr int kNumByteKinds = 64;
inline constexpr int kKindBeyondAscii = 63;
inline constexpr ByteKinds kBeyondAscii = ByteKinds{1} << kKindBeyondAscii;

/// The number of the byte's kind, below 64.
constexpr int kind_of(unsigned char byte) noexcept {
  if (byte >= 0x80) return kKindBeyondAscii;
  if (byte >= 'a' && byte <= 'z') return byte <= 'f' ? 0 : 1;
  if (byte >= 'A' && byte <= 'Z') return byte <= 'F' ? 2 : 3;
  if (byte >= '0' && byte <= '9') return byte == '0' ? 4 : 5;
  switch (byte) {
    case '\t':
      return 6;
    case '\n':
      return 7;
    case '\r':
      return 8;
    default:
      break;
  }
  if (byte < 0x20 || byte == 0x7F) return 9;
  // The 33 marks, the space among them, in the order of ASCII.
  int number = byte - 0x20;
  if (byte > '9') number -= 10;
  if (byte > 'Z') number -= 26;
  if (byte > 'z') number -= 26;
  return 10 + number;
}

/// The bytes of a kind.
inline const ByteSet& bytes_of(int kind) noexcept {
  static const std::array<ByteSet, kNumByteKinds> sets = [] {
    std::array<ByteSet, kNumByteKinds> made{};
    for (unsigned byte = 0; byte < 256; ++byte)
      made[static_cast<std::size_t>(kind_of(static_cast<unsigned char>(byte)))].insert(byte);
    return made;
  }();
  return sets[static_cast<std::size_t>(kind)];
}

/// The kinds some of whose bytes are in the set.
inline ByteKinds kinds_meeting(const ByteSet& set) noexcept {
  ByteKinds met = 0;
  for (int kind = 0; kind < kNumByteKinds; ++kind)
    if (!(bytes_of(kind) & set).empty()) met |= ByteKinds{1} << kind;
  return met;
}
/// The kinds all of whose bytes are in the set.
inline ByteKinds kinds_within(const ByteSet& set) noexcept {
  static const ByteKinds all = kinds_meeting(ByteSet::all());
  return all & ~kinds_meeting(~set);
}

}  // namespace specdec::grammar
