#include "draft/ngram_pool.h"

#include <algorithm>

namespace specdec {

void NgramPool::add(std::span<const TokenId> ngram) {
  std::vector<Ngrams::iterator>& same_first = of_first_[ngram.front()];
  const auto known = std::ranges::find_if(
      same_first, [ngram](const auto& entry) { return std::ranges::equal(*entry, ngram); });
  if (known != same_first.end()) {
    ngrams_.splice(ngrams_.begin(), ngrams_, *known);
    std::rotate(known, known + 1, same_first.end());
    return;
  }
  ngrams_.emplace_front(ngram.begin(), ngram.end());
  same_first.push_back(ngrams_.begin());
  if (ngrams_.size() <= capacity_) return;
  // The oldest of all is the oldest of those with its first token.
  const auto oldest = of_first_.find(ngrams_.back().front());
  oldest->second.erase(oldest->second.begin());
  if (oldest->second.empty()) of_first_.erase(oldest);
  ngrams_.pop_back();
}

std::vector<std::span<const TokenId>> NgramPool::find(TokenId first, int most) const {
  std::vector<std::span<const TokenId>> found;
  const auto same_first = of_first_.find(first);
  if (same_first == of_first_.end()) return found;
  for (auto it = same_first->second.rbegin();
       it != same_first->second.rend() && static_cast<int>(found.size()) < most; ++it)
    found.emplace_back(**it);
  return found;
}

}  // namespace specdec
