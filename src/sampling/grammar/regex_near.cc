// Expressions without the bounds that a short text cannot reach.
#include <algorithm>

#include "sampling/grammar/regex_pool.h"
#include "sampling/mutation.h"

namespace specdec::grammar {

// The expression with `change(part)` for its parts and the bounds of its own counter let go:
// ceilings, and floors if asked for. Recursion is bounded by kMaxDepth, as in derive().
template <class Change>
RegexPool::Near RegexPool::rebuild(std::uint32_t id, bool floors, Change change) {
  const Node node = nodes_[id];
  Near made;
  const auto changed = [&](std::uint32_t part) {
    if (!nodes_[part].far) return part;
    const Near near = change(part);
    made.lowest = std::min(made.lowest, near.lowest);
    return near.id;
  };
  const std::size_t base = stack_.size();
  const bool listed = node.kind == Kind::any_of || node.kind == Kind::all_of;
  charge(1 + (listed ? node.second / 16 : 0));
  switch (node.kind) {
    case Kind::repeat: {
      const bool far = node.max != kNoMax && node.max > kNearBytes;
      if (far) made.lowest = node.max;
      const std::uint32_t min = floors ? std::min(node.second, kNearBytes + 1) : node.second;
      made.id = make_repeat(changed(node.first), min, far ? kNoMax : node.max);
      break;
    }
    case Kind::concat: {
      std::uint32_t at = id;
      for (; nodes_[at].kind == Kind::concat && nodes_[at].far; at = nodes_[at].second)
        stack_.push_back(nodes_[at].first);
      made.id = changed(at);
      while (stack_.size() > base) {
        const std::uint32_t head = stack_.back();
        stack_.pop_back();
        made.id = make_concat(changed(head), made.id);
      }
      break;
    }
    case Kind::any_of:
    case Kind::all_of:
      for (std::uint32_t i = 0; i < node.second; ++i) {
        const std::uint32_t part = changed(lists_[node.first + i]);
        push_flat(node.kind, part);
      }
      made.id = node.kind == Kind::any_of ? make_any_of(base) : make_all_of(base);
      break;
    case Kind::never:
    case Kind::empty:
    case Kind::bytes:
    case Kind::complement:
    case Kind::modulo:
      made.id = id;
      break;
  }
  return made;
}

RegexPool::Near RegexPool::without_ceilings(std::uint32_t id) {
  if (const std::uint32_t known = near_table_.find(id, 1); known != PairTable::kNone)
    return near_[known];
  const Near made =
      rebuild(id, false, [this](std::uint32_t part) { return without_ceilings(part); });
  near_table_.insert(id, 1, static_cast<std::uint32_t>(near_.size()));
  near_.push_back(made);
  return made;
}

// A counter counts no more copies than a text has bytes. Inside an intersection more is to be
// shown: that what begins a match of the larger expression can still end below the ceilings.
RegexPool::Near RegexPool::near(std::uint32_t id) {
  if (const std::uint32_t known = near_table_.find(id, 0); known != PairTable::kNone)
    return near_[known];
  Near made{id};
  if (nodes_[id].kind == Kind::all_of) {
    const Near larger = without_ceilings(id);
    const std::uint32_t longest = longest_match(larger.id);
    const bool reaches = longest != kNoMatch && longest + kNearBytes <= larger.lowest;
    if (reaches || mutant_active("regex_near_beyond_ceiling")) made = larger;
  } else {
    made = rebuild(id, true, [this](std::uint32_t part) { return near(part); });
  }
  near_table_.insert(id, 0, static_cast<std::uint32_t>(near_.size()));
  near_.push_back(made);
  return made;
}

// Bytes that complete any beginning of a match, at most; kNoMatch where there are too many
// derivatives, or that is not known of one of them. Holds for all of these derivatives as well.
std::uint32_t RegexPool::longest_match(std::uint32_t root) {
  constexpr std::size_t kMost = 64;
  constexpr std::uint64_t kFuel = 1000;
  if (const std::uint32_t known = longest_.find(root, 0); known != PairTable::kNone)
    return known == kNoMatch - 1 ? kNoMatch : known;
  std::uint32_t longest = 0;
  std::vector<std::uint32_t> found{root};
  for (std::size_t i = 0; i < found.size() && longest != kNoMatch; ++i) {
    const std::optional<bool> never = is_never({found[i]}, kFuel);
    if (never == true) continue;
    const std::uint32_t match = never.has_value() ? known_match(found[i]) : kNoMatch;
    longest = std::max(longest, match);
    for (int j = 0; j < num_classes_ && longest != kNoMatch; ++j) {
      const std::uint32_t next = derive(found[i], representatives_[static_cast<std::size_t>(j)]);
      if (next == kNever || std::ranges::find(found, next) != found.end()) continue;
      found.push_back(next);
      if (found.size() > kMost) longest = kNoMatch;
    }
  }
  for (const std::uint32_t id : found)
    if (longest_.find(id, 0) == PairTable::kNone)
      longest_.insert(id, 0, longest == kNoMatch ? kNoMatch - 1 : longest);
  return longest;
}

}  // namespace specdec::grammar
