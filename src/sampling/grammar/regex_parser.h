#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string_view>
#include <vector>

#include "sampling/grammar/code_points.h"

namespace specdec::grammar {

/// A pattern as it is written: what parse_regex() compiles.
struct RegexNode {
  enum class Kind { set, sequence, choice, repeat, begin, end, word_boundary, look_ahead };
  Kind kind = Kind::sequence;
  bool contextual = false;  // depends on what stands around it: an anchor or look-ahead is in it
  bool negative = false;    // word_boundary: \B; look_ahead: (?!
  std::uint32_t min = 0;
  std::optional<std::uint32_t> max = {};
  std::size_t offset = 0;
  CodePointSet set = {};
  std::vector<RegexNode> parts = {};
};

/// [A-Za-z0-9_]
CodePointSet word_characters();

/// Reads the syntax of ECMA-262's regular expressions. `name` is for messages: errors,
/// Error(invalid_argument), say line, column and what was expected.
RegexNode parse_regex_syntax(std::string_view pattern, std::string_view name);

}  // namespace specdec::grammar
