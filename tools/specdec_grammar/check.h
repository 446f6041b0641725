#pragma once

#include <string>
#include <vector>

namespace specdec::grammar_tool {

/// One of the grammars is named.
struct CheckOptions {
  std::string json_schema;
  std::string gbnf;
  std::string regex;
  std::vector<std::string> instances;
};

/// Compiles the grammar and matches each file's text, but for the line break at its end. Prints a
/// line for each, with the place where it is refused and what was expected there. Returns the
/// program's exit status: 0 when all match, 1 when one does not. Throws Error for the grammar.
int run_check(const CheckOptions& options);

}  // namespace specdec::grammar_tool
