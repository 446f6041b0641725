#include "engine/model/gguf_model.h"

#include <algorithm>
#include <array>
#include <limits>
#include <utility>

#include "engine/model/model_builder.h"
#include "specdec/error.h"

namespace specdec {
namespace {

const TensorNames kGgufNames = {
    .embedding = "token_embd.weight",
    .output_norm = "output_norm.weight",
    .head = "output.weight",
    .layer_prefix = "blk.",
    .attention_norm = "attn_norm.weight",
    .q = "attn_q.weight",
    .k = "attn_k.weight",
    .v = "attn_v.weight",
    .attention_output = "attn_output.weight",
    .ffn_norm = "ffn_norm.weight",
    .gate = "ffn_gate.weight",
    .up = "ffn_up.weight",
    .down = "ffn_down.weight",
    .ignored = {"rope_freqs.weight", ".attn_rot_embd.weight"},
};

[[noreturn]] void fail(const GgufFile& file, ErrorCode code, std::string_view key,
                       const std::string& what) {
  throw Error(code, file.name() + ": key " + in_quotes(key) + ": " + what);
}

std::optional<int> read_int(const GgufFile& file, std::string_view key) {
  if (file.is_array(key)) {
    fail(file, ErrorCode::unsupported, key, "differs per layer; specdec runs uniform layers only");
  }
  const auto value = file.integer(key);
  if (!value.has_value()) return std::nullopt;
  if (*value < 0 || *value > std::numeric_limits<int>::max()) {
    fail(file, ErrorCode::invalid_model, key, "is " + std::to_string(*value) + ", out of range");
  }
  return static_cast<int>(*value);
}

template <typename T>
T require(const GgufFile& file, std::string_view key, std::optional<T> value) {
  if (!value.has_value()) fail(file, ErrorCode::invalid_model, key, "is missing");
  return *value;
}

int require_int(const GgufFile& file, std::string_view key) {
  return require(file, key, read_int(file, key));
}

/// Options of the architecture that change the arithmetic and that specdec does not have.
void check_unsupported(const GgufFile& file) {
  constexpr std::array kMustBeZero = {
      "llama.expert_count",        "llama.expert_used_count",
      "llama.attention.clamp_kqv", "llama.attention.max_alibi_bias",
      "llama.logit_scale",         "llama.attention.sliding_window",
      "llama.residual_scale",      "llama.embedding_scale",
      "llama.attention.scale",
  };
  for (const std::string_view key : kMustBeZero) {
    if (file.is_array(key) || file.number(key).value_or(0.0) != 0.0) {
      fail(file, ErrorCode::unsupported, key, "is set; specdec runs plain Llama models only");
    }
  }
  if (file.boolean("llama.use_parallel_residual").value_or(false)) {
    fail(file, ErrorCode::unsupported, "llama.use_parallel_residual", "is set");
  }
  if (!file.boolean("llama.attention.causal").value_or(true)) {
    fail(file, ErrorCode::unsupported, "llama.attention.causal", "is false");
  }
  constexpr std::string_view kScaling = "llama.rope.scaling.type";
  const auto scaling = file.string(kScaling).value_or("none");
  const double factor = file.number("llama.rope.scaling.factor").value_or(1.0);
  const double linear = file.number("llama.rope.scale_linear").value_or(1.0);
  if ((scaling != "none" && factor != 1.0) || (linear != 1.0 && linear != 0.0)) {
    fail(file, ErrorCode::unsupported, kScaling,
         "rope scaling " + in_quotes(scaling) + " is not supported; Llama 3 scaling comes as the" +
             " tensor rope_freqs.weight");
  }
}

ModelConfig read_config(const GgufFile& file) {
  const auto architecture =
      require(file, "general.architecture", file.string("general.architecture"));
  if (architecture != "llama") {
    fail(file, ErrorCode::unsupported, "general.architecture",
         in_quotes(architecture) + " models are not supported; specdec runs 'llama'");
  }
  check_unsupported(file);
  ModelConfig config;
  config.name = file.string("general.name").value_or("");
  if (!is_utf8(config.name)) {
    fail(file, ErrorCode::invalid_model, "general.name", "is not UTF-8");
  }
  config.hidden_size = require_int(file, "llama.embedding_length");
  config.num_layers = require_int(file, "llama.block_count");
  config.num_heads = require_int(file, "llama.attention.head_count");
  config.num_kv_heads = read_int(file, "llama.attention.head_count_kv").value_or(config.num_heads);
  config.ffn_size = require_int(file, "llama.feed_forward_length");
  config.max_position = require_int(file, "llama.context_length");
  constexpr std::string_view kEpsilon = "llama.attention.layer_norm_rms_epsilon";
  config.norm_eps = static_cast<float>(require(file, kEpsilon, file.number(kEpsilon)));
  config.rope_theta =
      static_cast<float>(file.number("llama.rope.freq_base").value_or(config.rope_theta));

  constexpr std::string_view kKeyLength = "llama.attention.key_length";
  if (const auto head_dim = read_int(file, kKeyLength)) {
    config.head_dim = *head_dim;
  } else {
    if (config.num_heads < 1 || config.hidden_size % config.num_heads != 0) {
      fail(file, ErrorCode::invalid_model, "llama.attention.head_count",
           std::to_string(config.num_heads) + " heads do not divide the hidden size " +
               std::to_string(config.hidden_size) + " and " + std::string(kKeyLength) +
               " is missing");
    }
    config.head_dim = config.hidden_size / config.num_heads;
  }
  for (const std::string_view key :
       {"llama.attention.value_length", "llama.rope.dimension_count"}) {
    const int dim = read_int(file, key).value_or(config.head_dim);
    if (dim != config.head_dim) {
      fail(file, ErrorCode::unsupported, key,
           "is " + std::to_string(dim) + ", specdec needs the head size " +
               std::to_string(config.head_dim));
    }
  }
  return config;
}

/// What the tensors say about the configuration: vocabulary, tied head, rope factors.
void complete_config(const GgufFile& file, ModelConfig& config) {
  config.tied_head = true;
  for (const TensorView& tensor : file.tensors()) {
    if (tensor.name == kGgufNames.head) config.tied_head = false;
    if (tensor.name == kGgufNames.embedding) {
      config.vocab_size = static_cast<int>(tensor.shape.front());
    }
    if (tensor.name == "rope_freqs.weight") {
      if (tensor.type != kernels::DataType::f32 || tensor.shape.size() != 1 ||
          tensor.shape[0] * 2 != config.head_dim) {
        throw Error(ErrorCode::invalid_model, file.name() + ": tensor 'rope_freqs.weight' is " +
                                                  tensor.type_name + " " +
                                                  shape_text(tensor.shape) + ", must be F32 [" +
                                                  std::to_string(config.head_dim / 2) + "]");
      }
      config.rope_factors = read_floats(tensor);
    }
  }
  if (config.vocab_size == 0) {
    throw Error(ErrorCode::invalid_model, file.name() + ": tensor 'token_embd.weight' is missing");
  }
  const int vocab_size = read_int(file, "llama.vocab_size").value_or(config.vocab_size);
  if (vocab_size != config.vocab_size) {
    fail(file, ErrorCode::invalid_model, "llama.vocab_size",
         "is " + std::to_string(vocab_size) + ", but tensor 'token_embd.weight' has " +
             std::to_string(config.vocab_size) + " rows");
  }
}

}  // namespace

std::unique_ptr<ModelSource> open_gguf_model(std::shared_ptr<const MappedFile> file) {
  const auto gguf = std::make_shared<const GgufFile>(file);
  ModelParts parts;
  parts.name = gguf->name();
  parts.config = read_config(*gguf);
  complete_config(*gguf, parts.config);
  parts.files = {std::move(file)};
  parts.tensors = gguf->tensors();
  parts.pairs_layout = true;
  parts.load_tokenizer = [gguf, vocab_size = parts.config.vocab_size] {
    return make_bpe_tokenizer(read_gguf_tokenizer(*gguf, vocab_size));
  };
  return build_model(std::move(parts), kGgufNames);
}

}  // namespace specdec
