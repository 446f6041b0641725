#pragma once

#include <istream>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "specdec/grammar.h"

namespace specdec::bench {

/// One conversation's user turns.
struct Prompt {
  std::string category;  ///< "all" when the file names none
  std::vector<std::string> turns;
  std::optional<GrammarSource> grammar = {};  ///< of every answer
};

/// Reads JSON lines: {"category": "...", "turns": ["...", ...]} (Spec-Bench's format) or
/// {"prompt": "..."}; other fields are ignored, blank lines too. A grammar stands beside them:
/// "json_schema": a schema, or "grammar": an object with one of "json_schema", "gbnf", "regex",
/// "choice" (a list of strings) and "json" (true), for the JSON kinds also "whitespace" ("none",
/// "single" or "any") and "schema_order". Throws Error(invalid_argument) with `name` and the line
/// number; grammars are not compiled here.
std::vector<Prompt> read_prompts(std::istream& input, std::string_view name);
std::vector<Prompt> read_prompts_file(const std::string& path);

/// `limit` prompts spread evenly over the file, so that each category keeps its share; all of them
/// when limit is 0.
std::vector<Prompt> spread(const std::vector<Prompt>& prompts, std::size_t limit);

}  // namespace specdec::bench
