#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include "engine/model/model_config.h"
#include "kernels/ops.h"
#include "specdec/types.h"
#include "support/gguf_file_spec.h"

namespace specdec::testing {

/// A tensor under its Hugging Face name, row-major; q and k rows in the halves layout.
struct RandomTensor {
  std::string name;
  std::vector<std::int64_t> shape;
  std::vector<float> values;
};

/// A Llama model with random weights, in no file format yet.
struct RandomModel {
  ModelConfig config;
  std::vector<RandomTensor> tensors;

  const RandomTensor& tensor(std::string_view name) const;
};

/// Hidden 32, one layer, 2 heads, 1 KV head, head size 16, FFN 64, vocabulary 300, context 512,
/// tied head: every row is a multiple of 32, so that any weight type fits.
ModelConfig micro_model_config();

/// Each tensor's values depend on `seed`, its name and its shape alone: models of the same seed and
/// sizes share the layers that both have. Weights are scaled so that greedy answers do not collapse
/// onto one token.
RandomModel random_model(const ModelConfig& config, std::uint64_t seed);

/// A twin that agrees in part, for use as a draft: `amount` in [0, 1] of every matrix's variance is
/// drawn anew.
RandomModel perturbed_model(const RandomModel& model, float amount, std::uint64_t seed);

/// A byte-level BPE vocabulary: specials (<|endoftext|> = 0; with ChatML <|im_start|> = 1,
/// <|im_end|> = 2), the 256 bytes, then merges of letters until `vocab_size` (>= 260). Written with
/// the smollm pre-tokenizer.
struct TestTokenizer {
  TestTokenizer(int vocab_size, bool chatml);

  std::vector<std::string> tokens;
  std::vector<std::string> merges;
  int num_special = 0;
  int eos_token = 0;
  std::string chat_template;  // empty without ChatML
};

struct GgufOptions {
  kernels::DataType type = kernels::DataType::f32;  // of the layers' matrices
  kernels::DataType embedding_type = kernels::DataType::f32;
  std::uint32_t version = 3;
  std::uint32_t alignment = 32;
  bool chatml = true;
  bool tokenizer = true;  // false: no tokenizer metadata, and any vocabulary size
  const TestTokenizer* own_tokenizer = nullptr;  // instead of the one of this vocabulary size
};

struct HfOptions {
  kernels::DataType type = kernels::DataType::f32;  // f32, f16 or bf16
  int num_shards = 1;                               // above 1: with model.safetensors.index.json
  bool chatml = true;
};

/// The model as a GGUF file (q and k in the pairs layout, norms F32), to be bent or written.
GgufFileSpec gguf_spec(const RandomModel& model, const GgufOptions& options = {});
/// As a safetensors file: all tensors, or those of one shard.
std::vector<std::byte> safetensors_bytes(const RandomModel& model, const HfOptions& options = {},
                                         int shard = 0);
std::string hf_config_json(const ModelConfig& config);
std::string tokenizer_json(const TestTokenizer& tokenizer);

void write_gguf(const std::filesystem::path& path, const RandomModel& model,
                const GgufOptions& options = {});
/// config.json, safetensors, tokenizer.json, tokenizer_config.json, generation_config.json; makes
/// the folder.
void write_hf_folder(const std::filesystem::path& folder, const RandomModel& model,
                     const HfOptions& options = {});

/// How an EAGLE-3 head is written.
struct EagleOptions {
  bool speculators = false;  // that dialect's config.json and tensor names; else SpecForge's
  kernels::DataType type = kernels::DataType::f32;
  int draft_vocab_size = 0;  // 0: the target's vocabulary, without d2t
  bool own_embedding = false;
  bool norm_before_residual = false;
  std::vector<int> feature_layers = {1, 2, 4};  // of the target, whose inputs the head takes
};

/// A random EAGLE-3 head for a target of `target`'s shape: one layer as wide as the target's.
/// config.json and model.safetensors; makes the folder. Tensors stand under their names in the
/// SpecForge dialect.
RandomModel random_eagle_head(const ModelConfig& target, std::uint64_t seed,
                              const EagleOptions& options = {});
std::string eagle_config_json(const RandomModel& head, const EagleOptions& options = {});
std::vector<std::byte> eagle_safetensors_bytes(const RandomModel& head,
                                               const EagleOptions& options = {});
void write_eagle_folder(const std::filesystem::path& folder, const RandomModel& head,
                        const EagleOptions& options = {});
/// The target's tokens that a head of a smaller vocabulary knows: [draft_vocab_size], rising.
std::vector<TokenId> eagle_target_tokens(int draft_vocab_size, int vocab_size);

/// How Medusa heads are written.
struct MedusaOptions {
  bool vllm = false;        // vLLM's names for file, keys and tensors; else FasterDecoding's
  std::string prefix = {};  // before the latter
  kernels::DataType type = kernels::DataType::f32;
  int num_heads = 3;
  int num_blocks = 1;
  bool bias = true;
};

/// Random Medusa heads for a target of `target`'s shape, under FasterDecoding's names.
RandomModel random_medusa(const ModelConfig& target, std::uint64_t seed,
                          const MedusaOptions& options = {});
/// Heads that all say what the target itself says, whose head must be tied: the token after the one
/// that the feature belongs to.
RandomModel copying_medusa(const RandomModel& target, int num_heads);
void write_medusa_folder(const std::filesystem::path& folder, const RandomModel& heads,
                         const MedusaOptions& options = {});

void write_file(const std::filesystem::path& path, const std::vector<std::byte>& bytes);
void write_file(const std::filesystem::path& path, std::string_view text);

}  // namespace specdec::testing
