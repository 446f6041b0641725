#pragma once

#include <string_view>

#include "sampling/grammar/grammar_spec.h"

namespace specdec::grammar {

/// Parses llama.cpp's GBNF dialect: rules `name ::= ...` with strings, character classes, groups,
/// alternatives, `* + ? {m,n}` and comments; the text is what `root` derives. Left recursion is
/// fine here. Returns the symbol of `root`. Throws Error(invalid_argument) with line, column and
/// what was expected.
Symbol add_gbnf(GrammarSpec& spec, std::string_view text);

/// A grammar of it alone.
GrammarSpec parse_gbnf(std::string_view text, const GrammarLimits& limits = {});

}  // namespace specdec::grammar
