#pragma once

#include <functional>
#include <map>
#include <utility>
#include <vector>

#include "sampling/grammar/json_schema/number_language.h"
#include "sampling/grammar/json_schema/shape.h"
#include "sampling/grammar/json_schema/string_language.h"

namespace specdec::grammar {

/// Unions and intersections of shapes. An intersection multiplies the atoms of both sides; past
/// `kMostAtoms` the most demanding ones are left out, and the shape is narrowed. Throws
/// Error(invalid_argument) when its work takes more than `fuel` steps (of some 50 ns). With
/// `annotations`, atoms differ also by what they evaluate, for unevaluatedProperties and
/// unevaluatedItems.
class ShapeAlgebra {
 public:
  static constexpr std::size_t kMostAtoms = 128;
  static constexpr std::size_t kMostPairs = 4096;  ///< of an intersection

  ShapeAlgebra(RegexPool& pool, ConditionTable& conditions, StringLanguage& strings,
               NumberLanguage& numbers, bool annotations, std::uint64_t fuel)
      : pool_(pool),
        conditions_(conditions),
        strings_(strings),
        numbers_(numbers),
        annotations_(annotations),
        fuel_(fuel) {}

  bool annotations() const noexcept { return annotations_; }

  /// What is found out cheaply about objects, to keep unions short. "No" may mean "not known".
  struct Judge {
    std::function<bool(const ObjectAtom&)> is_empty;
    /// Every object of the first atom is one of the second.
    std::function<bool(const ObjectAtom&, const ObjectAtom&)> implies;
  };
  void set_judge(Judge judge) { judge_ = std::move(judge); }

  /// Counts steps; throws Error(invalid_argument) past the fuel.
  void charge(std::uint64_t steps);

  Shape everything() const;
  Shape everything_but_objects() const;
  Shape both(const Shape& a, const Shape& b);
  Shape either(const Shape& a, const Shape& b);
  ObjectAtom both(const ObjectAtom& a, const ObjectAtom& b);
  ArrayAtom both(const ArrayAtom& a, const ArrayAtom& b);

  bool contains(const NameSet& set, NameId name);
  /// What the rules ask of the member of that name.
  Goal member_goal(const ObjectAtom& atom, NameId name);
  /// The set as one expression over the inside of a JSON string.
  RegexRef regex_of(const NameSet& set);
  NameSet inverted(NameSet set) const;

 private:
  bool contradicts(const ObjectAtom& atom);
  template <typename Atom>
  void append(std::vector<Atom>& atoms, Atom atom);
  template <typename Atom>
  void limit(std::vector<Atom>& atoms, std::size_t most, Shape& shape);
  void meet_objects(const Shape& a, const Shape& b, Shape& result);

  RegexPool& pool_;
  ConditionTable& conditions_;
  StringLanguage& strings_;
  NumberLanguage& numbers_;
  bool annotations_;
  Judge judge_;
  std::uint64_t fuel_;
  std::map<std::pair<std::uint32_t, NameId>, bool> matches_;  // pattern, name
};

}  // namespace specdec::grammar
