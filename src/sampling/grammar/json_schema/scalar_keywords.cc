#include <algorithm>
#include <array>

#include "sampling/grammar/json_schema/formats.h"
#include "sampling/grammar/json_schema/schema_shapes.h"
#include "specdec/error.h"

namespace specdec::grammar {

void SchemaShapes::add_type(const SchemaSite& site, bool negated, std::vector<Shape>& groups) {
  const JsonValue* type = site.find_assertion("type");
  if (type == nullptr) return;
  const Shape all = algebra_.everything();
  Shape shape;
  bool has_number = false;
  const auto add = [&](const JsonValue& name) {
    if (!name.is_string()) fail_invalid(site.schema, "type holds no name of a type");
    const std::string& text = name.string;
    if (text == "null") {
      shape.null = true;
    } else if (text == "boolean") {
      shape.yes = shape.no = true;
    } else if (text == "number") {
      has_number = true;
    } else if (text == "integer") {
      const bool strict = site.resource.draft_named && site.resource.draft == Draft::draft4;
      shape.number = numbers_.integer(!strict);
    } else if (text == "string") {
      shape.string = all.string;
    } else if (text == "array") {
      shape.arrays = all.arrays;
    } else if (text == "object") {
      shape.objects = all.objects;
    } else {
      fail_invalid(site.schema, "type \"" + text + "\" is none of JSON Schema");
    }
  };
  if (type->is_array()) {
    for (const JsonValue& name : type->items) add(name);
  } else {
    add(*type);
  }
  if (has_number) shape.number = all.number;
  if (negated) {
    shape.null = !shape.null;
    shape.yes = shape.no = !shape.yes;
    shape.number = shape.number == pool_.never() ? all.number : numbers_.complement(shape.number);
    shape.string = shape.string == pool_.never() ? all.string : pool_.never();
    shape.arrays = shape.arrays.empty() ? all.arrays : std::vector<ArrayAtom>{};
    shape.objects = shape.objects.empty() ? all.objects : std::vector<ObjectAtom>{};
  }
  groups.push_back(std::move(shape));
}

void SchemaShapes::add_values(const SchemaSite& site, bool negated, std::vector<Shape>& groups) {
  std::vector<const JsonValue*> values;
  if (const JsonValue* list = site.find_assertion("enum")) {
    if (!list->is_array()) fail_invalid(site.schema, "enum is no array");
    for (const JsonValue& value : list->items) values.push_back(&value);
    groups.push_back(values_shape(values, negated));
  }
  if (const JsonValue* value = site.find_assertion("const", Draft::draft6)) {
    groups.push_back(values_shape(std::array{value}, negated));
  }
}

Shape SchemaShapes::values_shape(std::span<const JsonValue* const> values, bool negated) {
  Shape scalars;
  std::vector<std::string_view> strings;
  std::vector<RegexRef> numbers;
  std::vector<Condition> containers;
  for (const JsonValue* value : values) {
    switch (value->kind) {
      case JsonValue::Kind::null:
        scalars.null = true;
        break;
      case JsonValue::Kind::boolean:
        (value->boolean ? scalars.yes : scalars.no) = true;
        break;
      case JsonValue::Kind::number:
        numbers.push_back(numbers_.equal(value->number));
        break;
      case JsonValue::Kind::string:
        strings.push_back(value->string);
        break;
      case JsonValue::Kind::array:
      case JsonValue::Kind::object:
        containers.push_back(conditions_.equals(*value));
        break;
    }
  }
  scalars.number = pool_.any_of(numbers);
  scalars.string = strings_.one_of(strings);
  if (!negated) {
    for (const Condition container : containers) scalars = algebra_.either(scalars, of(container));
    return scalars;
  }
  Shape others = algebra_.everything();
  others.null = !scalars.null;
  others.yes = !scalars.yes;
  others.no = !scalars.no;
  if (!numbers.empty()) others.number = numbers_.complement(scalars.number);
  if (!strings.empty()) others.string = strings_.complement(scalars.string);
  for (const Condition container : containers) {
    others = algebra_.both(others, of(container.negated()));
  }
  return others;
}

Shape SchemaShapes::value_shape(const JsonValue& value, bool negated) {
  if (!value.is_array() && !value.is_object()) return values_shape(std::array{&value}, negated);
  const auto goal = [&](const JsonValue& part, bool opposite) {
    const Condition equals = conditions_.equals(part);
    return conditions_.goal(opposite ? equals.negated() : equals);
  };
  Shape shape;
  if (negated) shape = algebra_.everything();
  if (value.is_array()) {
    const auto size = static_cast<std::uint32_t>(value.items.size());
    if (!negated) {
      ArrayAtom& atom = shape.arrays.emplace_back();
      for (const JsonValue& item : value.items) atom.prefix.push_back(goal(item, false));
      atom.min_items = atom.max_items = size;
      return shape;
    }
    shape.arrays.clear();
    if (size > 0) shape.arrays.emplace_back().max_items = size - 1;
    shape.arrays.emplace_back().min_items = size + 1;
    for (std::uint32_t i = 0; i < size; ++i) {
      ArrayAtom& atom = shape.arrays.emplace_back();
      atom.prefix.resize(i, kAnyValue);
      atom.prefix.push_back(goal(value.items[i], true));
      atom.min_items = i + 1;
    }
    return shape;
  }
  NameSet names;
  for (const auto& [name, member] : value.members) names.names.push_back(conditions_.name(name));
  std::sort(names.names.begin(), names.names.end());
  if (!negated) {
    ObjectAtom& atom = shape.objects.emplace_back();
    for (const auto& [name, member] : value.members) {
      atom.rules.push_back({NameSet::one(conditions_.name(name)), goal(member, false)});
      atom.needs.push_back({NameSet::one(conditions_.name(name)), kAnyValue});
    }
    atom.rules.push_back({algebra_.inverted(names), kNoValue});
    return shape;
  }
  shape.objects.clear();
  shape.objects.emplace_back().needs.push_back({algebra_.inverted(names), kAnyValue});
  for (const auto& [name, member] : value.members) {
    shape.objects.emplace_back().rules.push_back({NameSet::one(conditions_.name(name)), kNoValue});
    shape.objects.emplace_back().needs.push_back(
        {NameSet::one(conditions_.name(name)), goal(member, true)});
  }
  return shape;
}

void SchemaShapes::add_numbers(const SchemaSite& site, bool negated, std::vector<Shape>& groups) {
  std::vector<RegexRef> parts;
  const auto number = [&](const char* keyword) -> const JsonValue* {
    const JsonValue* value = site.find_assertion(keyword);
    if (value != nullptr && !value->is_number()) {
      fail_invalid(site.schema, std::string(keyword) + " is no number");
    }
    return value;
  };
  // Draft 4's exclusive forms are booleans beside the bound.
  const auto add_bound = [&](const char* inclusive, const char* exclusive, bool upper) {
    const auto add = [&](const JsonValue& bound, bool or_equal) {
      parts.push_back(upper ? numbers_.less(bound.number, or_equal)
                            : numbers_.greater(bound.number, or_equal));
    };
    const JsonValue* strict = site.find_assertion(exclusive);
    if (strict != nullptr && strict->is_number()) {
      if (site.may_use(Draft::draft6, Draft::draft2020)) add(*strict, false);
    } else if (strict != nullptr && !strict->is_boolean()) {
      fail_invalid(site.schema, std::string(exclusive) + " is no number");
    }
    if (const JsonValue* bound = number(inclusive)) {
      add(*bound, strict == nullptr || !strict->is_boolean() || !strict->boolean);
    }
  };
  add_bound("minimum", "exclusiveMinimum", false);
  add_bound("maximum", "exclusiveMaximum", true);
  if (const JsonValue* divisor = number("multipleOf")) {
    if (divisor->number.is_zero() || divisor->number.negative) {
      fail_invalid(site.schema, "multipleOf is not above 0");
    }
    parts.push_back(numbers_.multiple_of(divisor->number));
  }
  if (parts.empty()) return;
  const RegexRef numbers = pool_.all_of(parts);
  Shape shape;
  if (!negated) shape = algebra_.everything();
  shape.number = negated ? numbers_.complement(numbers) : numbers;
  groups.push_back(std::move(shape));
}

void SchemaShapes::add_strings(const SchemaSite& site, bool negated, std::vector<Shape>& groups) {
  std::vector<RegexRef> parts;
  bool narrowed = false;
  const JsonValue* min = site.find_assertion("minLength");
  const JsonValue* max = site.find_assertion("maxLength");
  if (min != nullptr || max != nullptr) {
    const std::uint32_t least = min == nullptr ? 0 : count(site, *min);
    std::optional<std::uint32_t> most;
    if (max != nullptr) most = count(site, *max);
    parts.push_back(most.has_value() && *most < least ? pool_.never()
                                                      : strings_.length(least, most));
  }
  if (const JsonValue* pattern = site.find_assertion("pattern")) {
    if (!pattern->is_string()) fail_invalid(site.schema, "pattern is no string");
    parts.push_back(strings_.pattern(pattern->string, "json schema: pattern"));
  }
  if (const JsonValue* format = site.find("format")) {
    if (!format->is_string()) fail_invalid(site.schema, "format is no string");
    const std::string note = "format \"" + format->string + "\"";
    if (!assert_formats_ && !site.resource.asserts_formats) {
      unenforced_.insert(note + ": formats are annotations here");
    } else if (const auto known = format_language(strings_, pool_, format->string)) {
      if (known->least != known->most) {
        narrowed = true;
        unenforced_.insert(note + ": some strings that have it are refused");
      }
      parts.push_back(negated ? known->most : known->least);
    } else {
      unenforced_.insert(note + ": not known, so an annotation");
    }
  }
  for (const char* keyword : {"contentEncoding", "contentMediaType", "contentSchema"}) {
    if (site.find(keyword, Draft::draft7) != nullptr) {
      unenforced_.insert(std::string(keyword) + ": an annotation");
    }
  }
  if (parts.empty()) return;
  const RegexRef strings = pool_.all_of(parts);
  Shape shape;
  if (!negated) shape = algebra_.everything();
  shape.narrowed = narrowed;
  shape.string = negated ? strings_.complement(strings) : strings;
  groups.push_back(std::move(shape));
}

}  // namespace specdec::grammar
