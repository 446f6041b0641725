#pragma once

#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "engine/model/head_tensors.h"
#include "engine/model/mapped_file.h"
#include "engine/model/model_config.h"
#include "engine/model/weights.h"
#include "specdec/types.h"

namespace specdec {

/// An EAGLE-3 head (arXiv 2503.01840) as its folder describes it: config.json and
/// model.safetensors, in the dialect of SafeAILab and SpecForge or in that of `speculators`.
struct EagleSource {
  ModelConfig layer;         // the head's one decoder layer; vocab_size is the target's
  int draft_vocab_size = 0;  // rows of `head`
  int target_hidden_size = 0;
  /// The target's layers whose inputs are the features, in the order in which `fc` takes them.
  std::vector<int> feature_layers;
  /// The residual of the attention is the normed hidden state instead of the raw one.
  bool norm_before_residual = false;

  std::optional<MatrixSource> embedding;  // [vocab, hidden]; unset: the target's
  std::vector<MatrixSource> fc;           // [hidden, target_hidden] for each feature layer
  std::vector<float> input_norm;          // [hidden], of the embedding
  std::vector<float> hidden_norm;         // [hidden], of the hidden state
  MatrixSource qkv;                       // [(heads + 2 kv_heads) * head_dim, 2 * hidden]
  MatrixSource attention_output;          // [hidden, heads * head_dim]
  std::vector<float> ffn_norm;            // [hidden]
  MatrixSource gate_up;                   // [2 * ffn, hidden]
  MatrixSource down;                      // [hidden, ffn]
  std::vector<float> output_norm;         // [hidden]
  MatrixSource head;                      // [draft_vocab, hidden]
  /// [draft_vocab] the target's token for each row of `head`; empty: the same numbers.
  std::vector<TokenId> target_tokens;

  std::shared_ptr<const MappedFile> file;
  std::vector<std::vector<std::byte>> converted;  // what does not lie in the file as it is needed
};

/// Whether `path` is a folder whose config.json names an EAGLE-3 head. False also where there is
/// none: open_model() then says what is wrong.
bool is_eagle_head(const std::filesystem::path& path);

/// Opens a head for the target of shape `target`; everything is checked against both
/// configurations. Throws Error (io, invalid_model, unsupported) naming file, tensor or key.
std::unique_ptr<EagleSource> open_eagle_head(const std::filesystem::path& path,
                                             const ModelConfig& target, HeadWeights weights);
/// The same for a configuration and weights that are in memory already.
std::unique_ptr<EagleSource> read_eagle_head(std::string_view config_json,
                                             const std::string& config_name,
                                             std::shared_ptr<const MappedFile> file,
                                             const ModelConfig& target, HeadWeights weights);

}  // namespace specdec
