#pragma once

#include <optional>
#include <string_view>

#include "sampling/grammar/json_schema/string_language.h"

namespace specdec::grammar {

/// The strings that surely have a format, and those that may have it. They differ where a format is
/// no regular language.
struct FormatLanguage {
  RegexRef least;
  RegexRef most;
};
/// Of JSON Schema's format `name`, or nothing for a name that is not known.
std::optional<FormatLanguage> format_language(StringLanguage& strings, RegexPool& pool,
                                              std::string_view name);

}  // namespace specdec::grammar
