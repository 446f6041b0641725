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
  /// in the text suffices, as for JSON Schema's `pattern`.
  bool anchored = true;
  /// How a character looks in the text; by default UTF-8. The inside of a JSON string passes an
  /// encoder that knows its escapes. No encoding of a text may be a proper prefix of another's.
  CharEncoder encode = {};
  /// Named in messages: "pattern:1:5: expected ...".
  std::string_view name = "regex";
};

/// Parses ECMA-262's syntax (u flag; also (?P<name>...), (?i) for ASCII, escaped punctuation) into
/// an expression over bytes. Anchors, word boundaries and look-ahead are compiled exactly, except
/// inside an unbounded repeat; look-behind, back-references and what else has no such expression
/// throws Error(invalid_argument) with line, column and the reason.
RegexRef parse_regex(RegexPool& pool, std::string_view pattern,
                     const RegexSyntaxOptions& options = {});

}  // namespace specdec::grammar
