#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "engine/model/model_config.h"
#include "kernels/ops.h"
#include "specdec/tokenizer.h"

namespace specdec {

/// Rows of a weight matrix as they lie in a mapped file: `data` holds `num_rows` rows of `cols`
/// elements in `type`.
struct RowSource {
  kernels::DataType type = kernels::DataType::f32;
  int cols = 0;
  int num_rows = 0;
  const std::byte* data = nullptr;
  /// For q and k of a file in the pairs layout (2i, 2i+1): rows of each head are to be read in the
  /// halves order, that is row r of a head comes from file row (r < d/2 ? 2r : 2(r - d/2) + 1). 0:
  /// as they lie.
  int interleaved_head_dim = 0;
};

/// A matrix as the concatenation of row sources (q, k, v; gate, up). One `type` per matrix is not
/// required by the file: the backend converts where sources differ.
struct MatrixSource {
  std::string name;
  std::vector<RowSource> parts;
  int pair_distance = 0;  // see kernels::PackedMatrix
  bool is_table = false;  // rows are read one by one: an embedding

  int rows() const noexcept;
  int cols() const noexcept { return parts.empty() ? 0 : parts.front().cols; }
};

struct LayerSource {
  std::vector<float> attention_norm;  // [hidden]
  MatrixSource qkv;                   // [(heads + 2 kv_heads) * head_dim, hidden]
  MatrixSource attention_output;      // [hidden, heads * head_dim]
  std::vector<float> ffn_norm;        // [hidden]
  MatrixSource gate_up;               // [2 * ffn, hidden]
  MatrixSource down;                  // [hidden, ffn]
};

/// A model file, opened, checked and mapped; nothing is copied but the norms. Lives until the
/// backend has packed it.
class ModelSource {
 public:
  virtual ~ModelSource() = default;

  virtual const ModelConfig& config() const noexcept = 0;
  virtual const MatrixSource& embedding() const noexcept = 0;       // [vocab, hidden]
  virtual const MatrixSource& head() const noexcept = 0;            // the embedding when tied
  virtual std::span<const float> output_norm() const noexcept = 0;  // [hidden]
  virtual std::span<const LayerSource> layers() const noexcept = 0;
  /// The file's tokenizer. Throws Error when it has none that specdec can read.
  virtual std::unique_ptr<Tokenizer> load_tokenizer() const = 0;
  /// The mapped pages behind `part` will not be read again (they leave the resident set).
  virtual void release(const MatrixSource& part) const noexcept = 0;
};

/// Opens a GGUF file (v2, v3; architecture llama) or a Hugging Face folder (LlamaForCausalLM;
/// config.json, *.safetensors, tokenizer.json). Every size, offset, count, type and string is
/// checked before use. Throws Error (io, invalid_model, unsupported) naming file, tensor or key,
/// and what is wrong.
std::unique_ptr<ModelSource> open_model(const std::filesystem::path& path);

}  // namespace specdec
