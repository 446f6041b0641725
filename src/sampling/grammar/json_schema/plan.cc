#include "sampling/grammar/json_schema/plan.h"

#include <algorithm>
#include <array>

#include "specdec/error.h"

namespace specdec::grammar {

Planner::Planner(SchemaShapes& shapes, ConditionTable& conditions, RegexPool& pool,
                 StringLanguage& strings, ShapeAlgebra& algebra, const JsonValue& root, bool strict)
    : shapes_(shapes),
      conditions_(conditions),
      pool_(pool),
      strings_(strings),
      algebra_(algebra),
      root_(root),
      strict_(strict) {}

void Planner::enqueue(Goal goal) {
  if (goal != kNoValue && plans_.try_emplace(goal.id).second) queue_.push_back(goal);
}

const std::map<std::uint32_t, ValuePlan>& Planner::plan_all(Goal root) {
  enqueue(root);
  while (!queue_.empty()) {
    const Goal goal = queue_.back();
    queue_.pop_back();
    ValuePlan made = plan(goal);
    for (const ArrayPlan& array : made.arrays) {
      for (const Goal item : array.prefix) enqueue(item);
      for (const ItemPlan& item : array.rest) enqueue(item.value);
    }
    for (const ObjectPlan& object : made.objects) {
      for (const MemberPlan& member : object.members) enqueue(member.value);
    }
    plans_[goal.id] = std::move(made);
  }
  find_productive();
  return plans_;
}

ValuePlan Planner::plan(Goal goal) {
  const Shape& shape = shapes_.of(goal);
  ValuePlan plan;
  std::vector<RegexRef> scalars;
  if (shape.null) scalars.push_back(pool_.literal("null"));
  if (shape.yes) scalars.push_back(pool_.literal("true"));
  if (shape.no) scalars.push_back(pool_.literal("false"));
  scalars.push_back(shape.number);
  const RegexRef quote = pool_.byte('"');
  scalars.push_back(pool_.concat(std::array{quote, shape.string, quote}));
  for (RegexRef& scalar : scalars) {
    if (pool_.is_never(scalar).value_or(false)) scalar = pool_.never();
  }
  plan.scalars = pool_.any_of(scalars);
  for (const ArrayAtom& atom : shape.arrays) plan_array(atom, plan.arrays);
  for (const ObjectAtom& atom : shape.objects) plan_object(atom, plan.objects);
  return plan;
}

Goal Planner::with(Goal goal, Condition condition) {
  return conditions_.both(goal, conditions_.goal(condition));
}

bool Planner::is_productive(Goal goal) const {
  const auto found = plans_.find(goal.id);
  return found != plans_.end() && found->second.productive;
}

bool Planner::is_productive(const ArrayPlan& array) const {
  if (array.min_items > array.max_items) return false;
  std::uint64_t least = 0;
  std::uint64_t most = 0;
  for (const ItemPlan& item : array.rest) {
    least += item.min;
    if (is_productive(item.value)) {
      most += item.max;
    } else if (item.min > 0) {
      return false;
    }
  }
  // Items that must come after the prefix need all of it.
  const std::size_t wanted = least > 0 ? array.prefix.size() : array.min_items;
  std::size_t size = 0;
  while (size < array.prefix.size() && size < wanted && is_productive(array.prefix[size])) ++size;
  if (size < array.prefix.size() && size < wanted) return false;
  return size + least <= array.max_items && size + most >= array.min_items;
}

bool Planner::is_productive(const ObjectPlan& object) const {
  std::vector<bool> filled(object.slots.size());
  std::vector<bool> named(object.slots.size());
  for (const MemberPlan& member : object.members) {
    if (!is_productive(member.value)) continue;
    named[member.slots.front()] = true;
    for (const std::uint32_t slot : member.slots) filled[slot] = true;
  }
  std::uint64_t least = 0;
  std::uint64_t most = 0;
  for (std::size_t i = 0; i < object.slots.size(); ++i) {
    if (object.slots[i].min > 0 && !filled[i]) return false;
    if (!named[i]) continue;
    least += object.slots[i].min;
    most += object.slots[i].max;
  }
  return least <= object.max_members && most >= object.min_members;
}

bool Planner::is_productive(const ValuePlan& plan) const {
  const auto productive = [this](const auto& container) { return is_productive(container); };
  return plan.scalars != pool_.never() ||
         std::any_of(plan.arrays.begin(), plan.arrays.end(), productive) ||
         std::any_of(plan.objects.begin(), plan.objects.end(), productive);
}

void Planner::find_productive() {
  // Children mostly have higher ids than their parents, so a few passes from the end suffice.
  for (bool changed = true; changed;) {
    changed = false;
    for (auto entry = plans_.rbegin(); entry != plans_.rend(); ++entry) {
      ValuePlan& plan = entry->second;
      if (plan.productive || !is_productive(plan)) continue;
      plan.productive = true;
      changed = true;
    }
  }
}

}  // namespace specdec::grammar
