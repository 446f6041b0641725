#include "sampling/grammar/regex_pool.h"

#include <algorithm>
#include <tuple>
#include <utility>

#include "sampling/mutation.h"
#include "specdec/error.h"

namespace specdec::grammar {
namespace {

constexpr std::uint32_t kNever = 0, kEmpty = 1, kAnyByte = 2, kAnything = 3;

[[noreturn]] void too_large() {
  throw Error(ErrorCode::invalid_argument,
              "grammar: its regular expressions need more memory than the limit allows");
}

std::uint64_t hash_set(const ByteSet& set) noexcept {
  std::uint64_t hash = 0x5E7;
  for (const std::uint64_t word : set.words) hash = hash_mix(hash, word);
  return hash;
}

}  // namespace

RegexPool::RegexPool(std::size_t max_bytes) : max_bytes_(max_bytes) {
  intern({.kind = Kind::never});
  intern({.kind = Kind::empty, .nullable = true});
  byte_class(ByteSet::all());
  intern({.first = kAnyByte, .second = 0, .max = kNoMax, .kind = Kind::repeat, .nullable = true});
}

std::size_t RegexPool::memory_bytes() const noexcept {
  return nodes_.capacity() * sizeof(Node) + lists_.capacity() * sizeof(std::uint32_t) +
         sets_.capacity() * sizeof(ByteSet) + emptiness_.capacity() + table_.memory_bytes() +
         set_table_.memory_bytes() + star_steps_.memory_bytes();
}

std::uint32_t RegexPool::intern(Node node, std::span<const std::uint32_t> parts) {
  // The hash is one of structure: it must not see ids, which depend on the order of making.
  std::uint64_t hash = static_cast<std::uint64_t>(node.kind) + 1;
  switch (node.kind) {
    case Kind::never:
    case Kind::empty:
      break;
    case Kind::bytes:
      hash = hash_mix(hash, hash_set(sets_[node.first]));
      break;
    case Kind::concat:
      hash = hash_mix(hash_mix(hash, nodes_[node.first].hash), nodes_[node.second].hash);
      break;
    case Kind::any_of:
    case Kind::all_of: {
      std::uint64_t sum = 0;  // parts are in the order of their ids
      for (const std::uint32_t part : parts) sum += hash_mix(0xA11, nodes_[part].hash);
      hash = hash_mix(hash_mix(hash, sum), parts.size());
      break;
    }
    case Kind::complement:
      hash = hash_mix(hash, nodes_[node.first].hash);
      break;
    case Kind::repeat:
      hash = hash_mix(hash_mix(hash, nodes_[node.first].hash),
                      std::uint64_t{node.second} << 32 | node.max);
      break;
    case Kind::modulo:
      hash = hash_mix(hash, std::uint64_t{node.second} << 32 | node.max);
      break;
  }
  const bool listed = node.kind == Kind::any_of || node.kind == Kind::all_of;
  const std::uint32_t found = table_.find(hash, [&](std::uint32_t at) {
    const Node& other = nodes_[at];
    if (other.hash != hash || other.kind != node.kind || other.max != node.max) return false;
    if (listed) return std::ranges::equal(parts_of(other), parts);
    return other.first == node.first && other.second == node.second;
  });
  if (found != FlatTable::kNone) return found;

  if (memory_bytes() > max_bytes_ || nodes_.size() >= 0xFFFFFF00u) too_large();
  node.hash = hash;
  const auto see = [&](std::uint32_t part, int extra) {
    node.plain = node.plain && nodes_[part].plain;
    const int depth = nodes_[part].depth + extra;
    if (depth > kMaxDepth)
      throw Error(ErrorCode::invalid_argument, "grammar: a regular expression nests too deeply");
    node.depth = std::max(node.depth, static_cast<std::uint16_t>(depth));
  };
  if (node.kind == Kind::concat) {
    see(node.first, 1);
    see(node.second, 0);
  } else if (node.kind == Kind::repeat || node.kind == Kind::complement) {
    see(node.first, 1);
  }
  if (listed) {
    for (const std::uint32_t part : parts) see(part, 1);
    node.first = static_cast<std::uint32_t>(lists_.size());
    node.second = static_cast<std::uint32_t>(parts.size());
    lists_.insert(lists_.end(), parts.begin(), parts.end());
  }
  if (node.kind == Kind::all_of || node.kind == Kind::complement) node.plain = false;
  const auto id = static_cast<std::uint32_t>(nodes_.size());
  nodes_.push_back(node);
  table_.insert(hash, id, [&](std::uint32_t at) { return nodes_[at].hash; });
  return id;
}

void RegexPool::refine_classes(const ByteSet& set) {
  std::array<int, 256> split;
  split.fill(-1);
  std::array<bool, 256> outside{};
  for (unsigned byte = 0; byte < 256; ++byte)
    if (!set.contains(byte)) outside[classes_[byte]] = true;
  for (unsigned byte = 0; byte < 256; ++byte) {
    const std::uint8_t old = classes_[byte];
    if (!set.contains(byte) || !outside[old]) continue;
    if (split[old] < 0) split[old] = num_classes_++;
    classes_[byte] = static_cast<std::uint8_t>(split[old]);
  }
  for (unsigned byte = 256; byte-- > 0;)
    representatives_[classes_[byte]] = static_cast<unsigned char>(byte);
}

RegexRef RegexPool::byte_class(const ByteSet& set) {
  if (set.empty()) return never();
  const std::uint64_t hash = hash_set(set);
  std::uint32_t index = set_table_.find(hash, [&](std::uint32_t at) { return sets_[at] == set; });
  if (index == FlatTable::kNone) {
    index = static_cast<std::uint32_t>(sets_.size());
    sets_.push_back(set);
    set_table_.insert(hash, index, [&](std::uint32_t at) { return hash_set(sets_[at]); });
    refine_classes(set);
  }
  return {intern({.first = index, .kind = Kind::bytes})};
}

RegexRef RegexPool::literal(std::string_view bytes) {
  std::uint32_t id = kEmpty;
  for (std::size_t i = bytes.size(); i-- > 0;)
    id = make_concat(byte(static_cast<unsigned char>(bytes[i])).id, id);
  return {id};
}

std::uint32_t RegexPool::make_concat(std::uint32_t first, std::uint32_t rest) {
  if (first == kNever || rest == kNever) return kNever;
  if (first == kEmpty) return rest;
  if (rest == kEmpty) return first;
  const std::size_t base = stack_.size();
  while (nodes_[first].kind == Kind::concat) {  // (a b) c = a (b c)
    stack_.push_back(nodes_[first].first);
    first = nodes_[first].second;
  }
  stack_.push_back(first);
  while (stack_.size() > base) {
    const std::uint32_t head = stack_.back();
    stack_.pop_back();
    const Node node = nodes_[head];
    // b{m,M} b{n,N} = b{m+n,M+N}
    const bool chained = nodes_[rest].kind == Kind::concat;
    const Node next = nodes_[chained ? nodes_[rest].first : rest];
    if (node.kind == Kind::repeat && next.kind == Kind::repeat && node.first == next.first &&
        (node.second | next.second) < 0x40000000u &&
        (node.max == kNoMax || next.max == kNoMax || (node.max | next.max) < 0x40000000u)) {
      const std::uint32_t max =
          node.max == kNoMax || next.max == kNoMax ? kNoMax : node.max + next.max;
      const std::uint32_t tail = chained ? nodes_[rest].second : kEmpty;
      rest = make_repeat(node.first, node.second + next.second, max);
      if (tail != kEmpty) rest = make_concat(rest, tail);
      continue;
    }
    rest = intern({.first = head,
                   .second = rest,
                   .kind = Kind::concat,
                   .nullable = node.nullable && nodes_[rest].nullable});
  }
  return rest;
}

RegexRef RegexPool::concat(RegexRef first, RegexRef rest) {
  return {make_concat(first.id, rest.id)};
}

RegexRef RegexPool::concat(std::span<const RegexRef> parts) {
  std::uint32_t id = kEmpty;
  for (std::size_t i = parts.size(); i-- > 0;) id = make_concat(parts[i].id, id);
  return {id};
}

std::uint32_t RegexPool::make_repeat(std::uint32_t body, std::uint32_t min, std::uint32_t max) {
  if (max < min) return kNever;
  if (max == 0 || body == kEmpty) return kEmpty;
  if (body == kNever) return min == 0 ? kEmpty : kNever;
  const Node node = nodes_[body];
  if (node.nullable) min = 0;
  if (min == 1 && max == 1) return body;
  if (node.kind == Kind::repeat && node.second == 0) {  // (b{0,k}){m,M} = b{0,kM}
    if (node.max == kNoMax || max == kNoMax) return make_repeat(node.first, 0, kNoMax);
    if (std::uint64_t{node.max} * max < 0x40000000u)
      return make_repeat(node.first, 0, node.max * max);
  }
  return intern(
      {.first = body, .second = min, .max = max, .kind = Kind::repeat, .nullable = min == 0});
}

RegexRef RegexPool::repeat(RegexRef body, std::uint32_t min, std::optional<std::uint32_t> max) {
  return {make_repeat(body.id, min, max.value_or(kNoMax))};
}

RegexRef RegexPool::modulo(std::uint32_t modulus, std::uint32_t residue) {
  if (!modulo_classes_) {
    for (unsigned digit = '0'; digit <= '9'; ++digit) refine_classes(ByteSet::range(digit, digit));
    refine_classes(ByteSet::range('.', '.'));
    modulo_classes_ = true;
  }
  return {
      intern({.second = residue, .max = modulus, .kind = Kind::modulo, .nullable = residue == 0})};
}

std::uint32_t RegexPool::make_complement(std::uint32_t body) {
  if (nodes_[body].kind == Kind::complement) return nodes_[body].first;
  if (body == kNever) return kAnything;
  if (body == kAnything) return kNever;
  return intern({.first = body, .kind = Kind::complement, .nullable = !nodes_[body].nullable});
}

RegexRef RegexPool::complement(RegexRef body) { return {make_complement(body.id)}; }

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
           std::find(stack_.begin() + static_cast<std::ptrdiff_t>(base), stack_.end(),
                     nodes_[stack_[i]].first) != stack_.end();
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

bool RegexPool::cannot_begin(std::uint32_t id, unsigned char byte) const noexcept {
  const Node& node = nodes_[id];
  const Node& head = node.kind == Kind::concat ? nodes_[node.first] : node;
  return head.kind == Kind::bytes && !sets_[head.first].contains(byte);
}

void RegexPool::charge(std::uint64_t steps) {
  steps_ += steps;
  if (steps_ >= step_end_)
    throw Error(ErrorCode::invalid_argument,
                "grammar: following the text takes more steps than the limit allows");
}

// Recursion is bounded by kMaxDepth: the rest of a concatenation is a loop.
std::uint32_t RegexPool::derive(std::uint32_t id, unsigned char byte) {
  charge(1);
  const Node node = nodes_[id];
  switch (node.kind) {
    case Kind::never:
    case Kind::empty:
      return kNever;
    case Kind::bytes:
      return sets_[node.first].contains(byte) ? kEmpty : kNever;
    case Kind::complement:
      return make_complement(derive(node.first, byte));
    case Kind::modulo: {
      if (byte == '.') return id;
      if (byte < '0' || byte > '9') return kNever;
      const std::uint64_t value = std::uint64_t{node.second} * 10 + (byte - '0');
      return modulo(node.max, static_cast<std::uint32_t>(value % node.max)).id;
    }
    case Kind::repeat: {
      if (id == kAnything) return kAnything;
      // The inside of a string is met in state after state: its derivatives are kept.
      const bool star = node.max == kNoMax;
      if (star)
        if (const std::uint32_t known = star_steps_.find(id, byte); known != PairTable::kNone)
          return known;
      const std::uint32_t head = derive(node.first, byte);
      if (star && head == kNever) star_steps_.insert(id, byte, kNever);
      if (head == kNever) return kNever;
      const std::uint32_t min = node.second == 0 ? 0 : node.second - 1;
      const std::uint32_t max = node.max == kNoMax ? kNoMax : node.max - 1;
      const std::uint32_t next = make_concat(
          head,
          make_repeat(node.first, min, mutant_active("regex_counter_stuck") ? node.max : max));
      if (star) star_steps_.insert(id, byte, next);
      return next;
    }
    case Kind::concat: {
      if (!nodes_[node.first].nullable) {
        if (cannot_begin(id, byte)) return kNever;
        return make_concat(derive(node.first, byte), node.second);
      }
      const std::size_t base = stack_.size();
      std::uint32_t at = id;
      while (true) {
        const Node link = nodes_[at];
        if (link.kind != Kind::concat) {
          push_flat(Kind::any_of, derive(at, byte));
          break;
        }
        const std::uint32_t head = derive(link.first, byte);
        if (head != kNever) push_flat(Kind::any_of, make_concat(head, link.second));
        if (!nodes_[link.first].nullable || mutant_active("regex_nullable_head_ignored")) break;
        at = link.second;
      }
      return make_any_of(base);
    }
    case Kind::any_of:
    case Kind::all_of: {
      const bool all = node.kind == Kind::all_of;
      const std::size_t base = stack_.size();
      steps_ += node.second / 16;
      for (std::uint32_t i = 0; i < node.second; ++i) {
        const std::uint32_t part = lists_[node.first + i];
        const std::uint32_t next = cannot_begin(part, byte) ? kNever : derive(part, byte);
        if (next != kNever) {
          push_flat(node.kind, next);
        } else if (all) {
          stack_.resize(base);
          return kNever;
        }
      }
      return all ? make_all_of(base) : make_any_of(base);
    }
  }
  return kNever;
}

std::optional<RegexPool::Repeat> RegexPool::leading_repeat(RegexRef regex) const {
  const Node& node = nodes_[regex.id];
  const bool chained = node.kind == Kind::concat;
  const Node& head = chained ? nodes_[node.first] : node;
  if (head.kind != Kind::repeat) return std::nullopt;
  Repeat repeat{{head.first}, std::nullopt, {chained ? node.second : kEmpty}};
  if (head.max != kNoMax) repeat.max = head.max;
  return repeat;
}

ByteSet RegexPool::first_bytes(RegexRef regex) const {
  ByteSet first;
  for (std::uint32_t id = regex.id;; id = nodes_[id].second) {
    const Node& node = nodes_[id];
    switch (node.kind) {
      case Kind::never:
      case Kind::empty:
        break;
      case Kind::bytes:
        first = first | sets_[node.first];
        break;
      case Kind::complement:
        return ByteSet::all();
      case Kind::modulo:
        first = first | ByteSet::range('0', '9') | ByteSet::range('.', '.');
        break;
      case Kind::repeat:
        first = first | first_bytes({node.first});
        break;
      case Kind::any_of:
        for (const std::uint32_t part : parts_of(node)) first = first | first_bytes({part});
        break;
      case Kind::all_of: {
        ByteSet all = ByteSet::all();
        for (const std::uint32_t part : parts_of(node)) all = all & first_bytes({part});
        first = first | all;
        break;
      }
      case Kind::concat:
        first = first | first_bytes({node.first});
        if (nodes_[node.first].nullable) continue;
        break;
    }
    return first;
  }
}

RegexRef RegexPool::derivative(RegexRef regex, unsigned char byte) {
  return {derive(regex.id, byte)};
}

bool RegexPool::matches(RegexRef regex, std::string_view bytes) {
  for (const char byte : bytes) regex = derivative(regex, static_cast<unsigned char>(byte));
  return nullable(regex);
}

RegexPool::Emptiness RegexPool::known_emptiness(std::uint32_t id) const noexcept {
  if (id == kNever) return Emptiness::never;
  if (nodes_[id].plain || nodes_[id].nullable) return Emptiness::inhabited;
  return id < emptiness_.size() ? emptiness_[id] : Emptiness::unknown;
}

std::optional<bool> RegexPool::is_never(RegexRef regex, std::uint64_t fuel) {
  Emptiness found = known_emptiness(regex.id);
  // Depth first reaches the end of long counters; breadth first finds a short match among many.
  if (found == Emptiness::unknown) found = search(regex.id, true, fuel / 2);
  if (found == Emptiness::unknown) found = search(regex.id, false, fuel / 2);
  if (found == Emptiness::unknown) return std::nullopt;
  return found == Emptiness::never;
}

// Looks for a derivative that matches something, and remembers what the search shows.
RegexPool::Emptiness RegexPool::search(std::uint32_t root, bool depth_first, std::uint64_t fuel) {
  struct Visit {
    std::uint32_t id;
    std::uint32_t parent;
    int next_class;  // classes below it have been tried
  };
  std::vector<Visit> visits{{root, 0, num_classes_}};
  std::vector<std::uint32_t> open{0};
  FlatTable seen;
  const auto hash_at = [&](std::uint32_t at) { return hash_mix(0, visits[at].id); };
  seen.insert(hash_at(0), 0, hash_at);
  // A quotation mark ends most of what is searched: the inside of a JSON string.
  const std::size_t quote = classes_['"'];
  const std::uint64_t end = steps_ + fuel;
  for (std::size_t front = 0; front < open.size();) {
    const std::uint32_t at = depth_first ? open.back() : open[front];
    if (visits[at].next_class == 0) {
      if (depth_first)
        open.pop_back();
      else
        ++front;
      continue;
    }
    if (steps_ >= end) return Emptiness::unknown;
    auto tried = static_cast<std::size_t>(--visits[at].next_class);
    const auto first_tried = static_cast<std::size_t>(num_classes_ - 1);
    if (tried == first_tried)
      tried = quote;
    else if (tried == quote)
      tried = first_tried;
    const std::uint32_t next = derive(visits[at].id, representatives_[tried]);
    const Emptiness emptiness = known_emptiness(next);
    if (emptiness == Emptiness::inhabited) {
      emptiness_.resize(nodes_.size(), Emptiness::unknown);
      for (std::uint32_t up = at;; up = visits[up].parent) {
        emptiness_[visits[up].id] = Emptiness::inhabited;
        if (up == 0) return Emptiness::inhabited;
      }
    }
    if (emptiness == Emptiness::never) continue;
    const std::uint64_t hash = hash_mix(0, next);
    if (seen.find(hash, [&](std::uint32_t other) { return visits[other].id == next; }) !=
        FlatTable::kNone)
      continue;
    const auto index = static_cast<std::uint32_t>(visits.size());
    visits.push_back({next, at, num_classes_});
    seen.insert(hash, index, hash_at);
    open.push_back(index);
  }
  emptiness_.resize(nodes_.size(), Emptiness::unknown);
  for (const Visit& visit : visits) emptiness_[visit.id] = Emptiness::never;
  return Emptiness::never;
}

}  // namespace specdec::grammar
