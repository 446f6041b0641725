#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "sampling/grammar/json_schema/json_value.h"

namespace specdec::grammar {

/// In order of publication.
enum class Draft : std::uint8_t { draft4, draft6, draft7, draft2019, draft2020 };

/// The text of a schema that a $ref names by its absolute URI, or nothing.
using SchemaLoader = std::function<std::optional<std::string>(const std::string& uri)>;

/// A schema with a URI of its own: a document, or a part of one that has an $id.
struct SchemaResource {
  std::string uri;
  Draft draft = Draft::draft2020;
  bool draft_named = false;       ///< by $schema; else other drafts' keywords are understood too
  bool validates = true;          ///< its metaschema has the validation vocabulary
  bool asserts_formats = false;   ///< its metaschema demands it
  bool recursive_anchor = false;  ///< $recursiveAnchor (2019-09)
  const JsonValue* root = nullptr;
  std::map<std::string, const JsonValue*, std::less<>> anchors;
  std::map<std::string, const JsonValue*, std::less<>> dynamic_anchors;
};

/// The schemas of a compilation and the references between them.
class SchemaDocuments {
 public:
  SchemaDocuments(JsonValue root, std::optional<Draft> draft, SchemaLoader loader);

  const JsonValue& root() const noexcept { return *documents_.front(); }
  /// `schema` is a schema that was indexed or that resolve() has returned.
  const SchemaResource& resource_of(const JsonValue& schema) const {
    return resources_[resource_ids_.at(&schema)];
  }
  std::uint32_t resource_id_of(const JsonValue& schema) const { return resource_ids_.at(&schema); }
  const SchemaResource& resource(std::uint32_t id) const { return resources_[id]; }

  /// The schema that `reference`, standing in `from`, names. Throws Error(invalid_argument) when
  /// there is none, Error(unsupported) when it is remote and the loader does not know it.
  const JsonValue& resolve(const JsonValue& from, std::string_view reference);
  /// As resolve(); also tells whether the fragment is a $dynamicAnchor there, and its name.
  const JsonValue& resolve(const JsonValue& from, std::string_view reference,
                           std::optional<std::string>& dynamic_anchor);
  /// Does any document use unevaluatedProperties or unevaluatedItems?
  bool has_unevaluated() const noexcept { return has_unevaluated_; }
  /// What numbers there are in the schemas, for NumberLanguage::Exponents.
  bool has_huge_number() const noexcept { return has_huge_number_; }
  bool has_tiny_number() const noexcept { return has_tiny_number_; }

 private:
  void add_document(JsonValue root, const std::string& uri, const SchemaResource& parent);
  std::uint32_t add_resource(const JsonValue& schema, const std::string& uri,
                             const SchemaResource& parent);
  void read_dialect(const std::string& uri, SchemaResource& resource, int depth = 0);
  std::optional<JsonValue> load(const std::string& uri) const;
  std::uint32_t find_resource(const std::string& uri, const SchemaResource& parent,
                              std::string_view reference);
  void index(const JsonValue& schema, std::uint32_t resource);
  void index_members(const JsonValue& map, std::uint32_t resource);
  void survey(const JsonValue& value);
  void survey_numbers(const JsonValue& value);
  const JsonValue& follow_pointer(std::uint32_t resource, std::string_view pointer,
                                  std::string_view reference);

  SchemaLoader loader_;
  std::optional<Draft> default_draft_;
  std::vector<std::unique_ptr<JsonValue>> documents_;
  std::deque<SchemaResource> resources_;
  std::map<std::string, std::uint32_t, std::less<>> resource_by_uri_;
  std::unordered_map<const JsonValue*, std::uint32_t> resource_ids_;
  bool has_unevaluated_ = false;
  bool has_huge_number_ = false;
  bool has_tiny_number_ = false;
};

}  // namespace specdec::grammar
