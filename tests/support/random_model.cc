#include <cmath>
#include <stdexcept>

#include "support/model_writer.h"

namespace specdec::testing {
namespace {

/// splitmix64 (Steele, Lea, Flood 2014): the same numbers everywhere, unlike <random>'s
/// distributions.
class Noise {
 public:
  Noise(std::uint64_t seed, std::string_view name) : state_(seed) {
    for (const char c : name) state_ = next() ^ static_cast<unsigned char>(c);
  }

  /// Mean 0, variance 1, about normal: the sum of four uniforms.
  float normal() {
    double sum = -2.0;
    for (int i = 0; i < 4; ++i) sum += static_cast<double>(next() >> 11) * 0x1p-53;
    return static_cast<float>(sum * 1.7320508075688772);
  }

 private:
  std::uint64_t next() {
    std::uint64_t z = state_ += 0x9e3779b97f4a7c15u;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
  }

  std::uint64_t state_;
};

RandomTensor random_tensor(std::uint64_t seed, std::string name, std::vector<std::int64_t> shape,
                           float mean, float deviation) {
  RandomTensor tensor{std::move(name), std::move(shape), {}};
  std::int64_t size = 1;
  for (const std::int64_t dimension : tensor.shape) size *= dimension;
  Noise noise(seed, tensor.name);
  tensor.values.reserve(static_cast<std::size_t>(size));
  for (std::int64_t i = 0; i < size; ++i)
    tensor.values.push_back(mean + deviation * noise.normal());
  return tensor;
}

}  // namespace

const RandomTensor& RandomModel::tensor(std::string_view name) const {
  for (const RandomTensor& tensor : tensors) {
    if (tensor.name == name) return tensor;
  }
  throw std::out_of_range("RandomModel: no tensor " + std::string(name));
}

ModelConfig micro_model_config() {
  ModelConfig config;
  config.name = "micro";
  config.vocab_size = 300;
  config.hidden_size = 32;
  config.num_layers = 1;
  config.num_heads = 2;
  config.num_kv_heads = 1;
  config.head_dim = 16;
  config.ffn_size = 64;
  config.max_position = 512;
  config.tied_head = true;
  return config;
}

RandomModel random_model(const ModelConfig& config, std::uint64_t seed) {
  RandomModel model{config, {}};
  const auto norm = [&](const std::string& name, float mean) {
    model.tensors.push_back(random_tensor(seed, name, {config.hidden_size}, mean, 0.1f * mean));
  };
  const auto matrix = [&](const std::string& name, int rows, int cols, float gain) {
    model.tensors.push_back(
        random_tensor(seed, name, {rows, cols}, 0.0f, gain / std::sqrt(static_cast<float>(cols))));
  };
  const int hidden = config.hidden_size;
  const int q_rows = config.num_heads * config.head_dim;
  const int kv_rows = config.num_kv_heads * config.head_dim;
  // A small embedding beside larger layer outputs: else a tied head sees the last token in the
  // residual and repeats it for ever. The final norm's weight spreads the logits by about 3.
  const float embedding_deviation = 0.2f;
  model.tensors.push_back(random_tensor(seed, "model.embed_tokens.weight",
                                        {config.vocab_size, hidden}, 0.0f, embedding_deviation));
  for (int i = 0; i < config.num_layers; ++i) {
    const std::string layer = "model.layers." + std::to_string(i) + ".";
    norm(layer + "input_layernorm.weight", 1.0f);
    matrix(layer + "self_attn.q_proj.weight", q_rows, hidden, 1.5f);
    matrix(layer + "self_attn.k_proj.weight", kv_rows, hidden, 1.5f);
    matrix(layer + "self_attn.v_proj.weight", kv_rows, hidden, 1.0f);
    matrix(layer + "self_attn.o_proj.weight", hidden, q_rows, 1.0f);
    norm(layer + "post_attention_layernorm.weight", 1.0f);
    matrix(layer + "mlp.gate_proj.weight", config.ffn_size, hidden, 1.0f);
    matrix(layer + "mlp.up_proj.weight", config.ffn_size, hidden, 1.0f);
    matrix(layer + "mlp.down_proj.weight", hidden, config.ffn_size, 2.0f);
  }
  norm("model.norm.weight", 3.0f / (embedding_deviation * std::sqrt(static_cast<float>(hidden))));
  if (!config.tied_head) {
    model.tensors.push_back(random_tensor(seed, "lm_head.weight", {config.vocab_size, hidden}, 0.0f,
                                          embedding_deviation));
  }
  return model;
}

RandomModel perturbed_model(const RandomModel& model, float amount, std::uint64_t seed) {
  RandomModel twin = model;
  const RandomModel other = random_model(model.config, seed);
  const float kept = std::sqrt(1.0f - amount);
  const float added = std::sqrt(amount);
  for (std::size_t t = 0; t < twin.tensors.size(); ++t) {
    if (twin.tensors[t].shape.size() == 1) continue;
    auto& values = twin.tensors[t].values;
    for (std::size_t i = 0; i < values.size(); ++i) {
      values[i] = kept * values[i] + added * other.tensors[t].values[i];
    }
  }
  return twin;
}

}  // namespace specdec::testing
