#include <nlohmann/json.hpp>

#include "support/model_writer.h"

namespace specdec::testing {

RandomModel random_medusa(const ModelConfig& target, std::uint64_t seed,
                          const MedusaOptions& options) {
  ModelConfig config = target;
  config.num_layers = options.num_blocks;
  config.ffn_size = config.hidden_size;
  config.tied_head = false;
  RandomModel heads{config, {}};
  for (int head = 0; head < options.num_heads; ++head) {
    const RandomModel drawn = random_model(config, seed + static_cast<std::uint64_t>(head));
    const auto add = [&](const std::string& name, RandomTensor tensor) {
      tensor.name = name;
      heads.tensors.push_back(std::move(tensor));
    };
    const std::string at = std::to_string(head) + ".";
    for (int block = 0; block < options.num_blocks; ++block) {
      const std::string layer = "model.layers." + std::to_string(block) + ".";
      const std::string name = at + std::to_string(block) + ".linear.";
      add(name + "weight", drawn.tensor(layer + "mlp.gate_proj.weight"));
      if (options.bias) add(name + "bias", drawn.tensor(layer + "input_layernorm.weight"));
    }
    add(at + std::to_string(options.num_blocks) + ".weight", drawn.tensor("lm_head.weight"));
  }
  return heads;
}

RandomModel copying_medusa(const RandomModel& target, int num_heads) {
  const RandomTensor& embedding = target.tensor("model.embed_tokens.weight");
  const std::int64_t hidden = target.config.hidden_size;
  RandomModel heads{target.config, {}};
  for (int head = 0; head < num_heads; ++head) {
    const std::string at = std::to_string(head) + ".";
    heads.tensors.push_back({at + "0.linear.weight",
                             {hidden, hidden},
                             std::vector<float>(static_cast<std::size_t>(hidden * hidden))});
    heads.tensors.push_back(
        {at + "0.linear.bias", {hidden}, std::vector<float>(static_cast<std::size_t>(hidden))});
    heads.tensors.push_back({at + "1.weight", embedding.shape, embedding.values});
  }
  return heads;
}

void write_medusa_folder(const std::filesystem::path& folder, const RandomModel& heads,
                         const MedusaOptions& options) {
  RandomModel named = heads;
  for (RandomTensor& tensor : named.tensors) {
    const std::size_t dot = tensor.name.find('.');
    const std::string head = tensor.name.substr(0, dot);
    const std::string rest = tensor.name.substr(dot + 1);
    const std::size_t linear = rest.find(".linear");
    if (!options.vllm)
      tensor.name = options.prefix + tensor.name;
    else if (linear == std::string::npos)
      tensor.name = "lm_heads." + head + ".weight";
    else
      tensor.name = "blocks." + head + ".layers." + rest.substr(0, linear) +
                    rest.substr(linear + std::string_view(".linear").size());
  }
  std::filesystem::create_directories(folder);
  const nlohmann::json config = options.vllm
                                    ? nlohmann::json{{"model_type", "medusa"},
                                                     {"num_heads", options.num_heads},
                                                     {"num_hidden_layers", options.num_blocks}}
                                    : nlohmann::json{{"medusa_num_heads", options.num_heads},
                                                     {"medusa_num_layers", options.num_blocks}};
  write_file(folder / "config.json", config.dump(2));
  write_file(folder / (options.vllm ? "model.safetensors" : "medusa_lm_head.safetensors"),
             safetensors_bytes(named, {.type = options.type}));
}

}  // namespace specdec::testing
