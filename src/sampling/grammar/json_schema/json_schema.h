#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "sampling/grammar/grammar_spec.h"
#include "sampling/grammar/json_schema/json_value.h"
#include "sampling/grammar/json_schema/schema_document.h"

namespace specdec::grammar {

/// Blanks, tabs and line breaks around JSON's punctuation.
enum class JsonWhitespace : std::uint8_t {
  none,    ///< {"a":1}
  single,  ///< {"a": 1, "b": 2}: one blank after ',' and ':', or none
  any,     ///< as JSON allows
};

struct JsonSchemaOptions {
  /// Of schemas that name none in $schema. Without it they may use the keywords of all drafts.
  std::optional<Draft> draft;
  /// Whether `format` is checked. The drafts leave it open; without it, formats are annotations.
  bool assert_formats = true;
  JsonWhitespace whitespace = JsonWhitespace::any;
  /// Members in the schema's order only, others last: fewer choices, so more forced text.
  bool schema_order = false;
  /// Schemas that $ref may name by URI.
  SchemaLoader loader;
  JsonLimits limits;
};

/// A schema's values as a grammar over JSON texts.
struct JsonSchemaGrammar {
  GrammarSpec spec;
  /// What the schema says and the grammar does not enforce, a sentence each.
  std::vector<std::string> unenforced;
};

/// Compiles a JSON Schema (draft 4 to 2020-12). No text of the grammar is a value that the schema
/// refuses, except as `unenforced` says. Throws Error(invalid_argument) for what is no schema, is
/// past a limit, or admits no value at all; Error(unsupported) for what a grammar cannot enforce.
/// Both name the place. Thread-safe.
JsonSchemaGrammar compile_json_schema(std::string_view schema,
                                      const JsonSchemaOptions& options = {},
                                      const GrammarLimits& limits = {});

/// Any JSON value, as compile_json_schema("true").
JsonSchemaGrammar compile_any_json(const JsonSchemaOptions& options = {},
                                   const GrammarLimits& limits = {});

}  // namespace specdec::grammar
