#include "draft/suffix_index.h"

#include <utility>

namespace specdec {

void SuffixIndex::append(TokenId token) {
  const auto at = static_cast<std::int32_t>(tokens_.size());
  std::int32_t previous = -1;
  if (token != kEnd && at > 0 && tokens_.back() != kEnd) {
    const auto [it, is_new] = latest_.emplace(key(tokens_.back(), token), at);
    if (!is_new) previous = std::exchange(it->second, at);
  }
  tokens_.push_back(token);
  previous_.push_back(previous);
}

std::size_t SuffixIndex::bytes() const noexcept {
  // A node of the map: key, value, link; and its share of the buckets.
  return tokens_.size() * 8 + latest_.size() * 40;
}

void SuffixIndex::find(std::span<const TokenId> context, int longest,
                       std::vector<Occurrence>& out) const {
  out.clear();
  if (context.size() < 2) return;
  const auto found = latest_.find(key(context[context.size() - 2], context.back()));
  if (found == latest_.end()) return;
  for (std::int32_t at = found->second; at >= 0 && static_cast<int>(out.size()) < kMostOccurrences;
       at = previous_[static_cast<std::size_t>(at)]) {
    if (token(at + 1) == kEnd) continue;
    int match = 2;
    while (match < longest && match <= at && match < static_cast<int>(context.size()) &&
           tokens_[static_cast<std::size_t>(at - match)] ==
               context[context.size() - 1 - static_cast<std::size_t>(match)])
      ++match;
    out.push_back({.end = at + 1, .match = match});
  }
}

}  // namespace specdec
