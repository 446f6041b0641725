#include <algorithm>

#include "sampling/grammar/json_schema/schema_shapes.h"

namespace specdec::grammar {

void SchemaShapes::read_items(const SchemaSite& site, ArrayAtom& atom) {
  const auto goal = [&](const JsonValue& schema) {
    return conditions_.goal(condition(schema, site.scope));
  };
  const JsonValue* items = site.find("items");
  const JsonValue* prefix = site.find("prefixItems", Draft::draft2020);
  // Before 2020-12 an array of `items` was what prefixItems is now.
  const JsonValue* rest = items;
  if (items != nullptr && items->is_array() && site.may_use(Draft::draft4, Draft::draft2019)) {
    prefix = items;
    rest = site.find("additionalItems", Draft::draft4, Draft::draft2019);
  }
  if (prefix != nullptr) {
    if (!prefix->is_array()) fail_invalid(site.schema, "prefixItems is no array");
    for (const JsonValue& schema : prefix->items) atom.prefix.push_back(goal(schema));
    atom.evaluated_prefix = static_cast<std::uint32_t>(atom.prefix.size());
  }
  if (rest != nullptr) {
    atom.rest = goal(*rest);
    atom.evaluated_prefix = kUnbounded;
  }
}

void SchemaShapes::read_contains(const SchemaSite& site, ArrayAtom& atom) {
  const JsonValue* contains = site.find("contains", Draft::draft6);
  if (contains == nullptr) return;
  ContainsRule rule;
  rule.item = condition(*contains, site.scope);
  if (const JsonValue* min = site.find_assertion("minContains", Draft::draft2019)) {
    rule.min = count(site, *min);
  }
  if (const JsonValue* max = site.find_assertion("maxContains", Draft::draft2019)) {
    rule.max = count(site, *max);
  }
  if (rule.min > 0 || rule.max != kUnbounded) atom.contains.push_back(rule);
  if (site.may_use(Draft::draft2020, Draft::draft2020)) atom.evaluated_items.push_back(rule.item);
}

void SchemaShapes::add_array(const SchemaSite& site, bool negated, std::vector<Shape>& groups) {
  ArrayAtom atom;
  read_items(site, atom);
  read_contains(site, atom);
  if (const JsonValue* min = site.find_assertion("minItems")) atom.min_items = count(site, *min);
  if (const JsonValue* max = site.find_assertion("maxItems")) atom.max_items = count(site, *max);
  if (const JsonValue* unique = site.find_assertion("uniqueItems")) atom.unique = unique->boolean;
  if (!algebra_.annotations()) {
    atom.evaluated_prefix = 0;
    atom.evaluated_items.clear();
  }
  if (atom == ArrayAtom{}) return;
  if (negated) {
    negate_array(site, atom, groups);
    return;
  }
  Shape shape = algebra_.everything();
  shape.arrays.clear();
  if (atom.min_items <= atom.max_items) shape.arrays.push_back(std::move(atom));
  groups.push_back(std::move(shape));
}

void SchemaShapes::negate_array(const SchemaSite& site, const ArrayAtom& atom,
                                std::vector<Shape>& groups) {
  Shape shape;
  if (atom.unique) fail_unsupported(site.schema, "uniqueItems cannot be negated");
  const auto add = [&]() -> ArrayAtom& { return shape.arrays.emplace_back(); };
  const auto opposite = [&](Goal goal) {
    // Each place of a single schema asks for one condition, or for nothing that can fail.
    return conditions_.conditions(goal).front().negated();
  };
  if (atom.min_items > 0) add().max_items = atom.min_items - 1;
  if (atom.max_items != kUnbounded) add().min_items = atom.max_items + 1;
  const auto prefix = static_cast<std::uint32_t>(atom.prefix.size());
  for (std::uint32_t i = 0; i < prefix; ++i) {
    if (atom.prefix[i] == kAnyValue) continue;
    ArrayAtom& wrong = add();
    wrong.prefix.resize(i, kAnyValue);
    wrong.prefix.push_back(atom.prefix[i] == kNoValue ? kAnyValue
                                                      : conditions_.goal(opposite(atom.prefix[i])));
    wrong.min_items = i + 1;
  }
  if (atom.rest == kNoValue) {
    add().min_items = prefix + 1;
  } else if (atom.rest != kAnyValue) {
    add().contains.push_back({opposite(atom.rest), prefix, 1, kUnbounded});
  }
  for (const ContainsRule& rule : atom.contains) {
    if (rule.min > 0) add().contains.push_back({rule.item, 0, 0, rule.min - 1});
    if (rule.max != kUnbounded) add().contains.push_back({rule.item, 0, rule.max + 1, kUnbounded});
  }
  groups.push_back(std::move(shape));
}

void SchemaShapes::read_members(const SchemaSite& site, ObjectAtom& atom) {
  NameSet known;
  const auto goal = [&](const JsonValue& schema) {
    return conditions_.goal(condition(schema, site.scope));
  };
  if (const JsonValue* properties = site.find("properties")) {
    if (!properties->is_object()) fail_invalid(site.schema, "properties is no object");
    for (const auto& [name, schema] : properties->members) {
      known.names.push_back(conditions_.name(name));
      atom.rules.push_back({NameSet::one(known.names.back()), goal(schema)});
    }
    std::sort(known.names.begin(), known.names.end());
  }
  if (const JsonValue* patterns = site.find("patternProperties")) {
    if (!patterns->is_object()) fail_invalid(site.schema, "patternProperties is no object");
    for (const auto& [pattern, schema] : patterns->members) {
      const RegexRef names = strings_.pattern(pattern, "json schema: patternProperties");
      atom.rules.push_back({{{}, {names}, false}, goal(schema)});
      known.patterns.push_back(names);
    }
  }
  atom.evaluated.push_back(known);
  if (const JsonValue* others = site.find("additionalProperties")) {
    const Goal value = goal(*others);
    if (value != kAnyValue) atom.rules.push_back({algebra_.inverted(known), value});
    atom.evaluated = {NameSet::all()};
  }
  if (const JsonValue* names = site.find("propertyNames", Draft::draft6)) {
    const RegexRef allowed = of(goal(*names)).string;
    if (allowed != strings_.any()) {
      atom.rules.push_back({{{}, {strings_.complement(allowed)}, false}, kNoValue});
    }
  }
  if (!algebra_.annotations() || (atom.evaluated.front() == NameSet{})) atom.evaluated.clear();
}

void SchemaShapes::add_object(const SchemaSite& site, bool negated, std::vector<Shape>& groups) {
  ObjectAtom atom;
  read_members(site, atom);
  if (const JsonValue* required = site.find_assertion("required")) {
    if (!required->is_array()) fail_invalid(site.schema, "required is no array of names");
    for (const JsonValue& name : required->items) {
      if (!name.is_string()) fail_invalid(site.schema, "required holds no name");
      const MemberNeed need{NameSet::one(conditions_.name(name.string)), kAnyValue};
      if (std::find(atom.needs.begin(), atom.needs.end(), need) == atom.needs.end()) {
        atom.needs.push_back(need);
      }
    }
  }
  if (const JsonValue* min = site.find_assertion("minProperties")) {
    atom.min_members = count(site, *min);
  }
  if (const JsonValue* max = site.find_assertion("maxProperties")) {
    atom.max_members = count(site, *max);
  }
  if (atom == ObjectAtom{}) return;
  if (negated) {
    negate_object(atom, groups);
    return;
  }
  Shape shape = algebra_.everything_but_objects();
  shape.objects.push_back(std::move(atom));
  groups.push_back(std::move(shape));
}

void SchemaShapes::negate_object(const ObjectAtom& atom, std::vector<Shape>& groups) {
  Shape shape;
  const auto add = [&]() -> ObjectAtom& { return shape.objects.emplace_back(); };
  for (const MemberNeed& need : atom.needs) add().rules.push_back({need.names, kNoValue});
  for (const MemberRule& rule : atom.rules) {
    if (rule.value == kAnyValue) continue;
    Goal wrong = kAnyValue;
    if (rule.value != kNoValue) {
      wrong = conditions_.goal(conditions_.conditions(rule.value).front().negated());
    }
    add().needs.push_back({rule.names, wrong});
  }
  if (atom.min_members > 0) add().max_members = atom.min_members - 1;
  if (atom.max_members != kUnbounded) add().min_members = atom.max_members + 1;
  groups.push_back(std::move(shape));
}

}  // namespace specdec::grammar
