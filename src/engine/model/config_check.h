#pragma once

#include <string_view>

#include "engine/model/model_config.h"

namespace specdec {

/// Throws Error(invalid_model) naming `file` and the first value that no model can have.
void check_config(const ModelConfig& config, std::string_view file);

}  // namespace specdec
