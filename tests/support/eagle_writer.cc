#include <nlohmann/json.hpp>

#include "support/gguf_file_spec.h"
#include "support/model_writer.h"
#include "support/quantise.h"

namespace specdec::testing {
namespace {

using kernels::DataType;
using nlohmann::json;

json config_json(const ModelConfig& config, const EagleOptions& options, int draft_vocab_size) {
  json layer = json::parse(hf_config_json(config));
  layer["num_hidden_layers"] = 1;
  if (options.speculators) {
    layer.erase("architectures");
    return {{"architectures", {"Eagle3Speculator"}},
            {"speculators_model_type", "eagle3"},
            {"draft_vocab_size", draft_vocab_size},
            {"norm_before_residual", options.norm_before_residual},
            {"eagle_aux_hidden_state_layer_ids", options.feature_layers},
            {"transformer_layer_config", layer}};
  }
  std::vector<int> outputs;
  for (const int input : options.feature_layers) outputs.push_back(input - 1);
  layer["architectures"] = {"LlamaForCausalLMEagle3"};
  layer["draft_vocab_size"] = draft_vocab_size;
  layer["norm_before_residual"] = options.norm_before_residual;
  layer["eagle_config"] = {{"eagle_aux_hidden_state_layer_ids", outputs}};
  return layer;
}

const char* dtype_name(DataType type) {
  return type == DataType::f32 ? "F32" : type == DataType::f16 ? "F16" : "BF16";
}

}  // namespace

std::vector<TokenId> eagle_target_tokens(int draft_vocab_size, int vocab_size) {
  std::vector<TokenId> tokens;
  for (int i = 0; i < draft_vocab_size; ++i)
    tokens.push_back(
        static_cast<TokenId>(static_cast<std::int64_t>(i) * vocab_size / draft_vocab_size));
  return tokens;
}

RandomModel random_eagle_head(const ModelConfig& target, std::uint64_t seed,
                              const EagleOptions& options) {
  // The layer of a Llama model of the same shape, with what is different drawn beside it.
  ModelConfig config = target;
  config.num_layers = 1;
  config.tied_head = false;
  RandomModel model = random_model(config, seed);
  ModelConfig wide = config;
  wide.hidden_size = 2 * config.hidden_size;
  const RandomModel joined = random_model(wide, seed + 1);
  ModelConfig features = config;
  features.hidden_size = static_cast<int>(options.feature_layers.size()) * target.hidden_size;
  features.ffn_size = config.hidden_size;
  const RandomModel projection = random_model(features, seed + 2);

  const int draft_vocab =
      options.draft_vocab_size > 0 ? options.draft_vocab_size : config.vocab_size;
  RandomModel head{config, {}};
  const auto add = [&](const std::string& name, RandomTensor tensor) {
    tensor.name = name;
    head.tensors.push_back(std::move(tensor));
  };
  add("fc.weight", projection.tensor("model.layers.0.mlp.gate_proj.weight"));
  const std::string layer = "model.layers.0.";
  for (const char* name : {"q_proj", "k_proj", "v_proj"})
    add("midlayer.self_attn." + std::string(name) + ".weight",
        joined.tensor(layer + "self_attn." + name + ".weight"));
  for (const char* name : {"self_attn.o_proj", "mlp.gate_proj", "mlp.up_proj", "mlp.down_proj",
                           "input_layernorm", "post_attention_layernorm"})
    add("midlayer." + std::string(name) + ".weight", model.tensor(layer + name + ".weight"));
  add("midlayer.hidden_norm.weight",
      random_model(config, seed + 3).tensor(layer + "input_layernorm.weight"));
  add("norm.weight", model.tensor("model.norm.weight"));
  RandomTensor lm_head = model.tensor("lm_head.weight");
  lm_head.shape[0] = draft_vocab;
  lm_head.values.resize(static_cast<std::size_t>(draft_vocab) *
                        static_cast<std::size_t>(config.hidden_size));
  add("lm_head.weight", std::move(lm_head));
  if (options.own_embedding) add("embed_tokens.weight", model.tensor("model.embed_tokens.weight"));
  return head;
}

std::string eagle_config_json(const RandomModel& head, const EagleOptions& options) {
  const int vocab = head.config.vocab_size;
  return config_json(head.config, options,
                     options.draft_vocab_size > 0 ? options.draft_vocab_size : vocab)
      .dump(2);
}

std::vector<std::byte> eagle_safetensors_bytes(const RandomModel& head,
                                               const EagleOptions& options) {
  const int vocab = head.config.vocab_size;
  json header = {{"__metadata__", {{"format", "pt"}}}};
  std::vector<std::byte> data;
  const auto add = [&](const std::string& name, const char* dtype,
                       const std::vector<std::int64_t>& shape,
                       const std::vector<std::byte>& bytes) {
    header[name] = {{"dtype", dtype},
                    {"shape", shape},
                    {"data_offsets", {data.size(), data.size() + bytes.size()}}};
    data.insert(data.end(), bytes.begin(), bytes.end());
  };
  for (const RandomTensor& tensor : head.tensors) {
    std::string name = tensor.name;
    if (options.speculators && name.starts_with("midlayer."))
      name = "layers.0." + name.substr(std::string_view("midlayer.").size());
    add(name, dtype_name(options.type), tensor.shape, quantise(tensor.values, options.type));
  }
  if (options.draft_vocab_size > 0) {
    const std::vector<TokenId> tokens = eagle_target_tokens(options.draft_vocab_size, vocab);
    Bytes distances;
    std::vector<std::byte> known(static_cast<std::size_t>(vocab));
    for (std::size_t i = 0; i < tokens.size(); ++i) {
      distances.add<std::int64_t>(tokens[i] - static_cast<std::int64_t>(i));
      known[static_cast<std::size_t>(tokens[i])] = std::byte{1};
    }
    add("d2t", "I64", {options.draft_vocab_size}, distances.data);
    add("t2d", "BOOL", {vocab}, known);
  }
  std::string text = header.dump();
  text.resize((text.size() + 7) / 8 * 8, ' ');
  return Bytes().add<std::uint64_t>(text.size()).add_text(text).append(data).data;
}

void write_eagle_folder(const std::filesystem::path& folder, const RandomModel& head,
                        const EagleOptions& options) {
  std::filesystem::create_directories(folder);
  write_file(folder / "config.json", eagle_config_json(head, options));
  write_file(folder / "model.safetensors", eagle_safetensors_bytes(head, options));
}

}  // namespace specdec::testing
