#include "sampling/grammar/json_schema/schema_document.h"

#include <algorithm>
#include <array>
#include <utility>

#include "sampling/grammar/json_schema/metaschemas.h"
#include "sampling/grammar/json_schema/uri.h"
#include "specdec/error.h"

namespace specdec::grammar {
namespace {

constexpr std::size_t kMostDocuments = 256;

// Keywords whose value is a schema, an array of schemas, or an object of schemas. `items` is the
// first or the second, the values of `dependencies` may be arrays of names.
constexpr std::array kSchemaKeywords = {"additionalProperties",
                                        "propertyNames",
                                        "items",
                                        "additionalItems",
                                        "contains",
                                        "not",
                                        "if",
                                        "then",
                                        "else",
                                        "unevaluatedProperties",
                                        "unevaluatedItems",
                                        "contentSchema"};
// Keywords whose numbers are compared to those of a value.
constexpr std::array<std::string_view, 7> kComparing = {
    "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf", "enum", "const"};
constexpr std::array kListKeywords = {"allOf", "anyOf", "oneOf", "prefixItems", "items"};
constexpr std::array kMapKeywords = {"properties", "patternProperties", "definitions",
                                     "$defs",      "dependencies",      "dependentSchemas"};

bool is_schema(const JsonValue& value) { return value.is_object() || value.is_boolean(); }

const std::string* string_member(const JsonValue& value, std::string_view name) {
  const JsonValue* member = value.find(name);
  return member != nullptr && member->is_string() ? &member->string : nullptr;
}

std::optional<Draft> draft_of(std::string_view uri) {
  constexpr std::pair<std::string_view, Draft> kNames[] = {
      {"json-schema.org/draft-04/", Draft::draft4},
      {"json-schema.org/draft-06/", Draft::draft6},
      {"json-schema.org/draft-07/", Draft::draft7},
      {"json-schema.org/draft/2019-09/", Draft::draft2019},
      {"json-schema.org/draft/2020-12/", Draft::draft2020}};
  for (const auto& [name, draft] : kNames) {
    if (uri.find(name) != std::string_view::npos) return draft;
  }
  return std::nullopt;
}

/// RFC 6901's reference tokens: "~1" is '/', "~0" is '~'.
std::string unescape_token(std::string_view token) {
  std::string result;
  for (std::size_t at = 0; at < token.size(); ++at) {
    if (token[at] == '~' && at + 1 < token.size() &&
        (token[at + 1] == '0' || token[at + 1] == '1')) {
      result += token[++at] == '0' ? '~' : '/';
    } else {
      result += token[at];
    }
  }
  return result;
}

const JsonValue* child(const JsonValue& value, const std::string& token) {
  if (value.is_object()) return value.find(token);
  if (!value.is_array() || token.empty() || token.size() > 9 ||
      token.find_first_not_of("0123456789") != std::string::npos) {
    return nullptr;
  }
  const auto at = static_cast<std::size_t>(std::stoul(token));
  return at < value.items.size() ? &value.items[at] : nullptr;
}

}  // namespace

SchemaDocuments::SchemaDocuments(JsonValue root, std::optional<Draft> draft, SchemaLoader loader)
    : loader_(std::move(loader)) {
  SchemaResource outside;
  if (draft.has_value()) {
    outside.draft = *draft;
    outside.draft_named = true;
  }
  add_document(std::move(root), "", outside);
}

void SchemaDocuments::add_document(JsonValue root, const std::string& uri,
                                   const SchemaResource& parent) {
  if (documents_.size() >= kMostDocuments) {
    throw Error(ErrorCode::invalid_argument, "json schema: more documents than the limit");
  }
  documents_.push_back(std::make_unique<JsonValue>(std::move(root)));
  const JsonValue& document = *documents_.back();
  survey(document);
  SchemaResource outside;
  outside.uri = uri;
  outside.draft = parent.draft;
  outside.draft_named = parent.draft_named;
  const std::uint32_t resource = add_resource(document, uri, outside);
  index(document, resource);
}

std::uint32_t SchemaDocuments::add_resource(const JsonValue& schema, const std::string& uri,
                                            const SchemaResource& parent) {
  const auto id = static_cast<std::uint32_t>(resources_.size());
  SchemaResource resource;
  resource.uri = uri;
  resource.root = &schema;
  resource.draft = parent.draft;
  resource.draft_named = parent.draft_named;
  resource.validates = parent.validates;
  resource.asserts_formats = parent.asserts_formats;
  if (const std::string* dialect = string_member(schema, "$schema")) {
    read_dialect(*dialect, resource);
  }
  if (const JsonValue* anchor = schema.find("$recursiveAnchor")) {
    resource.recursive_anchor = anchor->boolean;
  }
  resources_.push_back(std::move(resource));
  resource_by_uri_.emplace(uri, id);
  return id;
}

void SchemaDocuments::read_dialect(const std::string& uri, SchemaResource& resource, int depth) {
  if (const auto draft = draft_of(uri)) {
    resource.draft = *draft;
    resource.draft_named = true;
    return;
  }
  // A metaschema of somebody's own: its vocabularies say which keywords mean anything.
  const std::optional<JsonValue> metaschema = load(split_fragment(uri).resource);
  if (!metaschema.has_value() || depth > 8) return;
  if (const std::string* dialect = string_member(*metaschema, "$schema")) {
    read_dialect(*dialect, resource, depth + 1);
  }
  const JsonValue* vocabulary = metaschema->find("$vocabulary");
  if (vocabulary == nullptr || !vocabulary->is_object()) return;
  resource.validates = false;
  for (const auto& [name, required] : vocabulary->members) {
    if (name.ends_with("/vocab/validation")) resource.validates = true;
    if (name.ends_with("/vocab/format-assertion")) resource.asserts_formats = true;
  }
}

std::optional<JsonValue> SchemaDocuments::load(const std::string& uri) const {
  if (loader_) {
    if (const std::optional<std::string> text = loader_(uri)) return parse_json_value(*text, uri);
  }
  if (const auto text = find_metaschema(uri)) return parse_json_value(*text, uri);
  return std::nullopt;
}

void SchemaDocuments::survey_numbers(const JsonValue& value) {
  if (value.is_number() && !value.number.is_zero()) {
    if (value.number.magnitude() >= 16) has_huge_number_ = true;
    if (value.number.magnitude() < -4) has_tiny_number_ = true;
  }
  for (const JsonValue& item : value.items) survey_numbers(item);
  for (const auto& [name, member] : value.members) survey_numbers(member);
}

void SchemaDocuments::survey(const JsonValue& value) {
  for (const JsonValue& item : value.items) survey(item);
  for (const auto& [name, member] : value.members) {
    if (name == "unevaluatedProperties" || name == "unevaluatedItems") has_unevaluated_ = true;
    if (name == "multipleOf" && member.is_number() && member.number != Decimal::of(1)) {
      has_huge_number_ = true;
    }
    const bool compares = std::find(kComparing.begin(), kComparing.end(), name) != kComparing.end();
    if (compares) survey_numbers(member);
    survey(member);
  }
}

void SchemaDocuments::index_members(const JsonValue& map, std::uint32_t resource) {
  for (const auto& [name, value] : map.members) index(value, resource);
}

void SchemaDocuments::index(const JsonValue& schema, std::uint32_t resource) {
  if (!is_schema(schema) || resource_ids_.contains(&schema)) return;
  const Draft draft = resources_[resource].draft;
  const bool alone = draft <= Draft::draft7 && schema.find("$ref") != nullptr;
  const std::string* id = string_member(schema, draft == Draft::draft4 ? "id" : "$id");
  if (id == nullptr && !resources_[resource].draft_named) id = string_member(schema, "id");
  if (id != nullptr && !alone) {
    if (id->starts_with('#')) {
      resources_[resource].anchors.emplace(id->substr(1), &schema);
    } else {
      const SplitUri uri = split_fragment(resolve_uri(resources_[resource].uri, *id));
      if (resources_[resource].root == &schema) {
        resources_[resource].uri = uri.resource;
        resource_by_uri_.emplace(uri.resource, resource);
      } else {
        resource = add_resource(schema, uri.resource, resources_[resource]);
      }
    }
  }
  resource_ids_.emplace(&schema, resource);
  if (const std::string* anchor = string_member(schema, "$anchor")) {
    resources_[resource].anchors.emplace(*anchor, &schema);
  }
  if (const std::string* anchor = string_member(schema, "$dynamicAnchor")) {
    resources_[resource].dynamic_anchors.emplace(*anchor, &schema);
  }
  for (const char* keyword : kSchemaKeywords) {
    if (const JsonValue* value = schema.find(keyword)) index(*value, resource);
  }
  for (const char* keyword : kListKeywords) {
    const JsonValue* value = schema.find(keyword);
    if (value == nullptr || !value->is_array()) continue;
    for (const JsonValue& item : value->items) index(item, resource);
  }
  for (const char* keyword : kMapKeywords) {
    const JsonValue* value = schema.find(keyword);
    if (value != nullptr && value->is_object()) index_members(*value, resource);
  }
}

std::uint32_t SchemaDocuments::find_resource(const std::string& uri, const SchemaResource& parent,
                                             std::string_view reference) {
  const auto known = resource_by_uri_.find(uri);
  if (known != resource_by_uri_.end()) return known->second;
  std::optional<JsonValue> document = load(uri);
  if (!document.has_value()) {
    throw Error(ErrorCode::unsupported, "json schema: $ref \"" + std::string(reference) +
                                            "\" names <" + uri + ">, which was not given");
  }
  const auto resource = static_cast<std::uint32_t>(resources_.size());
  add_document(std::move(*document), uri, parent);
  return resource;
}

const JsonValue& SchemaDocuments::follow_pointer(std::uint32_t resource, std::string_view pointer,
                                                 std::string_view reference) {
  const JsonValue* at = resources_[resource].root;
  while (!pointer.empty()) {
    pointer.remove_prefix(1);
    const std::size_t end = std::min(pointer.find('/'), pointer.size());
    at = child(*at, unescape_token(pointer.substr(0, end)));
    pointer.remove_prefix(end);
    if (at == nullptr) break;
    const auto known = resource_ids_.find(at);
    if (known != resource_ids_.end()) resource = known->second;
  }
  if (at == nullptr || !is_schema(*at)) {
    throw Error(ErrorCode::invalid_argument,
                "json schema: $ref \"" + std::string(reference) + "\" leads to no schema");
  }
  index(*at, resource);
  return *at;
}

const JsonValue& SchemaDocuments::resolve(const JsonValue& from, std::string_view reference) {
  std::optional<std::string> anchor;
  return resolve(from, reference, anchor);
}

const JsonValue& SchemaDocuments::resolve(const JsonValue& from, std::string_view reference,
                                          std::optional<std::string>& dynamic_anchor) {
  const SchemaResource& base = resource_of(from);
  const SplitUri uri = split_fragment(resolve_uri(base.uri, reference));
  const std::uint32_t resource = find_resource(uri.resource, base, reference);
  if (uri.fragment.empty() || uri.fragment.starts_with('/')) {
    return follow_pointer(resource, uri.fragment, reference);
  }
  const SchemaResource& target = resources_[resource];
  const auto fixed = target.anchors.find(uri.fragment);
  if (fixed != target.anchors.end()) return *fixed->second;
  const auto dynamic = target.dynamic_anchors.find(uri.fragment);
  if (dynamic == target.dynamic_anchors.end()) {
    throw Error(ErrorCode::invalid_argument, "json schema: $ref \"" + std::string(reference) +
                                                 "\" names an anchor that is not there");
  }
  dynamic_anchor = uri.fragment;
  return *dynamic->second;
}

}  // namespace specdec::grammar
