#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "sampling/grammar/grammar_spec.h"
#include "sampling/grammar/json_schema/json_value.h"
#include "sampling/grammar/json_schema/schema_document.h"
#include "specdec/error.h"

namespace specdec::grammar {

/// Blanks, tabs and line breaks around JSON's punctuation.
enum class JsonWhitespace : std::uint8_t {
  none,    ///< {"a":1}
  single,  ///< {"a": 1, "b": 2}: one blank after ',' and ':', or none
  any,     ///< as JSON allows
};

struct JsonSchemaOptions {
  /// Of schemas that name none in $schema. Without it they may use the keywords of all drafts.
  std::optional<Draft> draft = {};
  /// Whether `format` is checked. The drafts leave it open; without it, formats are annotations.
  bool assert_formats = true;
  JsonWhitespace whitespace = JsonWhitespace::any;
  /// Members in the schema's order only, others last: fewer choices, so more forced text.
  bool schema_order = false;
  /// What no grammar can enforce (uniqueItems of endlessly many values): an error, or, without
  /// `strict`, only listed.
  bool strict = true;
  /// Schemas that $ref may name by URI.
  SchemaLoader loader = {};
  JsonLimits limits = {};
};

/// No value meets the schema.
class UnsatisfiableSchema : public Error {
 public:
  UnsatisfiableSchema()
      : Error(ErrorCode::invalid_argument, "json schema: it admits no value at all") {}
};

/// A JSON Schema (draft 4 to 2020-12) as a symbol of a grammar over JSON texts. What the schema
/// says and the grammar does not enforce, or enforces too strictly, is added to `unenforced`, a
/// sentence each. Apart from that, no text of the symbol is a value that the schema refuses.
///
/// Throws UnsatisfiableSchema; Error(invalid_argument) for what is no schema or is past a limit;
/// Error(unsupported) for what a grammar cannot enforce. Both name the place.
Symbol add_json_schema(GrammarSpec& spec, std::string_view schema, const JsonSchemaOptions& options,
                       std::vector<std::string>& unenforced);

/// A whole grammar of a schema.
struct JsonSchemaGrammar {
  GrammarSpec spec;
  std::vector<std::string> unenforced;
};
JsonSchemaGrammar compile_json_schema(std::string_view schema,
                                      const JsonSchemaOptions& options = {},
                                      const GrammarLimits& limits = {});
/// Any JSON value.
JsonSchemaGrammar compile_any_json(const JsonSchemaOptions& options = {},
                                   const GrammarLimits& limits = {});

}  // namespace specdec::grammar
