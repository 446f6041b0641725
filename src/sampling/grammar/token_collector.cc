#include "sampling/grammar/token_collector.h"

#include <algorithm>
#include <bit>

namespace specdec::grammar {
namespace {

// Four chains, so that the multiplications overlap.
template <class T>
std::uint64_t hash_of(std::span<const T> values, std::uint64_t seed) noexcept {
  std::uint64_t lanes[4] = {seed, seed + 1, seed + 2, seed + 3};
  for (std::size_t i = 0; i < values.size(); ++i) {
    std::uint64_t& lane = lanes[i & 3];
    lane = (lane ^ static_cast<std::uint64_t>(values[i])) * 0x9E3779B97F4A7C15ull;
    lane ^= lane >> 32;
  }
  return hash_mix(hash_mix(lanes[0], lanes[1]), hash_mix(lanes[2], lanes[3]));
}

}  // namespace

void TokenCollector::add_bits(std::span<const std::uint64_t> bits) {
  make_dense();
  for (std::size_t i = 0; i < bits.size(); ++i) bits_[i] |= bits[i];
}

void TokenCollector::remove(std::span<const TokenId> tokens) {
  make_dense();
  for (const TokenId token : tokens)
    bits_[static_cast<std::size_t>(token) >> 6] &= ~(1ull << (token & 63));
}

void TokenCollector::add_bits_within(std::span<const std::uint64_t> bits,
                                     std::span<const std::uint64_t> within) {
  make_dense();
  for (std::size_t i = 0; i < bits.size(); ++i) bits_[i] |= bits[i] & within[i];
}

void TokenCollector::make_dense() {
  if (dense_) return;
  dense_ = true;
  std::fill(bits_.begin(), bits_.end(), 0);
  add(list_);
  list_.clear();
}

TokenSets::TokenSets(std::size_t words) : num_words_(words) {
  TokenCollector nothing(words);
  intern(nothing);
}

std::uint32_t TokenSets::intern(TokenCollector& tokens) {
  if (tokens.dense_) {
    std::size_t count = 0;
    for (std::size_t i = 0; i < num_words_ && count <= 2 * num_words_; ++i)
      count += static_cast<std::size_t>(std::popcount(tokens.bits_[i]));
    if (count <= 2 * num_words_) {
      tokens.list_.clear();
      for (std::size_t i = 0; i < num_words_; ++i)
        for (std::uint64_t word = tokens.bits_[i]; word != 0; word &= word - 1)
          tokens.list_.push_back(static_cast<TokenId>(i * 64) + std::countr_zero(word));
      tokens.dense_ = false;
    }
  } else {
    std::sort(tokens.list_.begin(), tokens.list_.end());
    tokens.list_.erase(std::unique(tokens.list_.begin(), tokens.list_.end()), tokens.list_.end());
  }
  const bool dense = tokens.dense_;
  const std::uint64_t hash = dense ? hash_of(std::span<const std::uint64_t>(tokens.bits_), 1)
                                   : hash_of(std::span<const TokenId>(tokens.list_), 2);
  const std::uint32_t known = table_.find(hash, [&](std::uint32_t at) {
    const Set& set = sets_[at];
    if (set.hash != hash || set.dense != dense) return false;
    if (dense)
      return std::equal(tokens.bits_.begin(), tokens.bits_.end(),
                        words_.begin() + static_cast<std::ptrdiff_t>(set.begin));
    return set.count == tokens.list_.size() &&
           std::equal(tokens.list_.begin(), tokens.list_.end(),
                      tokens_.begin() + static_cast<std::ptrdiff_t>(set.begin));
  });
  if (known != FlatTable::kNone) return known;
  const auto index = static_cast<std::uint32_t>(sets_.size());
  if (dense) {
    sets_.push_back({hash, words_.size(), 0, true});
    words_.insert(words_.end(), tokens.bits_.begin(), tokens.bits_.end());
  } else {
    sets_.push_back({hash, tokens_.size(), static_cast<std::uint32_t>(tokens.list_.size()), false});
    tokens_.insert(tokens_.end(), tokens.list_.begin(), tokens.list_.end());
  }
  table_.insert(hash, index, [&](std::uint32_t at) { return sets_[at].hash; });
  return index;
}

void TokenSets::add_to(std::span<std::uint64_t> bits, std::uint32_t set) const noexcept {
  const Set& s = sets_[set];
  if (s.dense) {
    for (std::size_t i = 0; i < num_words_; ++i) bits[i] |= words_[s.begin + i];
  } else {
    for (std::size_t i = s.begin; i < s.begin + s.count; ++i)
      bits[static_cast<std::size_t>(tokens_[i]) >> 6] |= 1ull << (tokens_[i] & 63);
  }
}

std::size_t TokenSets::memory_bytes() const noexcept {
  return sets_.capacity() * sizeof(Set) + tokens_.capacity() * sizeof(TokenId) +
         words_.capacity() * sizeof(std::uint64_t) + table_.memory_bytes();
}

}  // namespace specdec::grammar
