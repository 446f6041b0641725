#pragma once

#include <string>
#include <vector>

namespace specdec {

/// llama3 rope scaling (Llama 3.1); factor 1 = none.
struct RopeScaling {
  float factor = 1.0f;
  float low_freq_factor = 1.0f;
  float high_freq_factor = 4.0f;
  int original_max_position = 8192;
};

/// The shape of a Llama-architecture model.
struct ModelConfig {
  std::string name;
  int vocab_size = 0;
  int hidden_size = 0;
  int num_layers = 0;
  int num_heads = 0;
  int num_kv_heads = 0;
  int head_dim = 0;
  int ffn_size = 0;
  int max_position = 0;
  float norm_eps = 1e-5f;
  float rope_theta = 10000.0f;
  RopeScaling rope_scaling;
  std::vector<float> rope_factors;  // [head_dim / 2] divisors of the frequencies (GGUF
                                    // rope_freqs.weight); empty = none
  bool tied_head = false;           // the head is the embedding

  int qkv_rows() const noexcept { return (num_heads + 2 * num_kv_heads) * head_dim; }
};

/// RoPE angles: inverse frequency of each pair, [head_dim / 2], scaling applied. In double: the
/// same on every backend.
std::vector<double> rope_inverse_frequencies(const ModelConfig& config);

}  // namespace specdec
