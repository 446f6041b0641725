#pragma once

#include <string>
#include <string_view>

#include "engine/text/tokenizer_data.h"

namespace specdec {

/// The contents of the files that a Hugging Face tokenizer consists of; empty = not there.
struct TokenizerFiles {
  std::string_view tokenizer_json;
  std::string_view tokenizer_config;   // tokenizer_config.json
  std::string_view generation_config;  // generation_config.json
  std::string_view chat_template;      // chat_template.jinja
};

/// What read_tokenizer_json() does, from memory. `folder` is for messages. Throws Error
/// (invalid_model, unsupported) naming file and key.
TokenizerData parse_tokenizer_files(const TokenizerFiles& files, const std::string& folder);

}  // namespace specdec
