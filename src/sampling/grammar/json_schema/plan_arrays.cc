#include <algorithm>
#include <set>

#include "sampling/grammar/json_schema/plan.h"
#include "specdec/error.h"

namespace specdec::grammar {
namespace {

constexpr std::size_t kMostVariants = 256;
constexpr std::size_t kMostUniqueValues = 512;
constexpr int kDeepestSearch = 16;

const JsonValue kNull{};
const JsonValue kTrue(true);
const JsonValue kFalse(false);

}  // namespace

void Planner::plan_array(ArrayAtom atom, std::vector<ArrayPlan>& plans) {
  // What contains asks of every item or of the length goes there.
  std::vector<ContainsRule> counted;
  for (const ContainsRule& rule : atom.contains) {
    const Goal item = conditions_.goal(rule.item);
    if (item == kAnyValue) {
      const auto plus = [&](std::uint32_t n) {
        return n >= kUnbounded - rule.from ? kUnbounded : n + rule.from;
      };
      if (rule.min > 0) atom.min_items = std::max(atom.min_items, plus(rule.min));
      atom.max_items = std::min(atom.max_items, plus(rule.max));
    } else if (rule.min > rule.max || (item == kNoValue && rule.min > 0)) {
      return;
    } else if (rule.max == 0) {
      if (atom.prefix.size() < rule.from) atom.prefix.resize(rule.from, atom.rest);
      for (std::size_t i = rule.from; i < atom.prefix.size(); ++i) {
        atom.prefix[i] = with(atom.prefix[i], rule.item.negated());
      }
      atom.rest = with(atom.rest, rule.item.negated());
    } else if (rule.min > 0 || rule.max != kUnbounded) {
      counted.push_back(rule);
    }
  }
  if (atom.min_items > atom.max_items) return;
  // Items past the longest array, or that no value can be, need no plan.
  std::size_t size = 0;
  while (size < atom.prefix.size() && size < atom.max_items && atom.prefix[size] != kNoValue) {
    ++size;
  }
  if (size < atom.prefix.size()) {
    atom.max_items = std::min(atom.max_items, static_cast<std::uint32_t>(size));
    atom.prefix.resize(size);
  }
  if (atom.rest == kNoValue) {
    atom.max_items = std::min(atom.max_items, static_cast<std::uint32_t>(size));
  }
  if (atom.min_items > atom.max_items) return;
  atom.contains = counted;
  if (atom.unique && atom.max_items > 1) {
    if (counted.empty() && make_unique(atom, plans)) return;
    const std::string what = "uniqueItems is enforced only for items from a finite set of values";
    if (strict_) shapes_.fail_unsupported(root_, what);
    unenforced_.insert(what);
  }
  for (const ContainsRule& rule : counted) {
    if (atom.prefix.size() < rule.from) atom.prefix.resize(rule.from, atom.rest);
  }
  ArrayPlan plan;
  plan.min_items = atom.min_items;
  plan.max_items = atom.max_items;
  plan_contains(atom, 0, plan, counted, plans);
}

/// Decides for the item of the prefix at `position` which of the rules it counts for.
void Planner::plan_contains(const ArrayAtom& atom, std::size_t position, ArrayPlan& plan,
                            std::vector<ContainsRule>& open, std::vector<ArrayPlan>& plans) {
  if (plans.size() > kMostVariants) {
    shapes_.fail_unsupported(root_, "contains: too many choices of items");
  }
  if (open.empty()) {
    ArrayPlan whole = plan;
    whole.prefix.insert(whole.prefix.end(),
                        atom.prefix.begin() + static_cast<std::ptrdiff_t>(position),
                        atom.prefix.end());
    if (atom.rest != kNoValue) whole.rest.push_back({atom.rest, 0, kUnbounded});
    plans.push_back(std::move(whole));
    return;
  }
  if (position == atom.prefix.size()) {
    plan_rest(atom, open, plan, plans);
    return;
  }
  const std::size_t choices = std::size_t{1} << open.size();
  if (open.size() > 4) shapes_.fail_unsupported(root_, "contains: too many of them");
  for (std::size_t choice = 0; choice < choices; ++choice) {
    Goal goal = atom.prefix[position];
    std::vector<ContainsRule> left;
    bool sensible = true;
    for (std::size_t r = 0; r < open.size(); ++r) {
      ContainsRule rule = open[r];
      const bool counts = (choice >> r & 1) != 0;
      if (counts && (rule.from > position || rule.max == 0)) sensible = false;
      if (counts && rule.min == 0 && rule.max == kUnbounded) sensible = false;
      if (counts) {
        goal = with(goal, rule.item);
        if (rule.min > 0) --rule.min;
        if (rule.max != kUnbounded && rule.max > 0) --rule.max;
      } else if (rule.max != kUnbounded && rule.from <= position) {
        goal = with(goal, rule.item.negated());
      }
      left.push_back(rule);
    }
    if (!sensible || goal == kNoValue) continue;
    // Rules that are met ask for nothing more.
    std::erase_if(left,
                  [](const ContainsRule& rule) { return rule.min == 0 && rule.max == kUnbounded; });
    ArrayPlan next = plan;
    next.prefix.push_back(goal);
    if (choice != 0) {
      next.min_items = std::max(next.min_items, static_cast<std::uint32_t>(position + 1));
    }
    plan_contains(atom, position + 1, next, left, plans);
  }
  // The array may also end here, if what is left is a maximum.
  if (std::all_of(open.begin(), open.end(), [](const auto& rule) { return rule.min == 0; })) {
    ArrayPlan ends = plan;
    ends.max_items = std::min(ends.max_items, static_cast<std::uint32_t>(position));
    if (ends.min_items <= ends.max_items) plans.push_back(std::move(ends));
  }
}

void Planner::plan_rest(const ArrayAtom& atom, const std::vector<ContainsRule>& open,
                        ArrayPlan plan, std::vector<ArrayPlan>& plans) {
  if (open.size() == 1) {
    const ContainsRule& rule = open.front();
    const Goal other = rule.max == kUnbounded ? atom.rest : with(atom.rest, rule.item.negated());
    const Goal counts = with(atom.rest, rule.item);
    if (counts != kNoValue) plan.rest.push_back({counts, rule.min, rule.max});
    if (counts == kNoValue && rule.min > 0) return;
    if (other != kNoValue) plan.rest.push_back({other, 0, kUnbounded});
    plans.push_back(std::move(plan));
    return;
  }
  for (const ContainsRule& rule : open) {
    if (rule.min != 1 || rule.max != kUnbounded) {
      shapes_.fail_unsupported(root_, "several contains with counts for one array");
    }
  }
  // One item may serve several rules: a plan for each way to share them out.
  std::vector<std::vector<Goal>> sharings = {{}};
  for (const ContainsRule& rule : open) {
    std::vector<std::vector<Goal>> next;
    for (const std::vector<Goal>& sharing : sharings) {
      for (std::size_t i = 0; i <= sharing.size(); ++i) {
        std::vector<Goal>& shared = next.emplace_back(sharing);
        if (i == sharing.size()) shared.push_back(atom.rest);
        shared[i] = with(shared[i], rule.item);
        if (shared[i] == kNoValue) next.pop_back();
      }
      if (next.size() > kMostVariants) {
        shapes_.fail_unsupported(root_, "contains: too many of them for one array");
      }
    }
    sharings = std::move(next);
  }
  for (const std::vector<Goal>& sharing : sharings) {
    ArrayPlan& with_items = plans.emplace_back(plan);
    for (const Goal item : sharing) with_items.rest.push_back({item, 1, kUnbounded});
    if (atom.rest != kNoValue) with_items.rest.push_back({atom.rest, 0, kUnbounded});
  }
}

/// Distinct items: where they can only be one of so many values, each value at most once. False
/// where they can be endlessly many.
bool Planner::make_unique(const ArrayAtom& atom, std::vector<ArrayPlan>& plans) {
  std::vector<ArrayPlan> found;
  const auto values_of = [&](Goal goal) -> std::optional<std::vector<Condition>> {
    std::vector<Condition> values;
    if (!finite_values(goal, values, 0) || values.size() > kMostUniqueValues) return std::nullopt;
    std::sort(values.begin(), values.end());
    values.erase(std::unique(values.begin(), values.end()), values.end());
    std::erase_if(values, [&](Condition value) { return shapes_.surely_empty(with(goal, value)); });
    return values;
  };
  const std::size_t size = atom.prefix.size();
  // [position][..] distinct values for the prefix
  std::vector<std::vector<Condition>> beginnings = {{}};
  for (std::size_t length = 0;; ++length) {
    for (const std::vector<Condition>& beginning : beginnings) {
      const bool ends = length < size;
      ArrayPlan plan;
      plan.min_items = atom.min_items;
      plan.max_items =
          ends ? std::min(atom.max_items, static_cast<std::uint32_t>(length)) : atom.max_items;
      if (plan.min_items > plan.max_items || (ends && plan.min_items < length)) {
        plan.min_items = std::max(plan.min_items, static_cast<std::uint32_t>(length));
        if (plan.min_items > plan.max_items) continue;
      }
      for (std::size_t i = 0; i < length; ++i) {
        plan.prefix.push_back(with(atom.prefix[i], beginning[i]));
      }
      if (!ends && plan.max_items > length) {
        const auto values = values_of(atom.rest);
        if (!values.has_value()) return false;
        for (const Condition value : *values) {
          if (std::find(beginning.begin(), beginning.end(), value) != beginning.end()) continue;
          plan.rest.push_back({with(atom.rest, value), 0, 1});
        }
      }
      found.push_back(std::move(plan));
    }
    if (length == size) break;
    std::vector<std::vector<Condition>> longer;
    const auto values = values_of(atom.prefix[length]);
    if (!values.has_value()) return false;
    for (const std::vector<Condition>& beginning : beginnings) {
      for (const Condition value : *values) {
        if (std::find(beginning.begin(), beginning.end(), value) != beginning.end()) continue;
        longer.emplace_back(beginning).push_back(value);
      }
    }
    if (longer.size() > kMostVariants) return false;
    beginnings = std::move(longer);
  }
  plans.insert(plans.end(), found.begin(), found.end());
  return true;
}

/// One condition for all equal values, wherever they stand.
Condition Planner::equals(const JsonValue& value) {
  for (const Condition known : unique_values_) {
    if (equal(*conditions_.entry(known).value, value)) return known;
  }
  unique_values_.push_back(conditions_.equals(value));
  return unique_values_.back();
}

bool Planner::finite_values(Goal goal, std::vector<Condition>& values, int depth) {
  if (goal == kNoValue) return true;
  const std::vector<Condition> conditions = conditions_.conditions(goal);
  for (const Condition condition : conditions) {
    std::vector<Condition> found;
    if (finite_values(condition, found, depth)) {
      values.insert(values.end(), found.begin(), found.end());
      return true;
    }
  }
  const Shape& shape = shapes_.of(goal);
  const auto none = [&](RegexRef regex) { return pool_.is_never(regex).value_or(false); };
  if (!shape.arrays.empty() || !shape.objects.empty() || !none(shape.number) ||
      !none(shape.string)) {
    return false;
  }
  if (shape.null) values.push_back(equals(kNull));
  if (shape.yes) values.push_back(equals(kTrue));
  if (shape.no) values.push_back(equals(kFalse));
  return true;
}

bool Planner::finite_values(Condition condition, std::vector<Condition>& values, int depth) {
  if (condition.is_negated() || depth > kDeepestSearch) return false;
  const ConditionTable::Entry entry = conditions_.entry(condition);
  if (entry.value == nullptr) return false;
  if (!entry.is_schema) {
    values.push_back(equals(*entry.value));
    return true;
  }
  const SchemaShapes::Applied applied = shapes_.applied(condition);
  if (const JsonValue* list = applied.values) {
    for (const JsonValue& value : list->items) values.push_back(equals(value));
    return true;
  }
  for (const Condition other : applied.all) {
    std::vector<Condition> found;
    if (!finite_values(other, found, depth + 1)) continue;
    values.insert(values.end(), found.begin(), found.end());
    return true;
  }
  return !applied.any.empty() &&
         std::all_of(applied.any.begin(), applied.any.end(),
                     [&](Condition other) { return finite_values(other, values, depth + 1); });
}

}  // namespace specdec::grammar
