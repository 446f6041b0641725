#include <string_view>

#include "engine/model/hf_folder.h"
#include "engine/model/json_reader.h"
#include "engine/model/tensor_view.h"
#include "specdec/error.h"

namespace specdec {
namespace {

/// Keys that change the arithmetic when they hold anything but what plain Llama has.
void check_unsupported(const JsonObject& config) {
  for (const char* key : {"attention_bias", "mlp_bias"}) {
    if (config.boolean(key).value_or(false)) {
      config.fail_unsupported(key, "is true; specdec runs Llama models without biases");
    }
  }
  if (config.find("quantization_config") != nullptr) {
    config.fail_unsupported("quantization_config",
                            "is set; give the unquantised model, or a GGUF file of it");
  }
  const std::string activation = config.string("hidden_act").value_or("silu");
  if (activation != "silu") {
    config.fail_unsupported("hidden_act", in_quotes(activation) + " is not supported, only 'silu'");
  }
  if (config.number("partial_rotary_factor").value_or(1.0) != 1.0) {
    config.fail_unsupported("partial_rotary_factor", "is not 1");
  }
  if (config.find("sliding_window") != nullptr) {
    config.fail_unsupported("sliding_window", "is set; specdec attends to the whole context");
  }
}

void check_architecture(const JsonObject& config) {
  const nlohmann::json* architectures = config.find("architectures");
  if (architectures == nullptr) {
    const std::string type = config.string("model_type").value_or("");
    if (type != "llama") {
      config.fail_unsupported("model_type", in_quotes(type) + " is not supported, only 'llama'");
    }
    return;
  }
  if (!architectures->is_array() || architectures->size() != 1 ||
      !architectures->front().is_string()) {
    config.fail_invalid("architectures", "must be an array of one string");
  }
  const auto name = architectures->front().get<std::string>();
  if (name != "LlamaForCausalLM") {
    config.fail_unsupported("architectures",
                            in_quotes(name) + " is not supported, only 'LlamaForCausalLM'");
  }
}

/// `rope_scaling` (transformers 4: the type as "rope_type" or, older, "type") or `rope_parameters`
/// (transformers 5, with rope_theta inside).
void read_rope(const JsonObject& config, ModelConfig& result) {
  result.rope_theta = static_cast<float>(config.number("rope_theta").value_or(10000.0));
  auto rope = config.object("rope_parameters");
  if (!rope.has_value()) rope = config.object("rope_scaling");
  if (!rope.has_value()) return;
  if (const auto theta = rope->number("rope_theta")) {
    result.rope_theta = static_cast<float>(*theta);
  }
  const auto rope_type = rope->string("rope_type");
  const std::string type =
      rope_type.has_value() ? *rope_type : rope->string("type").value_or("default");
  if (type == "default") return;
  if (type != "llama3") {
    rope->fail_unsupported("rope_type",
                           in_quotes(type) + " is not supported, only 'default' and 'llama3'");
  }
  RopeScaling& scaling = result.rope_scaling;
  scaling.factor = static_cast<float>(rope->require_number("factor"));
  scaling.low_freq_factor = static_cast<float>(rope->require_number("low_freq_factor"));
  scaling.high_freq_factor = static_cast<float>(rope->require_number("high_freq_factor"));
  scaling.original_max_position = rope->require_integer("original_max_position_embeddings");
}

}  // namespace

ModelConfig parse_hf_config(std::string_view text, const std::string& file) {
  const nlohmann::json json = parse_json(text, file);
  const JsonObject config(json, file);
  check_architecture(config);
  return parse_hf_layers(config);
}

ModelConfig parse_hf_layers(const JsonObject& config) {
  check_unsupported(config);
  ModelConfig result;
  result.name = config.string("_name_or_path").value_or("");
  result.vocab_size = config.require_integer("vocab_size");
  result.hidden_size = config.require_integer("hidden_size");
  result.num_layers = config.require_integer("num_hidden_layers");
  result.num_heads = config.require_integer("num_attention_heads");
  result.num_kv_heads = config.integer("num_key_value_heads").value_or(result.num_heads);
  result.ffn_size = config.require_integer("intermediate_size");
  // Defaults are those of transformers' LlamaConfig.
  result.max_position = config.integer("max_position_embeddings").value_or(2048);
  result.norm_eps = static_cast<float>(config.number("rms_norm_eps").value_or(1e-6));
  result.tied_head = config.boolean("tie_word_embeddings").value_or(false);
  if (const auto head_dim = config.integer("head_dim")) {
    result.head_dim = *head_dim;
  } else {
    if (result.num_heads < 1 || result.hidden_size % result.num_heads != 0) {
      config.fail_invalid("num_attention_heads",
                          std::to_string(result.num_heads) + " heads do not divide hidden_size " +
                              std::to_string(result.hidden_size) + " and head_dim is missing");
    }
    result.head_dim = result.hidden_size / result.num_heads;
  }
  read_rope(config, result);
  return result;
}

}  // namespace specdec
