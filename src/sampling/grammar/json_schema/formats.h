#pragma once

#include <optional>
#include <string_view>

#include "sampling/grammar/json_schema/string_language.h"

namespace specdec::grammar {

/// The strings that have JSON Schema's format `name`, or nothing for a name that is not known.
///
/// Where a format is no regular language, a subset stands for it, and `narrowed` says so: such a
/// set must not be complemented.
struct FormatLanguage {
  RegexRef strings;
  bool narrowed = false;
};
std::optional<FormatLanguage> format_language(StringLanguage& strings, RegexPool& pool,
                                              std::string_view name);

}  // namespace specdec::grammar
