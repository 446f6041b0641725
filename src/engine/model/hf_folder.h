#pragma once

#include <filesystem>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "engine/model/json_reader.h"
#include "engine/model/mapped_file.h"
#include "engine/model/weights.h"

namespace specdec {

/// A Hugging Face folder: config.json, model.safetensors or the shards that
/// model.safetensors.index.json lists, tokenizer.json. Throws as open_model does.
std::unique_ptr<ModelSource> open_hf_folder(const std::filesystem::path& folder);

/// The same from a configuration's text and safetensors files; `name` stands for the folder in
/// messages.
std::unique_ptr<ModelSource> open_hf_model(
    std::string_view config_json, const std::string& name,
    std::vector<std::shared_ptr<const MappedFile>> files,
    std::function<std::unique_ptr<Tokenizer>()> load_tokenizer);

/// Reads a LlamaForCausalLM configuration; `file` stands for it in messages. Throws Error
/// (invalid_model, unsupported) naming file and key.
ModelConfig parse_hf_config(std::string_view json, const std::string& file);

/// The part of it that describes the layers, whatever the architecture is called.
ModelConfig parse_hf_layers(const JsonObject& config);

}  // namespace specdec
