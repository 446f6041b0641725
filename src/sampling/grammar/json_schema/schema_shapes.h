#pragma once

#include <deque>
#include <memory>
#include <set>
#include <span>
#include <string>
#include <unordered_map>
#include <vector>

#include "sampling/grammar/json_schema/schema_document.h"
#include "sampling/grammar/json_schema/shape_algebra.h"

namespace specdec::grammar {

/// A schema object where a keyword reader finds it.
struct SchemaSite {
  const JsonValue& schema;
  const SchemaResource& resource;
  std::uint32_t scope;

  /// A keyword of these drafts, or of a schema that names none.
  const JsonValue* find(const char* keyword, Draft first = Draft::draft4,
                        Draft last = Draft::draft2020) const;
  /// As find(), of the validation vocabulary.
  const JsonValue* find_assertion(const char* keyword, Draft first = Draft::draft4,
                                  Draft last = Draft::draft2020) const;
  bool may_use(Draft first, Draft last) const;
};

/// What a condition or a goal asks, as shapes; each is worked out once, when it is first asked for.
///
/// A schema is a conjunction of groups: keywords of one kind of value together, and each keyword
/// that applies other schemas to the same value. Its negation is the union of the groups'
/// negations. Throws Error(unsupported) where a set has no exact description (uniqueItems of
/// endlessly many values is left to the planner, which knows the items).
class SchemaShapes {
 public:
  SchemaShapes(SchemaDocuments& documents, ConditionTable& conditions, RegexPool& pool,
               StringLanguage& strings, NumberLanguage& numbers, ShapeAlgebra& algebra,
               bool assert_formats);

  const Shape& of(Condition condition);
  const Shape& of(Goal goal);
  /// Is there surely no value that meets it? False where that was not found out cheaply.
  bool surely_empty(Goal goal) { return surely_empty(goal, 0); }

  Condition condition(const JsonValue& schema, std::uint32_t scope);
  /// What else a schema applies to the same value: all of some conditions, one of others.
  struct Applied {
    const JsonValue* values = nullptr;  ///< of its enum
    std::vector<Condition> all;
    std::vector<Condition> any;
  };
  Applied applied(Condition condition);

  /// Keywords that were seen and mean nothing to the grammar, with the reason.
  const std::set<std::string>& unenforced() const noexcept { return unenforced_; }

  [[noreturn]] void fail_invalid(const JsonValue& schema, const std::string& what) const;
  [[noreturn]] void fail_unsupported(const JsonValue& schema, const std::string& what) const;

 private:
  Shape shape_of(Condition condition);
  Shape all_of(std::span<const Condition> conditions);
  Shape any_of(std::span<const Condition> conditions);
  Shape schema_shape(const SchemaSite& site, bool negated);
  /// The groups of the schema, or their negations.
  std::vector<Shape> groups(const SchemaSite& site, bool negated);
  void add_unevaluated(const SchemaSite& site, Shape& shape);

  // scalar_keywords.cc: no value where the schema has no such keyword.
  void add_type(const SchemaSite& site, bool negated, std::vector<Shape>& groups);
  void add_values(const SchemaSite& site, bool negated, std::vector<Shape>& groups);
  void add_numbers(const SchemaSite& site, bool negated, std::vector<Shape>& groups);
  void add_strings(const SchemaSite& site, bool negated, std::vector<Shape>& groups);
  Shape values_shape(std::span<const JsonValue* const> values, bool negated);
  Shape value_shape(const JsonValue& value, bool negated);

  // container_keywords.cc
  void add_array(const SchemaSite& site, bool negated, std::vector<Shape>& groups);
  void add_object(const SchemaSite& site, bool negated, std::vector<Shape>& groups);
  void negate_array(const SchemaSite& site, const ArrayAtom& atom, std::vector<Shape>& groups);
  void negate_object(const ObjectAtom& atom, std::vector<Shape>& groups);
  void read_items(const SchemaSite& site, ArrayAtom& atom);
  void read_contains(const SchemaSite& site, ArrayAtom& atom);
  void read_members(const SchemaSite& site, ObjectAtom& atom);

  // applicators.cc
  void add_references(const SchemaSite& site, bool negated, std::vector<Shape>& groups);
  void add_applicators(const SchemaSite& site, bool negated, std::vector<Shape>& groups);
  void add_dependencies(const SchemaSite& site, bool negated, std::vector<Shape>& groups);
  Shape one_of(std::span<const Condition> options, bool negated);
  Condition dynamic_target(const SchemaSite& site, const std::string& reference);

  std::vector<Condition> list(const SchemaSite& site, const JsonValue& schemas);
  std::uint32_t count(const SchemaSite& site, const JsonValue& value) const;
  bool surely_empty(Goal goal, int depth);
  bool surely_empty(const ObjectAtom& atom, int depth);
  bool surely_empty(const ArrayAtom& atom, int depth);
  bool surely_implies(const ObjectAtom& a, const ObjectAtom& b);
  bool is_never(RegexRef regex);

  SchemaDocuments& documents_;
  ConditionTable& conditions_;
  RegexPool& pool_;
  StringLanguage& strings_;
  NumberLanguage& numbers_;
  ShapeAlgebra& algebra_;
  bool assert_formats_;
  std::unordered_map<std::uint32_t, std::unique_ptr<Shape>> by_condition_;  // null: under way
  std::unordered_map<std::uint32_t, std::unique_ptr<Shape>> by_goal_;
  std::unordered_map<std::uint32_t, bool> empty_goals_;
  std::set<std::string> unenforced_;
  int depth_ = 0;
};

}  // namespace specdec::grammar
