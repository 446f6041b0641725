#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>

namespace specdec {

struct SipHashKey {
  std::uint64_t k0 = 0;
  std::uint64_t k1 = 0;
};

/// SipHash-2-4 (Aumasson, Bernstein 2012): a keyed 64-bit hash whose collisions nobody can find
/// without the key. Words are read little-endian.
inline std::uint64_t siphash_2_4(SipHashKey key, std::span<const std::byte> bytes) noexcept {
  std::uint64_t v0 = key.k0 ^ 0x736f6d6570736575u;
  std::uint64_t v1 = key.k1 ^ 0x646f72616e646f6du;
  std::uint64_t v2 = key.k0 ^ 0x6c7967656e657261u;
  std::uint64_t v3 = key.k1 ^ 0x7465646279746573u;
  const auto round = [&]() noexcept {
    v0 += v1;
    v2 += v3;
    v1 = std::rotl(v1, 13) ^ v0;
    v3 = std::rotl(v3, 16) ^ v2;
    v0 = std::rotl(v0, 32);
    v2 += v1;
    v0 += v3;
    v1 = std::rotl(v1, 17) ^ v2;
    v3 = std::rotl(v3, 21) ^ v0;
    v2 = std::rotl(v2, 32);
  };
  const auto absorb = [&](std::uint64_t word) noexcept {
    v3 ^= word;
    round();
    round();
    v0 ^= word;
  };
  std::size_t done = 0;
  for (; done + 8 <= bytes.size(); done += 8) {
    std::uint64_t word = 0;
    std::memcpy(&word, bytes.data() + done, 8);
    absorb(word);
  }
  std::uint64_t last = static_cast<std::uint64_t>(bytes.size()) << 56;
  for (std::size_t i = done; i < bytes.size(); ++i)
    last |= std::to_integer<std::uint64_t>(bytes[i]) << (8 * (i - done));
  absorb(last);
  v2 ^= 0xff;
  for (int i = 0; i < 4; ++i) round();
  return v0 ^ v1 ^ v2 ^ v3;
}

}  // namespace specdec
