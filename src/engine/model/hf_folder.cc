#include "engine/model/hf_folder.h"

#include <algorithm>
#include <map>
#include <set>
#include <utility>

#include "engine/model/json_reader.h"
#include "engine/model/model_builder.h"
#include "engine/model/safetensors.h"
#include "engine/text/tokenizer_data.h"
#include "specdec/error.h"

namespace specdec {
namespace {

namespace fs = std::filesystem;

const TensorNames kHfNames = {
    .embedding = "model.embed_tokens.weight",
    .output_norm = "model.norm.weight",
    .head = "lm_head.weight",
    .layer_prefix = "model.layers.",
    .attention_norm = "input_layernorm.weight",
    .q = "self_attn.q_proj.weight",
    .k = "self_attn.k_proj.weight",
    .v = "self_attn.v_proj.weight",
    .attention_output = "self_attn.o_proj.weight",
    .ffn_norm = "post_attention_layernorm.weight",
    .gate = "mlp.gate_proj.weight",
    .up = "mlp.up_proj.weight",
    .down = "mlp.down_proj.weight",
    .ignored = {".self_attn.rotary_emb.inv_freq"},  // old checkpoints; recomputed from rope_theta
};

constexpr const char* kSingleFile = "model.safetensors";
constexpr const char* kIndexFile = "model.safetensors.index.json";

std::string_view text_of(const MappedFile& file) {
  return {reinterpret_cast<const char*>(file.bytes().data()), file.bytes().size()};
}

/// Tensor name -> shard, as the index says.
using ShardMap = std::map<std::string, std::string>;

ShardMap read_index(const MappedFile& file) {
  const nlohmann::json json = parse_json(text_of(file), file.name());
  const JsonObject index(json, file.name());
  const nlohmann::json* map = index.find("weight_map");
  if (map == nullptr || !map->is_object() || map->empty()) {
    index.fail_invalid("weight_map", "must map tensor names to file names");
  }
  ShardMap shards;
  for (const auto& [tensor, shard] : map->items()) {
    if (!shard.is_string()) {
      index.fail_invalid("weight_map", "tensor " + in_quotes(tensor) + " must name a file");
    }
    const auto& name = shard.get_ref<const std::string&>();
    // A downloaded index must not make us open files elsewhere.
    if (name.empty() || name == "." || name == ".." ||
        name.find_first_of(std::string_view("/\\\0", 3)) != std::string::npos) {
      index.fail_invalid("weight_map", "tensor " + in_quotes(tensor) + " names " + in_quotes(name) +
                                           ", must be a file in the same folder");
    }
    shards.emplace(tensor, name);
  }
  return shards;
}

/// Every tensor of the index lies in the shard that it names.
void check_index(const ShardMap& shards, const std::vector<TensorView>& tensors,
                 const std::string& index, const fs::path& folder) {
  std::map<std::string_view, std::set<std::string_view>> files_of;
  for (const TensorView& tensor : tensors) files_of[tensor.name].insert(tensor.file);
  for (const auto& [tensor, shard] : shards) {
    const auto found = files_of.find(tensor);
    if (found == files_of.end() || !found->second.contains((folder / shard).string())) {
      throw Error(ErrorCode::invalid_model, index + ": tensor " + in_quotes(tensor) +
                                                " is not in " + in_quotes(shard) +
                                                ", where the index says it is");
    }
  }
}

std::unique_ptr<ModelSource> build(ModelConfig config, const std::string& name,
                                   std::vector<std::shared_ptr<const MappedFile>> files,
                                   std::vector<TensorView> tensors,
                                   std::function<std::unique_ptr<Tokenizer>()> load_tokenizer) {
  ModelParts parts;
  parts.name = name;
  parts.config = std::move(config);
  parts.files = std::move(files);
  parts.tensors = std::move(tensors);
  parts.load_tokenizer = std::move(load_tokenizer);
  return build_model(std::move(parts), kHfNames);
}

std::vector<TensorView> read_all(const std::vector<std::shared_ptr<const MappedFile>>& files) {
  std::vector<TensorView> tensors;
  for (const auto& file : files) {
    auto part = read_safetensors(*file);
    std::ranges::move(part, std::back_inserter(tensors));
  }
  return tensors;
}

}  // namespace

std::unique_ptr<ModelSource> open_hf_model(
    std::string_view config_json, const std::string& name,
    std::vector<std::shared_ptr<const MappedFile>> files,
    std::function<std::unique_ptr<Tokenizer>()> load_tokenizer) {
  ModelConfig config = parse_hf_config(config_json, name + "/config.json");
  auto tensors = read_all(files);
  return build(std::move(config), name, std::move(files), std::move(tensors),
               std::move(load_tokenizer));
}

std::unique_ptr<ModelSource> open_hf_folder(const fs::path& folder) {
  const auto config_file = MappedFile::open(folder / "config.json");
  ModelConfig config = parse_hf_config(text_of(*config_file), config_file->name());
  if (config.name.empty()) config.name = fs::absolute(folder).filename().string();

  std::vector<std::shared_ptr<const MappedFile>> files;
  std::vector<TensorView> tensors;
  if (fs::exists(folder / kSingleFile)) {
    files = {MappedFile::open(folder / kSingleFile)};
    tensors = read_all(files);
  } else if (fs::exists(folder / kIndexFile)) {
    const auto index = MappedFile::open(folder / kIndexFile);
    const ShardMap shards = read_index(*index);
    std::set<std::string> names;
    for (const auto& [tensor, shard] : shards) names.insert(shard);
    for (const std::string& shard : names) files.push_back(MappedFile::open(folder / shard));
    tensors = read_all(files);
    check_index(shards, tensors, index->name(), folder);
  } else {
    throw Error(ErrorCode::io, folder.string() + ": holds neither " + kSingleFile + " nor " +
                                   kIndexFile + "; give a folder with safetensors weights");
  }
  const auto vocab_size = static_cast<std::size_t>(config.vocab_size);
  return build(std::move(config), folder.string(), std::move(files), std::move(tensors),
               [folder, vocab_size] {
                 TokenizerData data = read_tokenizer_json(folder);
                 if (data.tokens.size() > vocab_size) {
                   throw Error(ErrorCode::invalid_model, folder.string() + ": the tokenizer has " +
                                                             std::to_string(data.tokens.size()) +
                                                             " tokens, the embedding " +
                                                             std::to_string(vocab_size) + " rows");
                 }
                 // Rows past the tokenizer's vocabulary are padding: ids that no text has.
                 data.tokens.resize(vocab_size);
                 return make_bpe_tokenizer(std::move(data));
               });
}

}  // namespace specdec
