#pragma once

#include <array>
#include <cstdint>

namespace specdec {

/// Philox4x32-10, a counter-based generator (Salmon, Moraes, Dror, Shaw, "Parallel random numbers:
/// as easy as 1, 2, 3", SC 2011): ten rounds of a keyed bijection of 128-bit counters. Random
/// numbers are a function of what they are for, never of when they are asked for.
using PhiloxBlock = std::array<std::uint32_t, 4>;
using PhiloxKey = std::array<std::uint32_t, 2>;

constexpr std::uint32_t kPhiloxMul0 = 0xD2511F53u;
constexpr std::uint32_t kPhiloxMul1 = 0xCD9E8D57u;
constexpr std::uint32_t kPhiloxWeyl0 = 0x9E3779B9u;
constexpr std::uint32_t kPhiloxWeyl1 = 0xBB67AE85u;
constexpr int kPhiloxRounds = 10;

constexpr PhiloxBlock philox4x32(PhiloxBlock counter, PhiloxKey key) noexcept {
  for (int round = 0; round < kPhiloxRounds; ++round) {
    const std::uint64_t product0 = std::uint64_t{kPhiloxMul0} * counter[0];
    const std::uint64_t product1 = std::uint64_t{kPhiloxMul1} * counter[2];
    counter = {static_cast<std::uint32_t>(product1 >> 32) ^ counter[1] ^ key[0],
               static_cast<std::uint32_t>(product1),
               static_cast<std::uint32_t>(product0 >> 32) ^ counter[3] ^ key[1],
               static_cast<std::uint32_t>(product0)};
    key[0] += kPhiloxWeyl0;
    key[1] += kPhiloxWeyl1;
  }
  return counter;
}

/// What a random number is for. Streams of different purposes are independent.
enum class RandomPurpose : std::uint32_t {
  token_noise = 0,    ///< Gumbel noise of the coupled rule: one word per (position, token)
  draft_draw = 1,     ///< a drafter's own draws: one per (position, node, child)
  verify_accept = 2,  ///< an acceptance test: one per (step, node)
  verify_token = 3,   ///< the token that a sampled rule emits last: one per (step, node)
};

/// The generator's key and counter layout, the same for every backend:
///   key     = (seed low, seed high)
///   counter = (index / words, position low, position high, purpose + 256 * node)
/// `node` < 2^24 tells apart the nodes of one draft tree (0 for token_noise).
struct RandomStream {
  PhiloxKey key{};
  std::uint32_t position_low = 0;
  std::uint32_t position_high = 0;
  std::uint32_t lane = 0;

  constexpr RandomStream(std::uint64_t seed, std::int64_t position, RandomPurpose purpose,
                         int node = 0) noexcept
      : key{static_cast<std::uint32_t>(seed), static_cast<std::uint32_t>(seed >> 32)},
        position_low(static_cast<std::uint32_t>(static_cast<std::uint64_t>(position))),
        position_high(static_cast<std::uint32_t>(static_cast<std::uint64_t>(position) >> 32)),
        lane(static_cast<std::uint32_t>(purpose) + 256u * static_cast<std::uint32_t>(node)) {}

  constexpr PhiloxBlock block(std::uint32_t index) const noexcept {
    return philox4x32({index, position_low, position_high, lane}, key);
  }
  /// Word `index` of the stream: word index % 4 of block index / 4.
  constexpr std::uint32_t word(std::uint32_t index) const noexcept {
    return block(index / 4)[index % 4];
  }
  /// A uniform double in (0, 1), 53 bits: from words 0 and 1 of block `index`.
  constexpr double uniform(std::uint32_t index) const noexcept {
    const PhiloxBlock bits = block(index);
    const std::uint64_t wide = (std::uint64_t{bits[1]} << 32) | bits[0];
    return (static_cast<double>(wide >> 12) + 0.5) * 0x1p-52;
  }
};

}  // namespace specdec
