#include "sampling/grammar/json_schema/schema_shapes.h"

#include <algorithm>

#include "specdec/error.h"

namespace specdec::grammar {
namespace {

constexpr int kDeepest = 400;         // of schemas that apply to one value through each other
constexpr int kDeepestEmptiness = 4;  // of members that are looked into
constexpr std::uint64_t kEmptinessFuel = 2'000;

/// The JSON pointer of `wanted` within `value`; false where it is not there.
bool find_pointer(const JsonValue& value, const JsonValue* wanted, std::string& pointer) {
  if (&value == wanted) return true;
  const std::size_t size = pointer.size();
  for (std::size_t i = 0; i < value.items.size(); ++i) {
    pointer += "/" + std::to_string(i);
    if (find_pointer(value.items[i], wanted, pointer)) return true;
    pointer.resize(size);
  }
  for (const auto& [name, member] : value.members) {
    pointer += "/" + name;
    if (find_pointer(member, wanted, pointer)) return true;
    pointer.resize(size);
  }
  return false;
}

}  // namespace

bool SchemaSite::may_use(Draft first, Draft last) const {
  return !resource.draft_named || (resource.draft >= first && resource.draft <= last);
}

const JsonValue* SchemaSite::find(const char* keyword, Draft first, Draft last) const {
  return may_use(first, last) ? schema.find(keyword) : nullptr;
}

const JsonValue* SchemaSite::find_assertion(const char* keyword, Draft first, Draft last) const {
  return resource.validates ? find(keyword, first, last) : nullptr;
}

SchemaShapes::SchemaShapes(SchemaDocuments& documents, ConditionTable& conditions, RegexPool& pool,
                           StringLanguage& strings, NumberLanguage& numbers, ShapeAlgebra& algebra,
                           bool assert_formats)
    : documents_(documents),
      conditions_(conditions),
      pool_(pool),
      strings_(strings),
      numbers_(numbers),
      algebra_(algebra),
      assert_formats_(assert_formats) {
  algebra_.set_judge(
      {[this](const ObjectAtom& atom) { return surely_empty(atom, 1); },
       [this](const ObjectAtom& a, const ObjectAtom& b) { return surely_implies(a, b); }});
}

void SchemaShapes::fail_invalid(const JsonValue& schema, const std::string& what) const {
  std::string pointer = "#";
  find_pointer(documents_.root(), &schema, pointer);
  throw Error(ErrorCode::invalid_argument, "json schema: " + pointer + ": " + what);
}

void SchemaShapes::fail_unsupported(const JsonValue& schema, const std::string& what) const {
  std::string pointer = "#";
  find_pointer(documents_.root(), &schema, pointer);
  throw Error(ErrorCode::unsupported, "json schema: " + pointer + ": " + what);
}

Condition SchemaShapes::condition(const JsonValue& schema, std::uint32_t scope) {
  if (!schema.is_object() && !schema.is_boolean()) {
    fail_invalid(schema, "neither an object nor true or false, so no schema");
  }
  const SchemaResource& resource = documents_.resource_of(schema);
  if (!resource.dynamic_anchors.empty() || resource.recursive_anchor) {
    DynamicScope extended = conditions_.scope(scope);
    for (const auto& [name, target] : resource.dynamic_anchors) extended.emplace(name, target);
    if (resource.recursive_anchor) extended.emplace("", resource.root);
    scope = conditions_.scope(extended);
  }
  return conditions_.schema(schema, scope);
}

const Shape& SchemaShapes::of(Condition condition) {
  const auto [entry, is_new] = by_condition_.try_emplace(condition.id);
  if (is_new) {
    ++depth_;
    try {
      if (depth_ > kDeepest) {
        throw Error(ErrorCode::invalid_argument,
                    "json schema: more schemas apply to one value through each other than allowed");
      }
      auto shape = std::make_unique<Shape>(shape_of(condition));
      --depth_;
      return *(by_condition_[condition.id] = std::move(shape));
    } catch (...) {
      --depth_;
      by_condition_.erase(condition.id);
      throw;
    }
  }
  if (entry->second == nullptr) {
    const JsonValue* value = conditions_.entry(condition).value;
    fail_unsupported(value == nullptr ? documents_.root() : *value,
                     "the schema applies itself to the same value without end");
  }
  return *entry->second;
}

Shape SchemaShapes::shape_of(Condition condition) {
  const ConditionTable::Entry entry = conditions_.entry(condition);
  const bool negated = condition.is_negated();
  Shape shape;
  if (entry.value == nullptr) {
    if (negated) {
      std::vector<Condition> none;
      for (const Condition option : entry.options) none.push_back(option.negated());
      shape = all_of(none);
    } else {
      shape = any_of(entry.options);
    }
  } else if (!entry.is_schema) {
    shape = value_shape(*entry.value, negated);
  } else if (entry.value->is_boolean()) {
    if (entry.value->boolean != negated) shape = algebra_.everything();
  } else {
    shape =
        schema_shape({*entry.value, documents_.resource_of(*entry.value), entry.scope}, negated);
  }
  return shape;
}

Shape SchemaShapes::all_of(std::span<const Condition> conditions) {
  Shape shape = algebra_.everything();
  for (const Condition condition : conditions) shape = algebra_.both(shape, of(condition));
  return shape;
}

Shape SchemaShapes::any_of(std::span<const Condition> conditions) {
  Shape shape;
  for (const Condition condition : conditions) shape = algebra_.either(shape, of(condition));
  return shape;
}

const Shape& SchemaShapes::of(Goal goal) {
  const std::vector<Condition> conditions = conditions_.conditions(goal);
  if (conditions.size() == 1) return of(conditions.front());
  const auto known = by_goal_.find(goal.id);
  if (known != by_goal_.end()) return *known->second;
  auto shape = std::make_unique<Shape>();
  if (goal != kNoValue) *shape = all_of(conditions);
  if (shape->narrowed) {
    unenforced_.insert(
        "conditions with too many combinations: some values that meet them are refused");
  }
  return *(by_goal_[goal.id] = std::move(shape));
}

Shape SchemaShapes::schema_shape(const SchemaSite& site, bool negated) {
  const bool alone = site.resource.draft <= Draft::draft7 && site.schema.find("$ref") != nullptr;
  std::vector<Shape> parts;
  if (alone) {
    add_references(site, negated, parts);
  } else {
    parts = groups(site, negated);
  }
  if (negated) {
    Shape shape;
    for (const Shape& part : parts) shape = algebra_.either(shape, part);
    for (ObjectAtom& atom : shape.objects) atom.evaluated.clear();
    for (ArrayAtom& atom : shape.arrays) {
      atom.evaluated_prefix = 0;
      atom.evaluated_items.clear();
    }
    return shape;
  }
  Shape shape = parts.empty() ? algebra_.everything() : std::move(parts.front());
  for (std::size_t i = 1; i < parts.size(); ++i) shape = algebra_.both(shape, parts[i]);
  if (documents_.has_unevaluated()) add_unevaluated(site, shape);
  return shape;
}

std::vector<Shape> SchemaShapes::groups(const SchemaSite& site, bool negated) {
  std::vector<Shape> groups;
  if (negated && (site.find("unevaluatedProperties", Draft::draft2019) != nullptr ||
                  site.find("unevaluatedItems", Draft::draft2019) != nullptr)) {
    fail_unsupported(site.schema, "unevaluatedProperties and unevaluatedItems cannot be negated");
  }
  add_type(site, negated, groups);
  add_values(site, negated, groups);
  add_numbers(site, negated, groups);
  add_strings(site, negated, groups);
  add_array(site, negated, groups);
  add_object(site, negated, groups);
  add_references(site, negated, groups);
  add_applicators(site, negated, groups);
  add_dependencies(site, negated, groups);
  return groups;
}

void SchemaShapes::add_unevaluated(const SchemaSite& site, Shape& shape) {
  if (const JsonValue* schema = site.find("unevaluatedProperties", Draft::draft2019)) {
    const Goal goal = conditions_.goal(condition(*schema, site.scope));
    for (ObjectAtom& atom : shape.objects) {
      NameSet known;
      for (const NameSet& names : atom.evaluated) {
        if (names.inverted) {
          known.patterns.push_back(algebra_.regex_of(names));
        } else {
          known.names.insert(known.names.end(), names.names.begin(), names.names.end());
          known.patterns.insert(known.patterns.end(), names.patterns.begin(), names.patterns.end());
        }
      }
      std::sort(known.names.begin(), known.names.end());
      known.names.erase(std::unique(known.names.begin(), known.names.end()), known.names.end());
      const bool all = std::find(atom.evaluated.begin(), atom.evaluated.end(), NameSet::all()) !=
                       atom.evaluated.end();
      if (!all && goal != kAnyValue) atom.rules.push_back({algebra_.inverted(known), goal});
      atom.evaluated = {NameSet::all()};
    }
  }
  if (const JsonValue* schema = site.find("unevaluatedItems", Draft::draft2019)) {
    for (ArrayAtom& atom : shape.arrays) {
      std::vector<Condition> options = atom.evaluated_items;
      options.push_back(condition(*schema, site.scope));
      const Goal goal = conditions_.goal(
          options.size() == 1 ? options.front() : conditions_.any_of(std::move(options)));
      if (atom.evaluated_prefix != kUnbounded && goal != kAnyValue) {
        if (atom.prefix.size() < atom.evaluated_prefix) {
          atom.prefix.resize(atom.evaluated_prefix, atom.rest);
        }
        for (std::size_t i = atom.evaluated_prefix; i < atom.prefix.size(); ++i) {
          atom.prefix[i] = conditions_.both(atom.prefix[i], goal);
        }
        atom.rest = conditions_.both(atom.rest, goal);
      }
      atom.evaluated_prefix = kUnbounded;
    }
  }
}

std::vector<Condition> SchemaShapes::list(const SchemaSite& site, const JsonValue& schemas) {
  if (!schemas.is_array()) fail_invalid(site.schema, "an array of schemas was expected");
  std::vector<Condition> conditions;
  for (const JsonValue& schema : schemas.items) {
    conditions.push_back(condition(schema, site.scope));
  }
  return conditions;
}

std::uint32_t SchemaShapes::count(const SchemaSite& site, const JsonValue& value) const {
  if (!value.is_number() || value.number.negative || !value.number.is_integer()) {
    fail_invalid(site.schema, "a count that is no non-negative integer");
  }
  return value.number.to_count().value_or(kUnbounded - 1);
}

bool SchemaShapes::is_never(RegexRef regex) {
  if (regex == pool_.never()) return true;
  if (pool_.nullable(regex)) return false;
  algebra_.charge(200);
  return pool_.is_never(regex, kEmptinessFuel).value_or(false);
}

bool SchemaShapes::surely_empty(Goal goal, int depth) {
  if (goal == kAnyValue || goal == kNoValue) return goal == kNoValue;
  const auto [entry, is_new] = empty_goals_.try_emplace(goal.id, false);
  if (!is_new) return entry->second;
  if (depth > kDeepestEmptiness) {
    empty_goals_.erase(entry);  // another way to it may be shorter
    return false;
  }
  bool empty = false;
  try {
    const Shape& shape = of(goal);
    empty = !shape.narrowed && !shape.null && !shape.yes && !shape.no;
    for (const ArrayAtom& atom : shape.arrays) empty = empty && surely_empty(atom, depth + 1);
    for (const ObjectAtom& atom : shape.objects) empty = empty && surely_empty(atom, depth + 1);
    empty = empty && is_never(shape.number) && is_never(shape.string);
  } catch (const Error& error) {
    if (error.code() != ErrorCode::unsupported) throw;
    // What cannot be described is reported when it is needed, not when it is only compared.
    empty = false;
  }
  return empty_goals_[goal.id] = empty;
}

bool SchemaShapes::surely_empty(const ObjectAtom& atom, int depth) {
  for (const MemberNeed& need : atom.needs) {
    if (!need.names.is_one()) continue;
    const Goal rules = algebra_.member_goal(atom, need.names.names.front());
    if (surely_empty(conditions_.both(need.value, rules), depth)) return true;
  }
  return atom.min_members > atom.max_members;
}

/// Looks at what negations are made of: a member that is needed or must not be there.
bool SchemaShapes::surely_implies(const ObjectAtom& a, const ObjectAtom& b) {
  if (b.min_members > a.min_members || b.max_members < a.max_members) return false;
  for (const MemberNeed& need : b.needs) {
    if (!need.names.is_one()) return false;
    const NameId name = need.names.names.front();
    Goal found = kAnyValue;
    bool required = false;
    for (const MemberNeed& other : a.needs) {
      if (!other.names.is_one() || other.names.names.front() != name) continue;
      required = true;
      found = conditions_.both(found, other.value);
    }
    if (!required) return false;
    if (need.value == kAnyValue) continue;
    found = conditions_.both(found, algebra_.member_goal(a, name));
    // Copied: the table grows while it is asked.
    const std::vector<Condition> wanted = conditions_.conditions(need.value);
    for (const Condition condition : wanted) {
      const Goal opposite = conditions_.goal(condition.negated());
      if (!surely_empty(conditions_.both(found, opposite), 1)) return false;
    }
  }
  return std::all_of(b.rules.begin(), b.rules.end(), [&](const MemberRule& rule) {
    if (std::find(a.rules.begin(), a.rules.end(), rule) != a.rules.end()) return true;
    return rule.value == kNoValue && rule.names.is_one() &&
           surely_empty(algebra_.member_goal(a, rule.names.names.front()), 1);
  });
}

bool SchemaShapes::surely_empty(const ArrayAtom& atom, int depth) {
  for (std::size_t i = 0; i < atom.prefix.size() && i < atom.min_items; ++i) {
    if (surely_empty(atom.prefix[i], depth)) return true;
  }
  if (atom.min_items > atom.prefix.size() && surely_empty(atom.rest, depth)) return true;
  return atom.min_items > atom.max_items;
}

}  // namespace specdec::grammar
