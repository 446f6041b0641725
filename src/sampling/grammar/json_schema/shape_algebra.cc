#include "sampling/grammar/json_schema/shape_algebra.h"

#include <algorithm>

#include "specdec/error.h"

namespace specdec::grammar {
namespace {

/// Equal atoms are searched for in short lists only, where it is cheap.
constexpr std::size_t kMostCompared = 64;

bool asks_nothing(const ObjectAtom& atom) { return atom == ObjectAtom{}; }
bool asks_nothing(const ArrayAtom& atom) { return atom == ArrayAtom{}; }

std::size_t demands(const ObjectAtom& atom) { return atom.needs.size() * 4 + atom.rules.size(); }
std::size_t demands(const ArrayAtom& atom) { return atom.contains.size() + atom.prefix.size(); }

template <typename T>
void merge(std::vector<T>& to, const std::vector<T>& from) {
  for (const T& value : from) {
    if (to.size() >= kMostCompared || std::find(to.begin(), to.end(), value) == to.end()) {
      to.push_back(value);
    }
  }
}

}  // namespace

template <typename Atom>
void ShapeAlgebra::append(std::vector<Atom>& atoms, Atom atom) {
  if (!annotations_ && !atoms.empty() && asks_nothing(atoms.front())) return;
  if (!annotations_ && asks_nothing(atom)) {
    atoms.assign(1, std::move(atom));
    return;
  }
  if (atoms.size() < kMostCompared && std::find(atoms.begin(), atoms.end(), atom) != atoms.end()) {
    return;
  }
  atoms.push_back(std::move(atom));
}

template <typename Atom>
void ShapeAlgebra::limit(std::vector<Atom>& atoms, std::size_t most, Shape& shape) {
  if (atoms.size() <= most) return;
  std::stable_sort(atoms.begin(), atoms.end(),
                   [](const Atom& a, const Atom& b) { return demands(a) < demands(b); });
  atoms.resize(most);
  shape.narrowed = true;
}

void ShapeAlgebra::meet_objects(const Shape& a, const Shape& b, Shape& result) {
  std::vector<ObjectAtom> xs = a.objects;
  std::vector<ObjectAtom> ys = b.objects;
  if (xs.size() * ys.size() > kMostPairs) {
    limit(xs, std::max(kMostPairs / ys.size(), std::size_t{8}), result);
    limit(ys, std::max(kMostPairs / xs.size(), std::size_t{8}), result);
  }
  const bool judged = judge_.is_empty && xs.size() * ys.size() > 1;
  for (const ObjectAtom& x : xs) {
    // Where x is within some y, their intersection is x, and all others are part of it.
    const bool within = judged && !annotations_ &&
                        std::any_of(ys.begin(), ys.end(),
                                    [&](const ObjectAtom& y) { return judge_.implies(x, y); });
    if (within) {
      append(result.objects, x);
      continue;
    }
    for (const ObjectAtom& y : ys) {
      charge(x.rules.size() + x.needs.size() + y.rules.size() + y.needs.size());
      ObjectAtom atom = both(x, y);
      if (contradicts(atom) || (judged && judge_.is_empty(atom))) continue;
      append(result.objects, std::move(atom));
    }
  }
}

void ShapeAlgebra::charge(std::uint64_t steps) {
  if (steps <= fuel_) {
    fuel_ -= steps;
    return;
  }
  throw Error(ErrorCode::invalid_argument,
              "json schema: its alternatives have more combinations than the limit");
}

Shape ShapeAlgebra::everything_but_objects() const {
  Shape shape;
  shape.null = shape.yes = shape.no = true;
  shape.number = numbers_.any();
  shape.string = strings_.any();
  shape.arrays.emplace_back();
  return shape;
}

Shape ShapeAlgebra::everything() const {
  Shape shape = everything_but_objects();
  shape.objects.emplace_back();
  return shape;
}

Shape ShapeAlgebra::both(const Shape& a, const Shape& b) {
  Shape result;
  result.null = a.null && b.null;
  result.yes = a.yes && b.yes;
  result.no = a.no && b.no;
  // What is compared to any() is a set of its texts.
  const auto meet = [this](RegexRef x, RegexRef y, RegexRef any) {
    return x == any ? y : y == any ? x : pool_.all_of(x, y);
  };
  result.number = meet(a.number, b.number, numbers_.any());
  result.string = meet(a.string, b.string, strings_.any());
  result.narrowed = a.narrowed || b.narrowed;
  for (const ArrayAtom& x : a.arrays) {
    for (const ArrayAtom& y : b.arrays) {
      ArrayAtom atom = both(x, y);
      if (atom.min_items <= atom.max_items) append(result.arrays, std::move(atom));
    }
  }
  meet_objects(a, b, result);
  limit(result.arrays, kMostAtoms, result);
  limit(result.objects, kMostAtoms, result);
  return result;
}

Shape ShapeAlgebra::either(const Shape& a, const Shape& b) {
  Shape result = a;
  result.null |= b.null;
  result.yes |= b.yes;
  result.no |= b.no;
  const auto join = [this](RegexRef x, RegexRef y, RegexRef any) {
    return x == any || y == any ? any : pool_.any_of(x, y);
  };
  result.number = join(a.number, b.number, numbers_.any());
  result.string = join(a.string, b.string, strings_.any());
  result.narrowed |= b.narrowed;
  for (const ArrayAtom& atom : b.arrays) append(result.arrays, atom);
  for (const ObjectAtom& atom : b.objects) append(result.objects, atom);
  limit(result.arrays, kMostAtoms, result);
  limit(result.objects, kMostAtoms, result);
  return result;
}

ObjectAtom ShapeAlgebra::both(const ObjectAtom& a, const ObjectAtom& b) {
  ObjectAtom result = a;
  merge(result.rules, b.rules);
  merge(result.needs, b.needs);
  merge(result.evaluated, b.evaluated);
  result.min_members = std::max(a.min_members, b.min_members);
  result.max_members = std::min(a.max_members, b.max_members);
  return result;
}

ArrayAtom ShapeAlgebra::both(const ArrayAtom& a, const ArrayAtom& b) {
  ArrayAtom result;
  for (std::size_t i = 0; i < std::max(a.prefix.size(), b.prefix.size()); ++i) {
    result.prefix.push_back(conditions_.both(i < a.prefix.size() ? a.prefix[i] : a.rest,
                                             i < b.prefix.size() ? b.prefix[i] : b.rest));
  }
  result.rest = conditions_.both(a.rest, b.rest);
  result.contains = a.contains;
  merge(result.contains, b.contains);
  result.min_items = std::max(a.min_items, b.min_items);
  result.max_items = std::min(a.max_items, b.max_items);
  result.unique = a.unique || b.unique;
  result.evaluated_prefix = std::max(a.evaluated_prefix, b.evaluated_prefix);
  result.evaluated_items = a.evaluated_items;
  merge(result.evaluated_items, b.evaluated_items);
  return result;
}

bool ShapeAlgebra::contradicts(const ObjectAtom& atom) {
  if (atom.min_members > atom.max_members) return true;
  return std::any_of(atom.needs.begin(), atom.needs.end(), [&](const MemberNeed& need) {
    if (!need.names.is_one()) return need.value == kNoValue;
    return conditions_.both(need.value, member_goal(atom, need.names.names.front())) == kNoValue;
  });
}

Goal ShapeAlgebra::member_goal(const ObjectAtom& atom, NameId name) {
  charge(atom.rules.size() / 4 + 4);
  Goal goal = kAnyValue;
  for (const MemberRule& rule : atom.rules) {
    const bool applies =
        rule.names.is_one() ? rule.names.names.front() == name : contains(rule.names, name);
    if (applies) goal = conditions_.both(goal, rule.value);
  }
  return goal;
}

bool ShapeAlgebra::contains(const NameSet& set, NameId name) {
  const auto matches = [&](RegexRef pattern) {
    const auto [entry, is_new] = matches_.try_emplace({pattern.id, name}, false);
    if (is_new) {
      // One of the texts of the name stands for all: a set of names has all texts of a member.
      const std::string text = quote_json(conditions_.text(name));
      entry->second = pool_.matches(pattern, std::string_view(text).substr(1, text.size() - 2));
    }
    return entry->second;
  };
  const bool listed = std::binary_search(set.names.begin(), set.names.end(), name) ||
                      std::any_of(set.patterns.begin(), set.patterns.end(), matches);
  return listed != set.inverted;
}

RegexRef ShapeAlgebra::regex_of(const NameSet& set) {
  std::vector<RegexRef> options = set.patterns;
  std::vector<std::string_view> names;
  for (const NameId name : set.names) names.push_back(conditions_.text(name));
  if (!names.empty()) options.push_back(strings_.one_of(names));
  const RegexRef listed = pool_.any_of(options);
  return set.inverted ? strings_.complement(listed) : listed;
}

NameSet ShapeAlgebra::inverted(NameSet set) const {
  set.inverted = !set.inverted;
  return set;
}

}  // namespace specdec::grammar
