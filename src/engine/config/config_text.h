#pragma once

#include <string>
#include <string_view>

#include "engine/config/config_keys.h"

namespace specdec {

/// The shortest TOML float that reads back as the same bits: 0.7, 1.0, 1e-05, -inf.
std::string float_text(float value);
/// [1, 5]
std::string pair_text(const std::pair<int, int>& pair);
/// The value of a key as TOML writes it, on one line.
std::string toml_text(const FieldRef& field);

}  // namespace specdec
