#include "sampling/grammar/regex_pool.h"

#include <algorithm>

#include "specdec/error.h"

namespace specdec::grammar {
namespace {

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
         sets_.capacity() * sizeof(ByteSet) + emptiness_.capacity() + matches_.capacity() * 4 +
         table_.memory_bytes() + set_table_.memory_bytes() + star_steps_.memory_bytes() +
         near_table_.memory_bytes() + near_.capacity() * sizeof(Near) + longest_.memory_bytes();
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
    node.finite = node.finite && nodes_[part].finite;
    node.far = node.far || nodes_[part].far;
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
  if (node.kind == Kind::complement) node.far = false;
  if (node.kind == Kind::repeat && has_far_bound(node)) node.far = true;
  if (node.kind == Kind::complement || node.kind == Kind::modulo || node.max == kNoMax)
    node.finite = false;
  node.match_bytes = match_bytes_of(node);
  const auto id = static_cast<std::uint32_t>(nodes_.size());
  nodes_.push_back(node);
  table_.insert(hash, id, [&](std::uint32_t at) { return nodes_[at].hash; });
  return id;
}

// Of a plain node; what is longer than a gigabyte counts as that.
std::uint32_t RegexPool::match_bytes_of(const Node& node) const noexcept {
  constexpr std::uint64_t kMost = 1u << 30;
  std::uint64_t bytes = 0;
  switch (node.kind) {
    case Kind::bytes:
      bytes = 1;
      break;
    case Kind::concat:
      bytes = std::uint64_t{nodes_[node.first].match_bytes} + nodes_[node.second].match_bytes;
      break;
    case Kind::any_of:
      bytes = kMost;
      for (const std::uint32_t part : parts_of(node))
        bytes = std::min<std::uint64_t>(bytes, nodes_[part].match_bytes);
      break;
    case Kind::repeat:
      bytes = std::uint64_t{nodes_[node.first].match_bytes} * node.second;
      break;
    case Kind::modulo:  // a residue is made up for by ten digits: the modulus is below 2^31
      bytes = node.second == 0 ? 0 : 10;
      break;
    case Kind::never:
    case Kind::empty:
    case Kind::all_of:
    case Kind::complement:
      break;
  }
  return static_cast<std::uint32_t>(std::min(bytes, kMost));
}

// Each class that the set cuts in two is split.
void RegexPool::refine_classes(const ByteSet& set) {
  const auto split = [&](unsigned old) {
    const ByteSet inside = members_[old] & set;
    if (inside.empty() || inside == members_[old]) return;
    const auto made = static_cast<unsigned>(num_classes_++);
    members_[made] = inside;
    members_[old] = members_[old] & ~set;
    for (const unsigned part : {old, made})
      representatives_[part] = static_cast<unsigned char>(members_[part].first());
    for (unsigned byte = inside.first(); byte < 256; ++byte)
      if (inside.contains(byte)) classes_[byte] = static_cast<std::uint8_t>(made);
  };
  if (set.size() == 1) return split(classes_[set.first()]);
  const auto classes = static_cast<unsigned>(num_classes_);
  for (unsigned old = 0; old < classes; ++old) split(old);
}

RegexRef RegexPool::byte_class(const ByteSet& set) {
  if (set.empty()) return never();
  const std::uint64_t hash = hash_set(set);
  std::uint32_t index = set_table_.find(hash, [&](std::uint32_t at) { return sets_[at] == set; });
  if (index == FlatTable::kNone) {
    index = static_cast<std::uint32_t>(sets_.size());
    charge(1 + static_cast<std::uint64_t>(num_classes_) / 16);
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

}  // namespace specdec::grammar
