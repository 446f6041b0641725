#pragma once

#include <map>
#include <set>
#include <string>
#include <vector>

#include "sampling/grammar/json_schema/schema_shapes.h"

namespace specdec::grammar {

/// How often something is there.
struct Slot {
  std::uint32_t min = 0;
  std::uint32_t max = kUnbounded;
};

/// Members whose name matches `key` and whose value meets a goal. Each fills a slot of its own kind
/// of name, and perhaps others.
struct MemberPlan {
  RegexRef key;  ///< over the inside of a JSON string
  Goal value;
  std::vector<std::uint32_t> slots;  ///< indices into ObjectPlan::slots; the first is its name's
};

/// An object: members, so many in each slot, and so many altogether.
struct ObjectPlan {
  std::vector<MemberPlan> members;  ///< in the schema's order
  std::vector<Slot> slots;
  std::uint32_t min_members = 0;
  std::uint32_t max_members = kUnbounded;
};

struct ItemPlan {
  Goal value;
  std::uint32_t min = 0;
  std::uint32_t max = kUnbounded;
};

/// An array: the items of the prefix, as far as it is that long, and then items of each kind in any
/// order. An item of the prefix that cannot be met ends the array before it.
struct ArrayPlan {
  std::vector<Goal> prefix;
  std::vector<ItemPlan> rest;
  std::uint32_t min_items = 0;
  std::uint32_t max_items = kUnbounded;
};

/// Everything that meets a goal.
struct ValuePlan {
  RegexRef scalars;  ///< as JSON texts
  std::vector<ArrayPlan> arrays;
  std::vector<ObjectPlan> objects;
  bool productive = false;  ///< is there a value?
};

/// Plans of the root and of every goal that it leads to.
class Planner {
 public:
  Planner(SchemaShapes& shapes, ConditionTable& conditions, RegexPool& pool,
          StringLanguage& strings, ShapeAlgebra& algebra, const JsonValue& root, bool strict);

  /// Throws as SchemaShapes does, and Error(unsupported) for what no grammar expresses.
  const std::map<std::uint32_t, ValuePlan>& plan_all(Goal root);
  const std::set<std::string>& unenforced() const noexcept { return unenforced_; }

 private:
  /// Names without a mention of their own that the same rules and needs apply to.
  struct NameClass {
    RegexRef names;
    std::vector<bool> matched;  // [patterns]
  };

  ValuePlan plan(Goal goal);
  std::vector<NameClass> classify(const std::vector<NameId>& names,
                                  const std::vector<RegexRef>& patterns);
  void plan_object(const ObjectAtom& atom, std::vector<ObjectPlan>& plans);
  void plan_array(ArrayAtom atom, std::vector<ArrayPlan>& plans);
  void plan_contains(const ArrayAtom& atom, std::size_t position, ArrayPlan& plan,
                     std::vector<ContainsRule>& open, std::vector<ArrayPlan>& plans);
  void plan_rest(const ArrayAtom& atom, const std::vector<ContainsRule>& open, ArrayPlan plan,
                 std::vector<ArrayPlan>& plans);
  bool make_unique(const ArrayAtom& atom, std::vector<ArrayPlan>& plans);
  bool finite_values(Goal goal, std::vector<Condition>& values, int depth);
  bool finite_values(Condition condition, std::vector<Condition>& values, int depth);
  Condition equals(const JsonValue& value);
  Goal with(Goal goal, Condition condition);
  void enqueue(Goal goal);
  void find_productive();
  bool is_productive(const ValuePlan& plan) const;
  bool is_productive(const ArrayPlan& plan) const;
  bool is_productive(const ObjectPlan& plan) const;
  bool is_productive(Goal goal) const;

  SchemaShapes& shapes_;
  ConditionTable& conditions_;
  RegexPool& pool_;
  StringLanguage& strings_;
  ShapeAlgebra& algebra_;
  const JsonValue& root_;
  bool strict_;
  std::map<std::uint32_t, ValuePlan> plans_;
  std::vector<Goal> queue_;
  std::vector<Condition> unique_values_;
  std::set<std::string> unenforced_;
};

}  // namespace specdec::grammar
