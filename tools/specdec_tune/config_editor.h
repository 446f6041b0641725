#pragma once

#include <span>
#include <string>
#include <string_view>

namespace specdec::tune {

/// One key of a configuration file and what it is to be.
struct Assignment {
  std::string key;      ///< dotted: "draft.length.mode"
  std::string value;    ///< as TOML writes it: "\"adaptive\"", "8"
  std::string comment;  ///< one line that goes above the key as "# tuned: ..."; empty: none
};

/// A TOML text with these keys set. Everything else stays byte for byte: other keys, their order,
/// comments, line ends. Keys that are there get their new value in place, however they are written
/// (sections, dotted keys, inline tables); new ones go to their section, which is added where there
/// is none. "# tuned:" lines of an earlier run are replaced. Every edit is checked by parsing what
/// came of it. Throws Error(invalid_config) when the text is not TOML, or naming the key that
/// cannot be set by an edit; `name` stands for the text in messages.
std::string edit_config(std::string_view text, std::span<const Assignment> assignments,
                        std::string_view name);

/// A string as a TOML basic string, quotes included.
std::string toml_string(std::string_view text);

/// Replaces a file by `text` in one step: readers see the old or the new one, whole. A link stays
/// one: what it points to is replaced. Throws Error(io).
void replace_file(const std::string& path, std::string_view text);

}  // namespace specdec::tune
