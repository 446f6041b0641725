#pragma once

#include <cstddef>
#include <cstdint>
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

struct SampleOptions {
  CheckOptions grammar;
  std::uint64_t seed = 1;
  std::size_t count = 10;
  std::size_t longest = 4000;  ///< bytes; texts that grow beyond are given up
};

/// Prints random texts of the grammar, a line each. Throws Error for the grammar.
int run_sample(const SampleOptions& options);

}  // namespace specdec::grammar_tool
