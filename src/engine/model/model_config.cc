#include "engine/model/model_config.h"

#include <cmath>
#include <numbers>

#include "engine/model/config_check.h"
#include "specdec/error.h"

namespace specdec {

std::vector<double> rope_inverse_frequencies(const ModelConfig& config) {
  if (config.head_dim <= 0 || config.head_dim % 2 != 0) {
    throw Error(ErrorCode::invalid_argument, "rope_inverse_frequencies: head_dim " +
                                                 std::to_string(config.head_dim) +
                                                 " must be positive and even");
  }
  const auto pairs = static_cast<std::size_t>(config.head_dim / 2);
  if (!config.rope_factors.empty() && config.rope_factors.size() != pairs) {
    throw Error(ErrorCode::invalid_argument,
                "rope_inverse_frequencies: " + std::to_string(config.rope_factors.size()) +
                    " rope factors for " + std::to_string(pairs) + " pairs");
  }
  const RopeScaling& scaling = config.rope_scaling;
  std::vector<double> frequencies(pairs);
  for (std::size_t i = 0; i < pairs; ++i) {
    const double exponent = -2.0 * static_cast<double>(i) / config.head_dim;
    double frequency = std::pow(static_cast<double>(config.rope_theta), exponent);
    if (!config.rope_factors.empty()) frequency /= static_cast<double>(config.rope_factors[i]);
    if (scaling.factor != 1.0f) {
      // Llama 3.1: wavelengths that fit into the original context high_freq_factor times stay;
      // those that fit fewer than low_freq_factor times are stretched; in between both are blended.
      const double low = scaling.low_freq_factor;
      const double high = scaling.high_freq_factor;
      const double turns = scaling.original_max_position * frequency / (2.0 * std::numbers::pi);
      const double kept = std::fmin(std::fmax((turns - low) / (high - low), 0.0), 1.0);
      frequency = (1.0 - kept) * frequency / scaling.factor + kept * frequency;
    }
    frequencies[i] = frequency;
  }
  return frequencies;
}

namespace {

void check_range(std::string_view file, const char* what, double value, double low, double high) {
  if (value >= low && value <= high) return;
  char text[160];
  std::snprintf(text, sizeof text, "%s is %.9g, must lie in %.9g..%.9g", what, value, low, high);
  throw Error(ErrorCode::invalid_model, std::string(file) + ": " + text);
}

}  // namespace

void check_config(const ModelConfig& config, std::string_view file) {
  // Bounds far above any model, low enough that products of two sizes stay inside an int where the
  // product counts rows, and inside 64 bits everywhere else.
  check_range(file, "the vocabulary size", config.vocab_size, 1, 1 << 24);
  check_range(file, "the hidden size", config.hidden_size, 1, 1 << 20);
  check_range(file, "the number of layers", config.num_layers, 1, 1 << 12);
  check_range(file, "the number of heads", config.num_heads, 1, 1 << 14);
  check_range(file, "the number of KV heads", config.num_kv_heads, 1, config.num_heads);
  check_range(file, "the head size", config.head_dim, 2, 1 << 14);
  check_range(file, "the FFN size", config.ffn_size, 1, 1 << 24);
  check_range(file, "the context length", config.max_position, 1, 1 << 30);
  check_range(file, "the norm epsilon", config.norm_eps, 0, 1);
  check_range(file, "the rope theta", config.rope_theta, 1, 1e15);
  const auto fail = [&](const std::string& what) {
    throw Error(ErrorCode::invalid_model, std::string(file) + ": " + what);
  };
  if (config.num_heads % config.num_kv_heads != 0) {
    fail("the number of heads (" + std::to_string(config.num_heads) +
         ") is no multiple of the number of KV heads (" + std::to_string(config.num_kv_heads) +
         ")");
  }
  if (config.head_dim % 2 != 0) {
    fail("the head size (" + std::to_string(config.head_dim) + ") must be even for RoPE");
  }
  check_range(file, "heads x head size",
              static_cast<double>(config.num_heads) * static_cast<double>(config.head_dim), 1,
              1 << 20);
  const RopeScaling& scaling = config.rope_scaling;
  check_range(file, "the rope scaling factor", scaling.factor, 1, 1e6);
  if (scaling.factor != 1.0f) {
    check_range(file, "the rope scaling low_freq_factor", scaling.low_freq_factor, 0, 1e6);
    check_range(file, "the rope scaling high_freq_factor", scaling.high_freq_factor, 0, 1e6);
    check_range(file, "the rope scaling original_max_position_embeddings",
                scaling.original_max_position, 1, 1 << 30);
    if (scaling.high_freq_factor <= scaling.low_freq_factor) {
      fail("the rope scaling high_freq_factor must be above low_freq_factor");
    }
  }
  for (const float factor : config.rope_factors) {
    check_range(file, "a rope frequency factor", factor, 1e-6, 1e6);
  }
}

}  // namespace specdec
