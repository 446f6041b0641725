#pragma once

#include <filesystem>
#include <string_view>

#include "engine/config/config_keys.h"

namespace specdec {

/// Reads a TOML document into `config` and notes each key's origin. `name` stands for the document
/// in messages, `folder` is what its relative paths are relative to (empty: the working folder).
/// Throws Error(invalid_config).
void read_toml(std::string_view toml, std::string_view name, const std::filesystem::path& folder,
               Config& config);

/// Reads one value from the text of a flag or variable: plain for single values; lists and tables
/// as in TOML, their outer brackets may be left out, and a plain text is a list of one stop string.
/// Throws Error(invalid_config).
void read_text(const ConfigKey& key, std::string_view text, std::string_view origin,
               Config& config);

}  // namespace specdec
