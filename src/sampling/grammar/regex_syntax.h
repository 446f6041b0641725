#pragma once

#include <functional>
#include <string_view>

#include "sampling/grammar/code_points.h"
#include "sampling/grammar/regex_pool.h"

namespace specdec::grammar {

/// Turns a set of code points into an expression that matches any one of them, as bytes.
using CharEncoder = std::function<RegexRef(RegexPool&, const CodePointSet&)>;

struct RegexSyntaxOptions {
  /// The whole text must match, as if the pattern stood between ^ and $. False: a match anywhere
  /// in the text suffices, as for JSON Schema's `pattern`; ^ and $ then mean what they say.
  bool anchored = true;
  /// How a character looks in the text; by default UTF-8. A JSON string passes the encoder of its
  /// escapes.
  CharEncoder encode = {};
  /// Named in messages: "pattern:1:5: expected ...".
  std::string_view name = "regex";
};

/// Parses ECMA-262's syntax (u flag; \A \z \Z (?i) (?P<name>) of other dialects too) into an
/// expression over bytes. Look-behind, back-references and word boundaries have no such
/// expression: Error(invalid_argument) with line, column and what was expected.
RegexRef parse_regex(RegexPool& pool, std::string_view pattern,
                     const RegexSyntaxOptions& options = {});

}  // namespace specdec::grammar
