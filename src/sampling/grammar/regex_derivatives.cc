// What an expression matches after a byte, and whether it matches anything.
#include "sampling/grammar/regex_pool.h"

#include <algorithm>

#include "sampling/mutation.h"
#include "specdec/error.h"

namespace specdec::grammar {

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
      charge(node.second / 16);
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

std::uint32_t RegexPool::repeat_of(std::uint32_t head) const noexcept {
  const Node& node = nodes_[head];
  if (node.kind == Kind::repeat) return head;
  if (node.kind != Kind::all_of) return kNever;
  std::uint32_t repeat = kNever;
  for (const std::uint32_t part : parts_of(node)) {
    const Node& other = nodes_[part];
    if (other.kind == Kind::complement && nodes_[other.first].finite) continue;
    if (repeat != kNever || other.kind != Kind::repeat || other.max != kNoMax) return kNever;
    repeat = part;
  }
  return repeat;
}

std::optional<RegexPool::Repeat> RegexPool::leading_repeat(RegexRef regex) const {
  const bool chained = nodes_[regex.id].kind == Kind::concat;
  const std::uint32_t head = repeat_of(chained ? nodes_[regex.id].first : regex.id);
  const std::uint32_t rest = chained ? nodes_[regex.id].second : kEmpty;
  if (head == kNever || !nodes_[head].plain || !nodes_[rest].plain) return std::nullopt;
  Repeat repeat{{nodes_[head].first}, std::nullopt, {rest}};
  if (nodes_[head].max != kNoMax) repeat.max = nodes_[head].max;
  return repeat;
}

std::string RegexPool::take_literal(RegexRef& regex) const {
  std::string text;
  while (regex.id != kEmpty) {
    const bool chained = nodes_[regex.id].kind == Kind::concat;
    const Node& head = nodes_[chained ? nodes_[regex.id].first : regex.id];
    if (head.kind != Kind::bytes || sets_[head.first].size() != 1) break;
    text.push_back(static_cast<char>(sets_[head.first].first()));
    regex = {chained ? nodes_[regex.id].second : kEmpty};
  }
  return text;
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

std::uint32_t RegexPool::known_match(std::uint32_t id) const noexcept {
  if (nodes_[id].nullable) return 0;
  if (nodes_[id].plain) return nodes_[id].match_bytes;
  return id < matches_.size() ? matches_[id] : kNoMatch;
}

void RegexPool::remember(std::uint32_t id, Emptiness emptiness, std::uint32_t match_bytes) {
  if (emptiness_.size() <= id) {
    emptiness_.resize(nodes_.size(), Emptiness::unknown);
    matches_.resize(nodes_.size(), kNoMatch);
  }
  emptiness_[id] = emptiness;
  matches_[id] = match_bytes;
}

std::uint32_t RegexPool::raise_ceiling(std::uint32_t part, std::uint32_t& lowest) {
  constexpr std::uint32_t kHigh = 32;  // lower ones may well matter
  const Node node = nodes_[part];
  if (node.kind == Kind::repeat) {
    if (node.max == kNoMax || node.max < kHigh) return part;
    lowest = std::min(lowest, node.max);
    return make_repeat(node.first, node.second, kNoMax);
  }
  if (node.kind != Kind::concat) return part;
  // The repeat stands first, or behind the rest of a character.
  const std::uint32_t first = raise_ceiling(node.first, lowest);
  if (first != node.first) return make_concat(first, node.second);
  const bool repeated = nodes_[node.second].kind == Kind::repeat;
  return repeated ? make_concat(first, raise_ceiling(node.second, lowest)) : part;
}

// The expression with repeats that have no end in place of those whose end is far; `lowest` comes
// to be the nearest of them.
std::uint32_t RegexPool::raise_ceilings(std::uint32_t id, std::uint32_t& lowest) {
  const Node node = nodes_[id];
  if (node.kind == Kind::concat && nodes_[node.first].kind == Kind::all_of)
    return make_concat(raise_ceilings(node.first, lowest), node.second);
  if (node.kind != Kind::all_of) return id;
  const std::size_t base = stack_.size();
  for (std::uint32_t i = 0; i < node.second; ++i) {
    const std::uint32_t part = raise_ceiling(lists_[node.first + i], lowest);
    push_flat(Kind::all_of, part);
  }
  return make_all_of(base);
}

std::optional<bool> RegexPool::is_never(RegexRef regex, std::uint64_t fuel) {
  Emptiness found = known_emptiness(regex.id);
  if (found != Emptiness::unknown) return found == Emptiness::never;
  // A quotation mark ends most of what is asked for, the inside of a JSON string, at once.
  const std::uint32_t quoted = derive(regex.id, '"');
  if (known_emptiness(quoted) == Emptiness::inhabited) {
    const std::uint32_t match = known_match(quoted);
    remember(regex.id, Emptiness::inhabited, match == kNoMatch ? kNoMatch : match + 1);
    return false;
  }
  // A pattern beside a large maxLength: what is found out for one count holds for the others, as
  // far as a match has fewer bytes than the count allows characters.
  std::uint32_t lowest = kNoMax;
  if (const std::uint32_t endless = raise_ceilings(regex.id, lowest); endless != regex.id) {
    const std::optional<bool> never = is_never({endless}, fuel / 2);
    const std::uint32_t match = known_match(endless);
    if (never == true || (never == false && match <= lowest)) {
      remember(regex.id, *never ? Emptiness::never : Emptiness::inhabited, match);
      return never;
    }
  }
  // Depth first reaches the end of long counters; breadth first finds a short match among many.
  found = search(regex.id, true, fuel / 2);
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
      std::uint32_t match = known_match(next);
      for (std::uint32_t up = at;; up = visits[up].parent) {
        if (match != kNoMatch) ++match;
        remember(visits[up].id, Emptiness::inhabited, match);
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
  for (const Visit& visit : visits) remember(visit.id, Emptiness::never);
  return Emptiness::never;
}

}  // namespace specdec::grammar
