#include "engine/model/eagle_source.h"

#include <algorithm>
#include <cstring>
#include <string>
#include <string_view>
#include <utility>

#include "engine/model/config_check.h"
#include "engine/model/hf_folder.h"
#include "engine/model/json_reader.h"
#include "engine/model/safetensors.h"
#include "specdec/error.h"

namespace specdec {
namespace {

namespace fs = std::filesystem;

std::string_view text_of(const MappedFile& file) {
  return {reinterpret_cast<const char*>(file.bytes().data()), file.bytes().size()};
}

/// The name that config.json gives the architecture; empty when there is none.
std::string architecture_of(const JsonObject& config) {
  const nlohmann::json* list = config.find("architectures");
  if (list == nullptr || !list->is_array() || list->size() != 1 || !list->front().is_string())
    return config.string("speculators_model_type").value_or("");
  return list->front().get<std::string>();
}

bool is_speculators(std::string_view architecture) {
  return architecture == "Eagle3Speculator" || architecture == "Eagle3DraftModel" ||
         architecture == "eagle3";
}

bool is_eagle_architecture(std::string_view architecture) {
  return architecture == "LlamaForCausalLMEagle3" || is_speculators(architecture);
}

std::vector<int> read_layers(const JsonObject& object, const char* key) {
  std::vector<int> layers;
  const nlohmann::json* list = object.find(key);
  if (list == nullptr) return layers;
  if (!list->is_array() || list->empty() || list->size() > 16)
    object.fail_invalid(key, "must be a list of 1 to 16 layers");
  for (const nlohmann::json& layer : *list) {
    if (!layer.is_number_integer() || layer < 0 || layer > 100000)
      object.fail_invalid(key, "holds " + layer.dump() + ", must hold numbers of layers");
    layers.push_back(layer.get<int>());
  }
  return layers;
}

/// The layers whose inputs are tapped. SafeAILab's code has 2, L/2 and L-3; SpecForge writes the
/// layers whose *outputs* those are, into `eagle_config`; speculators writes inputs, as vLLM reads
/// them.
std::vector<int> feature_layers(const JsonObject& config, const ModelConfig& target) {
  constexpr const char* kKey = "eagle_aux_hidden_state_layer_ids";
  std::vector<int> layers = read_layers(config, kKey);
  if (layers.empty()) {
    if (const auto eagle = config.object("eagle_config")) {
      layers = read_layers(*eagle, kKey);
      for (int& layer : layers) ++layer;
    }
  }
  if (layers.empty()) layers = {2, target.num_layers / 2, target.num_layers - 3};
  if (!std::ranges::is_sorted(layers, std::ranges::less_equal{}))
    config.fail_unsupported(kKey, "does not rise from layer to layer");
  for (const int layer : layers)
    if (layer < 0 || layer > target.num_layers)
      config.fail_invalid(kKey, "names layer " + std::to_string(layer) + ", the target has " +
                                    std::to_string(target.num_layers) +
                                    "; use a head made for this target");
  return layers;
}

EagleSource read_config(const JsonObject& config, const std::string& file,
                        const ModelConfig& target) {
  EagleSource source;
  const bool speculators = is_speculators(architecture_of(config));
  JsonObject layer = config;
  if (speculators) {
    const auto inner = config.object("transformer_layer_config");
    if (!inner) config.fail_invalid("transformer_layer_config", "is missing");
    layer = *inner;
  }
  source.layer = parse_hf_layers(layer);
  source.layer.num_layers = 1;
  source.layer.name = "eagle3";
  source.norm_before_residual = config.boolean("norm_before_residual").value_or(false);
  if (config.boolean("norm_before_fc").value_or(false))
    config.fail_unsupported("norm_before_fc", "is true");
  source.draft_vocab_size = config.integer("draft_vocab_size").value_or(source.layer.vocab_size);
  source.target_hidden_size = config.integer("target_hidden_size").value_or(target.hidden_size);
  source.feature_layers = feature_layers(config, target);
  if (source.layer.vocab_size != target.vocab_size)
    layer.fail_invalid("vocab_size", "is " + std::to_string(source.layer.vocab_size) +
                                         ", the target's is " + std::to_string(target.vocab_size) +
                                         "; use a head made for this target");
  if (source.target_hidden_size != target.hidden_size)
    config.fail_invalid("target_hidden_size", "is " + std::to_string(source.target_hidden_size) +
                                                  ", the target's is " +
                                                  std::to_string(target.hidden_size));
  if (source.draft_vocab_size < 1 || source.draft_vocab_size > source.layer.vocab_size)
    config.fail_invalid("draft_vocab_size",
                        "must be 1 to " + std::to_string(source.layer.vocab_size));
  check_config(source.layer, file);
  return source;
}

/// Fills a source with the tensors of its file.
class Loader {
 public:
  Loader(EagleSource& source, HeadTensors& tensors)
      : source_(source),
        tensors_(tensors),
        prefix_(tensors.contains("midlayer.hidden_norm.weight") ? "midlayer." : "layers.0.") {}

  void load() {
    const ModelConfig& layer = source_.layer;
    const int hidden = layer.hidden_size;
    const int q_rows = layer.num_heads * layer.head_dim;
    const int kv_rows = layer.num_kv_heads * layer.head_dim;
    if (tensors_.contains("embed_tokens.weight")) {
      source_.embedding =
          tensors_.matrix("embedding", hidden, {{"embed_tokens.weight", layer.vocab_size}},
                          HeadTensors::Bits::eight);  // a row of it is all that a token reads
      source_.embedding->is_table = true;
    } else if (hidden != source_.target_hidden_size) {
      tensors_.fail("tensor 'embed_tokens.weight' is missing, and the target's embedding has " +
                    std::to_string(source_.target_hidden_size) + " columns, the head " +
                    std::to_string(hidden));
    }
    load_fc();
    source_.input_norm = tensors_.vector(prefix_ + "input_layernorm.weight", hidden);
    source_.hidden_norm = tensors_.vector(prefix_ + "hidden_norm.weight", hidden);
    source_.ffn_norm = tensors_.vector(prefix_ + "post_attention_layernorm.weight", hidden);
    source_.output_norm = tensors_.vector("norm.weight", hidden);
    source_.qkv = tensors_.matrix("qkv", 2 * hidden,
                                  {{prefix_ + "self_attn.q_proj.weight", q_rows},
                                   {prefix_ + "self_attn.k_proj.weight", kv_rows},
                                   {prefix_ + "self_attn.v_proj.weight", kv_rows}},
                                  kFeatureBits);
    source_.qkv.pair_distance = source_.layer.head_dim / 2;
    source_.attention_output = tensors_.matrix("attention_output", q_rows,
                                               {{prefix_ + "self_attn.o_proj.weight", hidden}});
    source_.gate_up = tensors_.matrix("gate_up", hidden,
                                      {{prefix_ + "mlp.gate_proj.weight", layer.ffn_size},
                                       {prefix_ + "mlp.up_proj.weight", layer.ffn_size}});
    source_.gate_up.pair_distance = source_.layer.ffn_size;
    source_.down =
        tensors_.matrix("down", layer.ffn_size, {{prefix_ + "mlp.down_proj.weight", hidden}});
    source_.head = tensors_.matrix("head", hidden, {{"lm_head.weight", source_.draft_vocab_size}});
    load_target_tokens();
    tensors_.ignore("t2d");  // the inverse of d2t, of use in training
    tensors_.check_unused();
  }

 private:
  // What the target's features go through: with 4 bits drafts are wrong more often than the bytes
  // are worth (docs/decisions.md).
  static constexpr HeadTensors::Bits kFeatureBits = HeadTensors::Bits::eight;

  /// fc takes the features side by side: cut into one matrix for each, so that a feature is
  /// projected as it goes by and nothing is gathered.
  void load_fc() {
    const int hidden = source_.layer.hidden_size;
    const int width = source_.target_hidden_size;
    const auto count = static_cast<int>(source_.feature_layers.size());
    const TensorView& fc =
        tensors_.take_weights("fc.weight", {hidden, std::int64_t{count} * width});
    for (int i = 0; i < count; ++i)
      source_.fc.push_back(
          {"fc", {tensors_.rows(fc, hidden, width, i * width, count * width, kFeatureBits)}});
  }

  /// d2t holds the distance from each draft token to the target's token.
  void load_target_tokens() {
    if (!tensors_.contains("d2t")) {
      if (source_.draft_vocab_size != source_.layer.vocab_size)
        tensors_.fail(
            "tensor 'd2t' is missing, and the draft vocabulary is smaller than the target's");
      return;
    }
    const TensorView& tensor = tensors_.take("d2t", {source_.draft_vocab_size});
    if (tensor.type_name != "I64")
      tensors_.fail("tensor 'd2t' has type " + tensor.type_name + ", must be I64");
    std::vector<bool> seen(static_cast<std::size_t>(source_.layer.vocab_size));
    for (std::int64_t i = 0; i < source_.draft_vocab_size; ++i) {
      std::int64_t distance = 0;
      std::memcpy(&distance, tensor.data.data() + i * 8, sizeof distance);
      if (distance < -i || distance >= source_.layer.vocab_size - i)
        tensors_.fail("tensor 'd2t' sends draft token " + std::to_string(i) +
                      " out of the target's vocabulary");
      const std::int64_t token = i + distance;
      if (seen[static_cast<std::size_t>(token)])
        tensors_.fail("tensor 'd2t' sends two draft tokens to token " + std::to_string(token));
      seen[static_cast<std::size_t>(token)] = true;
      source_.target_tokens.push_back(static_cast<TokenId>(token));
    }
  }

  EagleSource& source_;
  HeadTensors& tensors_;
  std::string prefix_;
};

}  // namespace

bool is_eagle_head(const fs::path& path) {
  std::error_code ignored;
  if (!fs::is_regular_file(path / "config.json", ignored)) return false;
  const auto file = MappedFile::open(path / "config.json");
  const nlohmann::json json = parse_json(text_of(*file), file->name());
  return is_eagle_architecture(architecture_of(JsonObject(json, file->name())));
}

std::unique_ptr<EagleSource> open_eagle_head(const fs::path& path, const ModelConfig& target,
                                             HeadWeights weights) {
  const auto config = MappedFile::open(path / "config.json");
  return read_eagle_head(text_of(*config), config->name(),
                         MappedFile::open(path / "model.safetensors"), target, weights);
}

std::unique_ptr<EagleSource> read_eagle_head(std::string_view config_json,
                                             const std::string& config_name,
                                             std::shared_ptr<const MappedFile> file,
                                             const ModelConfig& target, HeadWeights weights) {
  const nlohmann::json json = parse_json(config_json, config_name);
  const JsonObject config(json, config_name);
  if (const std::string name = architecture_of(config); !is_eagle_architecture(name))
    config.fail_unsupported("architectures", in_quotes(name) + " is no EAGLE-3 head");
  auto source = std::make_unique<EagleSource>(read_config(config, config_name, target));
  source->file = std::move(file);
  const std::vector<TensorView> tensors = read_safetensors(*source->file);
  HeadTensors head(tensors, source->file->name(), "an EAGLE-3 head", weights, source->converted);
  Loader(*source, head).load();
  return source;
}

}  // namespace specdec
