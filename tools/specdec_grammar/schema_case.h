#pragma once

#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "sampling/grammar/json_schema/json_schema.h"
#include "sampling/grammar/token_index.h"
#include "specdec/tokenizer.h"

namespace specdec::grammar_tool {

/// A vocabulary to make masks for.
class Vocabulary {
 public:
  /// Of a GGUF file, or a folder with tokenizer.json. Throws Error.
  explicit Vocabulary(const std::string& path);

  const Tokenizer& tokenizer() const noexcept { return *tokenizer_; }
  const grammar::TokenIndex& index() const noexcept { return *index_; }

 private:
  std::unique_ptr<Tokenizer> tokenizer_;
  std::unique_ptr<grammar::TokenIndex> index_;
};

/// A JSON value and whether the schema takes it.
struct Instance {
  std::string description;
  bool valid = false;
  grammar::JsonValue value;
};

/// A schema and its instances, as the suites have them.
struct SchemaCase {
  std::string name;
  std::string schema;
  std::vector<Instance> instances;
};

/// Runs a case in a process of its own: compiles the schema and matches each instance, written
/// compactly and as Python writes it. With a vocabulary, also makes the mask before every token of
/// each valid instance. A row of the report:
/// {name, result: ok|refused|crash|timeout, error, unenforced, compile_us, memory_bytes, masks_us,
///  verdicts: [accepted, ...], places: [where an instance was refused, ...]}
nlohmann::json run_case(const SchemaCase& schema_case, const grammar::JsonSchemaOptions& options,
                        const Vocabulary* vocabulary, double limit_s);

/// The nearest-rank percentile; 0 of nothing.
double percentile(std::vector<double> values, double share);

}  // namespace specdec::grammar_tool
