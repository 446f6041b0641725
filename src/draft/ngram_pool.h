#pragma once

#include <list>
#include <span>
#include <unordered_map>
#include <vector>

#include "specdec/types.h"

namespace specdec {

/// N-grams by their first token, the newest first; bounded: when it is full the oldest goes.
class NgramPool {
 public:
  /// `capacity` >= 1 n-grams.
  explicit NgramPool(int capacity) : capacity_(static_cast<std::size_t>(capacity)) {}

  /// `ngram` is not empty. One that is known becomes the newest.
  void add(std::span<const TokenId> ngram);
  /// Up to `most` n-grams that begin with `first`, the newest first; valid until the next add().
  std::vector<std::span<const TokenId>> find(TokenId first, int most) const;
  int size() const noexcept { return static_cast<int>(ngrams_.size()); }

 private:
  using Ngrams = std::list<std::vector<TokenId>>;

  std::size_t capacity_;
  Ngrams ngrams_;                                                             // the newest first
  std::unordered_map<TokenId, std::vector<Ngrams::iterator>> of_first_ = {};  // the newest last
};

}  // namespace specdec
