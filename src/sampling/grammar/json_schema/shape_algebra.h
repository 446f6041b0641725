#pragma once

#include "sampling/grammar/json_schema/number_language.h"
#include "sampling/grammar/json_schema/shape.h"
#include "sampling/grammar/json_schema/string_language.h"

namespace specdec::grammar {

/// Unions and intersections of shapes. An intersection multiplies the atoms of both sides; past
/// `kMostAtoms` the most demanding ones are left out, and the shape is narrowed. With
/// `annotations`, atoms differ also by what they evaluate, for unevaluatedProperties and
/// unevaluatedItems.
class ShapeAlgebra {
 public:
  static constexpr std::size_t kMostAtoms = 256;

  ShapeAlgebra(RegexPool& pool, ConditionTable& conditions, StringLanguage& strings,
               NumberLanguage& numbers, bool annotations)
      : pool_(pool),
        conditions_(conditions),
        strings_(strings),
        numbers_(numbers),
        annotations_(annotations) {}

  bool annotations() const noexcept { return annotations_; }

  /// Tells that no value can be as an atom says, where that is found out cheaply.
  void set_pruner(std::function<bool(const ObjectAtom&)> is_empty) {
    is_empty_ = std::move(is_empty);
  }

  Shape everything() const;
  Shape everything_but_objects() const;
  Shape both(const Shape& a, const Shape& b);
  Shape either(const Shape& a, const Shape& b);
  ObjectAtom both(const ObjectAtom& a, const ObjectAtom& b);
  ArrayAtom both(const ArrayAtom& a, const ArrayAtom& b);

  bool contains(const NameSet& set, std::string_view name);
  /// The set as one expression over the inside of a JSON string.
  RegexRef regex_of(const NameSet& set);
  NameSet inverted(NameSet set) const;

 private:
  bool contradicts(const ObjectAtom& atom);
  template <typename Atom>
  void append(std::vector<Atom>& atoms, Atom atom);
  template <typename Atom>
  void limit(std::vector<Atom>& atoms, Shape& shape);

  RegexPool& pool_;
  ConditionTable& conditions_;
  StringLanguage& strings_;
  NumberLanguage& numbers_;
  bool annotations_;
  std::function<bool(const ObjectAtom&)> is_empty_;
  std::map<std::pair<std::uint32_t, std::string>, bool> matches_;
};

}  // namespace specdec::grammar
