#pragma once

#include <istream>
#include <nlohmann/json.hpp>
#include <string>

#include "tools/specdec_grammar/schema_case.h"

namespace specdec::grammar_tool {

struct SuiteOptions {
  double limit_s = 1.0;  ///< of processor time for a compilation, and for an instance
  std::size_t most = 0;  ///< cases to run; 0: all
  const Vocabulary* vocabulary = nullptr;
};

/// MaskBench: a JSON object a line, {name, schema, tests: [{description, valid, data}]}.
/// Returns {summary, rows}. Throws Error for a file that is none.
nlohmann::json run_maskbench(std::istream& lines, const SuiteOptions& options);

/// JSON-Schema-Test-Suite: `folder` has tests/DRAFT/*.json and remotes/. Formats are annotations,
/// as the drafts have them by default, but in optional/format. Returns {summary, drafts, rows}.
nlohmann::json run_jsts(const std::string& folder, const SuiteOptions& options);

}  // namespace specdec::grammar_tool
