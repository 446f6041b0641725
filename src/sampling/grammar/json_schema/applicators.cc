#include <algorithm>
#include <array>

#include "sampling/grammar/json_schema/schema_shapes.h"
#include "sampling/mutation.h"
#include "specdec/error.h"

namespace specdec::grammar {
namespace {

/// With annotations, so many alternatives of an anyOf are combined in every way.
constexpr std::size_t kMostCombined = 6;

}  // namespace

void SchemaShapes::add_references(const SchemaSite& site, bool negated,
                                  std::vector<Shape>& groups) {
  const auto add = [&](Condition target) {
    groups.push_back(of(negated ? target.negated() : target));
  };
  const auto text = [&](const JsonValue& value) -> const std::string& {
    if (!value.is_string()) fail_invalid(site.schema, "a reference that is no string");
    return value.string;
  };
  if (const JsonValue* reference = site.find("$ref")) {
    add(condition(documents_.resolve(site.schema, text(*reference)), site.scope));
  }
  if (const JsonValue* reference = site.find("$dynamicRef", Draft::draft2020)) {
    add(dynamic_target(site, text(*reference)));
  }
  if (site.find("$recursiveRef", Draft::draft2019, Draft::draft2019) != nullptr) {
    const SchemaResource& resource = documents_.resource_of(site.schema);
    const JsonValue* target = resource.root;
    if (resource.recursive_anchor) {
      const DynamicScope& scope = conditions_.scope(site.scope);
      const auto outermost = scope.find("");
      if (outermost != scope.end()) target = outermost->second;
    }
    add(condition(*target, site.scope));
  }
}

Condition SchemaShapes::dynamic_target(const SchemaSite& site, const std::string& reference) {
  std::optional<std::string> anchor;
  const JsonValue* target = &documents_.resolve(site.schema, reference, anchor);
  if (anchor.has_value()) {
    const DynamicScope& scope = conditions_.scope(site.scope);
    const auto outermost = scope.find(*anchor);
    if (outermost != scope.end()) target = outermost->second;
  }
  return condition(*target, site.scope);
}

SchemaShapes::Applied SchemaShapes::applied(Condition condition) {
  Applied result;
  const ConditionTable::Entry entry = conditions_.entry(condition);
  if (!entry.is_schema || !entry.value->is_object()) return result;
  const SchemaSite site{*entry.value, documents_.resource_of(*entry.value), entry.scope};
  const JsonValue* reference = site.find("$ref");
  if (reference != nullptr && reference->is_string()) {
    result.all.push_back(
        this->condition(documents_.resolve(site.schema, reference->string), site.scope));
    if (site.resource.draft <= Draft::draft7) return result;
  }
  const JsonValue* values = site.find_assertion("enum");
  if (values != nullptr && values->is_array()) result.values = values;
  const auto add = [&](const char* keyword, std::vector<Condition>& to) {
    const JsonValue* schemas = site.find(keyword);
    if (schemas != nullptr && to.empty()) to = list(site, *schemas);
  };
  add("allOf", result.all);
  add("anyOf", result.any);
  add("oneOf", result.any);
  return result;
}

Shape SchemaShapes::one_of(std::span<const Condition> options, bool negated) {
  Shape shape;
  if (negated) {
    std::vector<Condition> none;
    for (const Condition option : options) none.push_back(option.negated());
    shape = all_of(none);
    for (std::size_t i = 0; i < options.size(); ++i) {
      for (std::size_t j = 0; j < i; ++j) {
        shape = algebra_.either(shape, algebra_.both(of(options[i]), of(options[j])));
      }
    }
    return shape;
  }
  for (std::size_t i = 0; i < options.size(); ++i) {
    Shape only = of(options[i]);
    for (std::size_t j = 0; j < options.size(); ++j) {
      if (i == j) continue;
      const Goal together =
          conditions_.both(conditions_.goal(options[i]), conditions_.goal(options[j]));
      if (!surely_empty(together) && !mutant_active("schema_one_of_is_any_of"))
        only = algebra_.both(only, of(options[j].negated()));
    }
    shape = algebra_.either(shape, only);
  }
  return shape;
}

void SchemaShapes::add_applicators(const SchemaSite& site, bool negated,
                                   std::vector<Shape>& groups) {
  const auto opposite = [](std::vector<Condition> conditions) {
    for (Condition& condition : conditions) condition = condition.negated();
    return conditions;
  };
  if (const JsonValue* schemas = site.find("allOf")) {
    const std::vector<Condition> all = list(site, *schemas);
    groups.push_back(negated ? any_of(opposite(all)) : all_of(all));
  }
  if (const JsonValue* schemas = site.find("anyOf")) {
    const std::vector<Condition> options = list(site, *schemas);
    if (negated) {
      groups.push_back(all_of(opposite(options)));
    } else if (algebra_.annotations() && options.size() <= kMostCombined) {
      // What each alternative evaluates counts, so those that hold together are an alternative.
      Shape shape;
      for (std::size_t set = 1; set < std::size_t{1} << options.size(); ++set) {
        std::vector<Condition> together;
        for (std::size_t i = 0; i < options.size(); ++i) {
          if ((set >> i & 1) != 0) together.push_back(options[i]);
        }
        shape = algebra_.either(shape, all_of(together));
      }
      groups.push_back(std::move(shape));
    } else {
      groups.push_back(any_of(options));
    }
  }
  if (const JsonValue* schemas = site.find("oneOf")) {
    groups.push_back(one_of(list(site, *schemas), negated));
  }
  if (const JsonValue* schema = site.find("not")) {
    const Condition refused = condition(*schema, site.scope);
    groups.push_back(of(negated ? refused : refused.negated()));
  }
  if (const JsonValue* schema = site.find("if", Draft::draft7)) {
    const JsonValue* then = site.find("then", Draft::draft7);
    const JsonValue* otherwise = site.find("else", Draft::draft7);
    const Condition test = condition(*schema, site.scope);
    const auto branch = [&](Condition guard, const JsonValue* consequence) {
      if (consequence == nullptr) return negated ? Shape{} : of(guard);
      const Condition next = condition(*consequence, site.scope);
      return algebra_.both(of(guard), of(negated ? next.negated() : next));
    };
    if (then != nullptr || otherwise != nullptr || algebra_.annotations()) {
      groups.push_back(algebra_.either(branch(test, then), branch(test.negated(), otherwise)));
    }
  }
}

void SchemaShapes::add_dependencies(const SchemaSite& site, bool negated,
                                    std::vector<Shape>& groups) {
  // "Where the member is, ...": either it is not, or the rest holds.
  const auto add = [&](const std::string& name, const Shape& consequence) {
    Shape present;
    present.objects.emplace_back().needs.push_back(
        {NameSet::one(conditions_.name(name)), kAnyValue});
    present = algebra_.both(present, consequence);
    if (!negated) {
      Shape absent = algebra_.everything_but_objects();
      absent.objects.emplace_back().rules.push_back(
          {NameSet::one(conditions_.name(name)), kNoValue});
      present = algebra_.either(absent, present);
    }
    groups.push_back(std::move(present));
  };
  const auto add_names = [&](const std::string& name, const JsonValue& names) {
    Shape consequence;
    if (!names.is_array()) fail_invalid(site.schema, "a dependency that is no array of names");
    if (!negated) consequence.objects.emplace_back();
    for (const JsonValue& other : names.items) {
      if (!other.is_string()) fail_invalid(site.schema, "a dependency that is no name");
      if (negated) {
        consequence.objects.emplace_back().rules.push_back(
            {NameSet::one(conditions_.name(other.string)), kNoValue});
      } else {
        consequence.objects.front().needs.push_back(
            {NameSet::one(conditions_.name(other.string)), kAnyValue});
      }
    }
    add(name, consequence);
  };
  const auto add_schema = [&](const std::string& name, const JsonValue& schema) {
    const Condition target = condition(schema, site.scope);
    add(name, of(negated ? target.negated() : target));
  };
  if (const JsonValue* map = site.find_assertion("dependentRequired", Draft::draft2019)) {
    for (const auto& [name, names] : map->members) add_names(name, names);
  }
  if (const JsonValue* map = site.find("dependentSchemas", Draft::draft2019)) {
    for (const auto& [name, schema] : map->members) add_schema(name, schema);
  }
  if (const JsonValue* map = site.find("dependencies", Draft::draft4, Draft::draft7)) {
    for (const auto& [name, value] : map->members) {
      if (value.is_object() || value.is_boolean()) {
        add_schema(name, value);
      } else {
        add_names(name, value);
      }
    }
  }
}

}  // namespace specdec::grammar
