#pragma once

#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "engine/model/mapped_file.h"
#include "engine/model/tensor_view.h"
#include "engine/model/weights.h"

namespace specdec {

/// How a format names a Llama model's tensors; layer names follow `layer_prefix` + index + ".".
struct TensorNames {
  std::string_view embedding;
  std::string_view output_norm;
  std::string_view head;
  std::string_view layer_prefix;
  std::string_view attention_norm;
  std::string_view q, k, v, attention_output;
  std::string_view ffn_norm;
  std::string_view gate, up, down;
  /// Tensors that carry nothing for us: names, or endings of layer tensors' names.
  std::vector<std::string_view> ignored;
};

/// What a reader of a format found.
struct ModelParts {
  std::string name;  // the file or folder, for messages
  std::vector<std::shared_ptr<const MappedFile>> files;
  std::vector<TensorView> tensors;
  ModelConfig config;
  bool pairs_layout = false;  // q and k rows in the pairs layout (GGUF)
  std::function<std::unique_ptr<Tokenizer>()> load_tokenizer;
};

/// Checks the configuration and every tensor against it. A tensor that is no part of a Llama model
/// (a bias, an expert) is an error: leaving it out would change the answers. Throws Error
/// (invalid_model, unsupported) naming file and tensor.
std::unique_ptr<ModelSource> build_model(ModelParts parts, const TensorNames& names);

}  // namespace specdec
