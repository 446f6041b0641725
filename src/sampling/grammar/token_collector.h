#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "sampling/grammar/flat_table.h"
#include "specdec/types.h"

namespace specdec::grammar {

/// A set of tokens being collected: a list while it is small, bits from then on.
class TokenCollector {
 public:
  explicit TokenCollector(std::size_t words) : bits_(words, 0) {}

  void clear() noexcept {
    list_.clear();
    dense_ = false;
  }
  void add(std::span<const TokenId> tokens) {
    if (!dense_ && list_.size() + tokens.size() > bits_.size()) make_dense();
    if (!dense_) {
      list_.insert(list_.end(), tokens.begin(), tokens.end());
      return;
    }
    for (const TokenId token : tokens)
      bits_[static_cast<std::size_t>(token) >> 6] |= 1ull << (token & 63);
  }
  void add_bits(std::span<const std::uint64_t> bits);
  /// The tokens that are in both.
  void add_bits_within(std::span<const std::uint64_t> bits, std::span<const std::uint64_t> within);
  void remove(std::span<const TokenId> tokens);

 private:
  friend class TokenSets;
  void make_dense();

  bool dense_ = false;
  std::vector<TokenId> list_;
  std::vector<std::uint64_t> bits_;  // valid when dense_
};

/// Interned sets of tokens; equal sets have the same index, the empty set is 0. A set is kept as a
/// list while that is smaller than its bits.
class TokenSets {
 public:
  explicit TokenSets(std::size_t words);

  std::uint32_t intern(TokenCollector& tokens);
  void add_to(std::span<std::uint64_t> bits, std::uint32_t set) const noexcept;
  std::size_t size() const noexcept { return sets_.size(); }
  std::size_t memory_bytes() const noexcept;

 private:
  struct Set {
    std::uint64_t hash = 0;
    std::size_t begin = 0;    // in tokens_ or words_
    std::uint32_t count = 0;  // of tokens
    bool dense = false;
  };

  std::size_t num_words_;
  std::vector<Set> sets_;
  std::vector<TokenId> tokens_;
  std::vector<std::uint64_t> words_;
  FlatTable table_;
};

}  // namespace specdec::grammar
