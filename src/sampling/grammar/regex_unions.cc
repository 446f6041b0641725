// Unions and intersections in normal form.
#include "sampling/grammar/regex_pool.h"

#include <algorithm>
#include <tuple>
#include <utility>

namespace specdec::grammar {

void RegexPool::push_flat(Kind kind, std::uint32_t id) {
  const Node node = nodes_[id];
  if (node.kind != kind) {
    stack_.push_back(id);
    return;
  }
  for (std::uint32_t i = 0; i < node.second; ++i) stack_.push_back(lists_[node.first + i]);
}

void RegexPool::sort_unique(std::size_t base) {
  const auto begin = stack_.begin() + static_cast<std::ptrdiff_t>(base);
  std::sort(begin, stack_.end());
  stack_.erase(std::unique(begin, stack_.end()), stack_.end());
}

// In a union, b{m,M} t and b{n,N} t are one repeat where their bounds touch. Without this an
// ambiguous body would carry every count it may have reached.
void RegexPool::merge_counters(std::size_t base) {
  struct Counted {
    std::uint32_t body, tail, min, max;
  };
  std::vector<Counted> counted;
  std::size_t kept = base;
  for (std::size_t i = base; i < stack_.size(); ++i) {
    const std::uint32_t id = stack_[i];
    const bool chained = nodes_[id].kind == Kind::concat;
    const Node head = nodes_[chained ? nodes_[id].first : id];
    if (head.kind == Kind::repeat)
      counted.push_back({head.first, chained ? nodes_[id].second : kEmpty, head.second, head.max});
    else
      stack_[kept++] = id;
  }
  stack_.resize(kept);
  std::sort(counted.begin(), counted.end(), [](const Counted& a, const Counted& b) {
    return std::tie(a.body, a.tail, a.min, a.max) < std::tie(b.body, b.tail, b.min, b.max);
  });
  for (std::size_t i = 0; i < counted.size();) {
    Counted merged = counted[i];
    for (++i;
         i < counted.size() && counted[i].body == merged.body && counted[i].tail == merged.tail &&
         (merged.max == kNoMax || counted[i].min <= merged.max + 1);
         ++i)
      merged.max = std::max(merged.max, counted[i].max);
    stack_.push_back(make_concat(make_repeat(merged.body, merged.min, merged.max), merged.tail));
  }
  sort_unique(base);
}

std::uint32_t RegexPool::make_any_of(std::size_t base) {
  sort_unique(base);
  std::size_t kept = base;
  ByteSet bytes;
  int num_sets = 0;
  int num_repeats = 0;
  std::uint32_t set_id = kNever;
  bool nullable = false;
  bool anything = false;
  bool has_empty = false;
  for (std::size_t i = base; i < stack_.size(); ++i) {
    const std::uint32_t id = stack_[i];
    const Node& node = nodes_[id];
    if (id == kNever) continue;
    if (id == kAnything) anything = true;
    if (node.kind == Kind::bytes) {
      bytes = bytes | sets_[node.first];
      set_id = id;
      ++num_sets;
      continue;
    }
    if (id == kEmpty) {
      has_empty = true;
      continue;
    }
    const Kind head = node.kind == Kind::concat ? nodes_[node.first].kind : node.kind;
    num_repeats += head == Kind::repeat;
    nullable = nullable || node.nullable;
    stack_[kept++] = id;
  }
  stack_.resize(kept);
  if (anything) {
    stack_.resize(base);
    return kAnything;
  }
  if (num_repeats > 1) merge_counters(base);
  if (num_sets > 0) stack_.push_back(num_sets == 1 ? set_id : byte_class(bytes).id);
  if (has_empty && !nullable) stack_.push_back(kEmpty);
  if (num_sets > 0 || has_empty) sort_unique(base);
  std::uint32_t result = kNever;
  if (stack_.size() == base + 1) {
    result = stack_[base];
  } else if (stack_.size() > base) {
    const std::vector<std::uint32_t> parts(stack_.begin() + static_cast<std::ptrdiff_t>(base),
                                           stack_.end());
    result = intern({.kind = Kind::any_of, .nullable = nullable || has_empty}, parts);
  }
  stack_.resize(base);
  return result;
}

std::uint32_t RegexPool::make_all_of(std::size_t base) {
  sort_unique(base);
  std::size_t kept = base;
  ByteSet bytes = ByteSet::all();
  bool has_set = false;
  bool nullable = true;
  bool dead = false;
  for (std::size_t i = base; i < stack_.size(); ++i) {
    const std::uint32_t id = stack_[i];
    const Node& node = nodes_[id];
    if (id == kNever) dead = true;
    nullable = nullable && node.nullable;
    if (id == kAnything) continue;
    if (node.kind == Kind::bytes) {
      bytes = bytes & sets_[node.first];
      has_set = true;
      continue;
    }
    stack_[kept++] = id;
  }
  const bool only_empty =
      std::binary_search(stack_.begin() + static_cast<std::ptrdiff_t>(base),
                         stack_.begin() + static_cast<std::ptrdiff_t>(kept), kEmpty);
  stack_.resize(kept);
  for (std::size_t i = base; i < stack_.size() && !dead; ++i)
    dead = nodes_[stack_[i]].kind == Kind::complement &&
           std::binary_search(stack_.begin() + static_cast<std::ptrdiff_t>(base), stack_.end(),
                              nodes_[stack_[i]].first);
  if (dead || (has_set && bytes.empty()) || (only_empty && !nullable)) {
    stack_.resize(base);
    return kNever;
  }
  if (only_empty) {
    stack_.resize(base);
    return kEmpty;
  }
  if (has_set) {
    stack_.push_back(byte_class(bytes).id);
    sort_unique(base);
  }
  std::uint32_t result = kAnything;
  if (stack_.size() == base + 1) {
    result = stack_[base];
  } else if (stack_.size() > base) {
    const std::vector<std::uint32_t> parts(stack_.begin() + static_cast<std::ptrdiff_t>(base),
                                           stack_.end());
    result = intern({.kind = Kind::all_of, .nullable = nullable}, parts);
  }
  stack_.resize(base);
  return result;
}

RegexRef RegexPool::any_of(std::span<const RegexRef> options) {
  const std::size_t base = stack_.size();
  for (const RegexRef option : options) push_flat(Kind::any_of, option.id);
  return {make_any_of(base)};
}

RegexRef RegexPool::all_of(std::span<const RegexRef> parts) {
  const std::size_t base = stack_.size();
  for (const RegexRef part : parts) push_flat(Kind::all_of, part.id);
  return {make_all_of(base)};
}

RegexRef RegexPool::any_literal(std::span<const std::string_view> strings) {
  std::vector<std::string_view> sorted(strings.begin(), strings.end());
  std::sort(sorted.begin(), sorted.end());
  sorted.erase(std::unique(sorted.begin(), sorted.end()), sorted.end());
  // Branches from the last string back to the first: `open` holds, per branching depth from the
  // root, the options made so far for what follows the current string's prefix of that length.
  struct Branch {
    std::size_t depth;
    std::vector<RegexRef> options;
  };
  std::vector<Branch> open;
  const auto close = [&](std::size_t depth) {  // brings everything below `depth` into one option
    while (!open.empty() && open.back().depth > depth) {
      Branch branch = std::move(open.back());
      open.pop_back();
      const std::string_view path = sorted.back();
      const std::size_t parent = open.empty() ? depth : std::max(depth, open.back().depth);
      const RegexRef tail =
          concat(literal(path.substr(parent, branch.depth - parent)), any_of(branch.options));
      if (!open.empty() && open.back().depth == parent)
        open.back().options.push_back(tail);
      else
        open.push_back({parent, {tail}});
    }
  };
  while (!sorted.empty()) {
    const std::string_view text = sorted.back();
    std::size_t shared = 0;  // with the string before
    if (sorted.size() > 1) {
      const std::string_view previous = sorted[sorted.size() - 2];
      while (shared < std::min(text.size(), previous.size()) && text[shared] == previous[shared])
        ++shared;
    }
    if (open.empty() || open.back().depth < text.size()) open.push_back({text.size(), {}});
    open.back().options.push_back(empty());
    close(sorted.size() > 1 ? shared : 0);
    sorted.pop_back();
  }
  return open.empty() ? never() : any_of(open.back().options);
}

}  // namespace specdec::grammar
