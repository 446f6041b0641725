#include "engine/text/bpe_merges.h"

#include <array>
#include <bit>
#include <queue>

namespace specdec {
namespace {

// Up to this many symbols a scan for the best pair beats the heap; nearly every word is shorter.
constexpr std::size_t kShort = 32;

}  // namespace

BpeMerges::BpeMerges(std::vector<BpeMerge> merges) : merges_(std::move(merges)) {
  const std::size_t size = std::bit_ceil(std::max<std::size_t>(2, merges_.size() * 2));
  shift_ = 64 - std::countr_zero(size);
  table_.assign(size, kNone);
  for (std::uint32_t i = 0; i < merges_.size(); ++i) {
    std::size_t at = slot(merges_[i].left, merges_[i].right);
    while (table_[at] != kNone) {
      const BpeMerge& other = merges_[table_[at]];
      if (other.left == merges_[i].left && other.right == merges_[i].right) break;
      at = (at + 1) & (size - 1);
    }
    if (table_[at] == kNone)
      table_[at] = i;
    else if (first_duplicate_ == kNone)
      first_duplicate_ = i;
  }
}

std::size_t BpeMerges::slot(TokenId left, TokenId right) const noexcept {
  const std::uint64_t pair = static_cast<std::uint64_t>(static_cast<std::uint32_t>(left)) << 32 |
                             static_cast<std::uint32_t>(right);
  // Fibonacci hashing (Knuth 6.4) after folding the halves together.
  return static_cast<std::size_t>((pair ^ pair >> 29) * 0x9E3779B97F4A7C15u >> shift_);
}

std::uint32_t BpeMerges::rank(TokenId left, TokenId right) const noexcept {
  std::size_t at = slot(left, right);
  while (table_[at] != kNone) {
    const BpeMerge& merge = merges_[table_[at]];
    if (merge.left == left && merge.right == right) return table_[at];
    at = (at + 1) & (table_.size() - 1);
  }
  return kNone;
}

void BpeMerges::apply(std::span<TokenId> symbols, std::vector<TokenId>& tokens) const {
  if (symbols.size() <= kShort)
    apply_short(symbols, tokens);
  else
    apply_long(symbols, tokens);
}

void BpeMerges::apply_short(std::span<TokenId> symbols, std::vector<TokenId>& tokens) const {
  std::size_t n = symbols.size();
  std::array<std::uint32_t, kShort> ranks;  // ranks[i]: of the pair (i, i + 1)
  for (std::size_t i = 0; i + 1 < n; ++i) ranks[i] = rank(symbols[i], symbols[i + 1]);
  while (n > 1) {
    std::size_t best = 0;
    for (std::size_t i = 1; i + 1 < n; ++i) {
      if (ranks[i] < ranks[best]) best = i;
    }
    if (ranks[best] == kNone) break;
    symbols[best] = merges_[ranks[best]].merged;
    --n;
    for (std::size_t i = best + 1; i < n; ++i) {
      symbols[i] = symbols[i + 1];
      ranks[i - 1] = ranks[i];
    }
    if (best > 0) ranks[best - 1] = rank(symbols[best - 1], symbols[best]);
    if (best + 1 < n) ranks[best] = rank(symbols[best], symbols[best + 1]);
  }
  tokens.insert(tokens.end(), symbols.begin(), symbols.begin() + static_cast<std::ptrdiff_t>(n));
}

void BpeMerges::apply_long(std::span<TokenId> symbols, std::vector<TokenId>& tokens) const {
  constexpr std::uint32_t kEnd = UINT32_MAX;
  constexpr TokenId kGone = -1;
  const auto n = static_cast<std::uint32_t>(symbols.size());
  struct Links {
    std::uint32_t previous, next;
  };
  std::vector<Links> links(n);
  // A candidate is rank << 32 | position: the smallest is the lowest rank, then the leftmost. It is
  // stale when the two symbols there are no longer the rule's pair.
  std::priority_queue<std::uint64_t, std::vector<std::uint64_t>, std::greater<>> candidates;
  const auto offer = [&](std::uint32_t at) {
    const std::uint32_t next = links[at].next;
    if (next == kEnd) return;
    const std::uint32_t r = rank(symbols[at], symbols[next]);
    if (r != kNone) candidates.push(static_cast<std::uint64_t>(r) << 32 | at);
  };
  for (std::uint32_t i = 0; i < n; ++i) {
    links[i] = {i == 0 ? kEnd : i - 1, i + 1 == n ? kEnd : i + 1};
  }
  for (std::uint32_t i = 0; i < n; ++i) offer(i);
  while (!candidates.empty()) {
    const auto at = static_cast<std::uint32_t>(candidates.top());
    const auto candidate = static_cast<std::uint32_t>(candidates.top() >> 32);
    candidates.pop();
    const std::uint32_t right = links[at].next;
    const BpeMerge& merge = merges_[candidate];
    if (symbols[at] != merge.left || right == kEnd || symbols[right] != merge.right) continue;
    symbols[at] = merge.merged;
    symbols[right] = kGone;
    links[at].next = links[right].next;
    if (links[at].next != kEnd) links[links[at].next].previous = at;
    offer(at);
    if (links[at].previous != kEnd) offer(links[at].previous);
  }
  for (std::uint32_t i = 0; i != kEnd; i = links[i].next) tokens.push_back(symbols[i]);
}

}  // namespace specdec
