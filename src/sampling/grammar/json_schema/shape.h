#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "sampling/grammar/json_schema/json_value.h"
#include "sampling/grammar/regex_pool.h"

namespace specdec::grammar {

inline constexpr std::uint32_t kUnbounded = 0xFFFFFFFF;

/// One condition on a value: that a schema holds, that it equals a JSON value, that one of other
/// conditions holds, or the opposite of that. An index into a ConditionTable; the lowest bit says
/// that it is negated.
struct Condition {
  std::uint32_t id = 0;
  Condition negated() const noexcept { return {id ^ 1}; }
  bool is_negated() const noexcept { return (id & 1) != 0; }
  auto operator<=>(const Condition&) const = default;
};

/// A conjunction of conditions: what a place in the document asks of its value. An index into a
/// ConditionTable. Goal 0 asks nothing, goal 1 cannot be met.
struct Goal {
  std::uint32_t id = 0;
  auto operator<=>(const Goal&) const = default;
};
inline constexpr Goal kAnyValue{0};
inline constexpr Goal kNoValue{1};

/// Where $dynamicRef and $recursiveRef lead: for each dynamic anchor, the outermost schema that the
/// evaluation has come through. Name -> schema; "" stands for $recursiveAnchor.
using DynamicScope = std::map<std::string, const JsonValue*, std::less<>>;

/// Interned conditions and goals; children of a schema become goals before anybody looks at them,
/// which is what makes recursive schemas finite.
class ConditionTable {
 public:
  struct Entry {
    const JsonValue* value = nullptr;  ///< a schema, or the value to be equal to
    bool is_schema = true;
    std::uint32_t scope = 0;
    std::vector<Condition> options;  ///< without a value: one of these holds
  };

  Condition schema(const JsonValue& schema, std::uint32_t scope);
  Condition equals(const JsonValue& value);
  Condition any_of(std::vector<Condition> options);
  const Entry& entry(Condition condition) const { return entries_[condition.id >> 1]; }

  Goal goal(Condition condition) { return goal_of({condition}); }
  Goal both(Goal a, Goal b);
  const std::vector<Condition>& conditions(Goal goal) const { return goals_[goal.id]; }
  std::size_t num_goals() const noexcept { return goals_.size(); }

  std::uint32_t scope(const DynamicScope& scope);
  const DynamicScope& scope(std::uint32_t id) const { return *scopes_[id]; }

  std::uint32_t name(std::string_view text);
  const std::string& text(std::uint32_t name) const { return *names_[name]; }

  ConditionTable();

 private:
  Condition add(Entry entry);
  Condition intern(Entry entry);
  Goal goal_of(std::vector<Condition> conditions);

  std::vector<Entry> entries_;
  std::map<std::pair<const JsonValue*, std::uint64_t>, std::uint32_t> entry_ids_;
  std::map<std::vector<Condition>, std::uint32_t> option_ids_;
  std::vector<std::vector<Condition>> goals_;
  std::map<std::vector<Condition>, std::uint32_t> goal_ids_;
  std::map<std::string, std::uint32_t, std::less<>> name_ids_;
  std::vector<const std::string*> names_;
  std::map<DynamicScope, std::uint32_t> scope_ids_;
  std::vector<const DynamicScope*> scopes_;
};

/// A member's name, interned in a ConditionTable.
using NameId = std::uint32_t;

/// A set of member names: listed ones and those that match an expression, or all others.
struct NameSet {
  std::vector<NameId> names;       ///< sorted
  std::vector<RegexRef> patterns;  ///< over the inside of a JSON string
  bool inverted = false;

  static NameSet all() { return {{}, {}, true}; }
  static NameSet one(NameId name) { return {{name}, {}, false}; }
  bool is_one() const noexcept { return names.size() == 1 && patterns.empty() && !inverted; }
  bool operator==(const NameSet&) const = default;
};

/// Every member whose name is in the set has a value that meets the goal.
struct MemberRule {
  NameSet names;
  Goal value;
  bool operator==(const MemberRule&) const = default;
};

/// Some member whose name is in the set has a value that meets the goal.
struct MemberNeed {
  NameSet names;
  Goal value;
  bool operator==(const MemberNeed&) const = default;
};

/// A conjunction of what an object must be.
struct ObjectAtom {
  std::vector<MemberRule> rules;
  std::vector<MemberNeed> needs;
  std::uint32_t min_members = 0;
  std::uint32_t max_members = kUnbounded;
  std::vector<NameSet> evaluated;  ///< for unevaluatedProperties; empty where nobody asks
  bool operator==(const ObjectAtom&) const = default;
};

/// From `min` to `max` items, counted from index `from` on, meet the condition.
struct ContainsRule {
  Condition item;
  std::uint32_t from = 0;
  std::uint32_t min = 1;
  std::uint32_t max = kUnbounded;
  bool operator==(const ContainsRule&) const = default;
};

/// A conjunction of what an array must be.
struct ArrayAtom {
  std::vector<Goal> prefix;  ///< of the items at 0, 1, ...
  Goal rest = kAnyValue;     ///< of all others
  std::vector<ContainsRule> contains;
  std::uint32_t min_items = 0;
  std::uint32_t max_items = kUnbounded;
  bool unique = false;
  std::uint32_t evaluated_prefix = 0;      ///< for unevaluatedItems; kUnbounded: all items
  std::vector<Condition> evaluated_items;  ///< items that meet one of these count as well
  bool operator==(const ArrayAtom&) const = default;
};

/// A set of JSON values by kind: scalars as expressions, arrays and objects as a union of atoms.
struct Shape {
  bool null = false;
  bool yes = false;
  bool no = false;
  RegexRef number{};  ///< over texts; never() by default
  RegexRef string{};  ///< over the text between the quotes
  std::vector<ArrayAtom> arrays;
  std::vector<ObjectAtom> objects;
  /// Some values are left out that should be there. So it must not be taken for empty.
  bool narrowed = false;
};

}  // namespace specdec::grammar
