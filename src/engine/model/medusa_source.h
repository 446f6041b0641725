#pragma once

#include <filesystem>
#include <memory>
#include <vector>

#include "engine/model/head_tensors.h"
#include "engine/model/mapped_file.h"
#include "engine/model/model_config.h"
#include "engine/model/weights.h"

namespace specdec {

/// Medusa heads (arXiv 2401.10774) as their folder describes them. Head i turns the target's last
/// hidden state h, after its final norm, into logits of the token i + 2 places on: blocks
/// h + silu(W h + b) one after the other, then a matrix of the vocabulary.
struct MedusaSource {
  struct Block {
    MatrixSource weight;      // [hidden, hidden]
    std::vector<float> bias;  // [hidden]; empty: none
  };
  struct Head {
    std::vector<Block> blocks;
    MatrixSource output;  // [vocab, hidden]
  };
  std::vector<Head> heads;

  std::shared_ptr<const MappedFile> file;
  std::vector<std::vector<std::byte>> converted;  // what does not lie in the file as it is needed
};

/// Whether `path` is a folder of Medusa heads: it holds medusa_lm_head.safetensors, or its
/// config.json says so.
bool is_medusa(const std::filesystem::path& path);

/// Opens the heads for the target of shape `target`. The names of FasterDecoding's checkpoints
/// ("0.0.linear.weight", "0.0.linear.bias", "0.1.weight", with or without "medusa_head." before
/// them) or those that vLLM converts them to ("blocks.0.layers.0.weight", "lm_heads.0.weight").
/// Throws Error (io, invalid_model, unsupported) naming file, tensor or key.
std::unique_ptr<MedusaSource> open_medusa(const std::filesystem::path& path,
                                          const ModelConfig& target, HeadWeights weights);

}  // namespace specdec
