#include "engine/model/model_builder.h"

#include <algorithm>
#include <array>
#include <cstdint>
#include <unordered_map>
#include <utility>

#include "engine/model/config_check.h"
#include "specdec/error.h"

namespace specdec {

int MatrixSource::rows() const noexcept {
  int rows = 0;
  for (const RowSource& part : parts) rows += part.num_rows;
  return rows;
}

namespace {

using kernels::DataType;

class LoadedModel final : public ModelSource {
 public:
  const ModelConfig& config() const noexcept override { return parts.config; }
  const MatrixSource& embedding() const noexcept override { return embedding_matrix; }
  const MatrixSource& head() const noexcept override {
    return parts.config.tied_head ? embedding_matrix : head_matrix;
  }
  std::span<const float> output_norm() const noexcept override { return output_norm_weight; }
  std::span<const LayerSource> layers() const noexcept override { return layer_sources; }
  std::unique_ptr<Tokenizer> load_tokenizer() const override { return parts.load_tokenizer(); }

  void release(const MatrixSource& matrix) const noexcept override {
    for (const RowSource& rows : matrix.parts) {
      const std::size_t size = tensor_bytes(
          rows.type, static_cast<std::size_t>(rows.num_rows) * static_cast<std::size_t>(rows.cols));
      for (const auto& file : parts.files) {
        if (file->contains(rows.data)) file->release({rows.data, size});
      }
    }
  }

  ModelParts parts;
  MatrixSource embedding_matrix;
  MatrixSource head_matrix;
  std::vector<float> output_norm_weight;
  std::vector<LayerSource> layer_sources;
  std::vector<std::vector<std::byte>> aligned_copies;
};

class Builder {
 public:
  Builder(LoadedModel& model, const TensorNames& names) : model_(model), names_(names) {
    for (TensorView& tensor : model.parts.tensors) {
      const auto [it, is_new] = tensors_.emplace(tensor.name, Entry{&tensor, false});
      if (!is_new) {
        throw Error(
            ErrorCode::invalid_model,
            tensor.file + ": tensor " + in_quotes(tensor.name) + " appears twice" +
                (it->second.tensor->file == tensor.file ? std::string()
                                                        : ", also in " + it->second.tensor->file));
      }
    }
  }

  void build() {
    const ModelConfig& config = model_.parts.config;
    const int q_rows = config.num_heads * config.head_dim;
    const int kv_rows = config.num_kv_heads * config.head_dim;
    const int pairs = model_.parts.pairs_layout ? config.head_dim : 0;
    model_.embedding_matrix = matrix(std::string(names_.embedding), config.hidden_size,
                                     {{names_.embedding, config.vocab_size, 0}});
    model_.embedding_matrix.is_table = true;
    model_.output_norm_weight = vector(names_.output_norm, config.hidden_size);
    if (config.tied_head) {
      // Some writers store the shared matrix a second time; the configuration says it is the same.
      const auto head = tensors_.find(names_.head);
      if (head != tensors_.end()) head->second.used = true;
    } else {
      model_.head_matrix = matrix(std::string(names_.head), config.hidden_size,
                                  {{names_.head, config.vocab_size, 0}});
    }
    for (int i = 0; i < config.num_layers; ++i) {
      const std::string prefix = std::string(names_.layer_prefix) + std::to_string(i) + ".";
      const auto name = [&](std::string_view ending) { return prefix + std::string(ending); };
      LayerSource layer;
      layer.attention_norm = vector(name(names_.attention_norm), config.hidden_size);
      layer.qkv = matrix(prefix + "qkv", config.hidden_size,
                         {{name(names_.q), q_rows, pairs},
                          {name(names_.k), kv_rows, pairs},
                          {name(names_.v), kv_rows, 0}});
      layer.qkv.pair_distance = config.head_dim / 2;
      layer.attention_output = matrix(name(names_.attention_output), q_rows,
                                      {{name(names_.attention_output), config.hidden_size, 0}});
      layer.ffn_norm = vector(name(names_.ffn_norm), config.hidden_size);
      layer.gate_up =
          matrix(prefix + "gate_up", config.hidden_size,
                 {{name(names_.gate), config.ffn_size, 0}, {name(names_.up), config.ffn_size, 0}});
      layer.gate_up.pair_distance = config.ffn_size;
      layer.down =
          matrix(name(names_.down), config.ffn_size, {{name(names_.down), config.hidden_size, 0}});
      model_.layer_sources.push_back(std::move(layer));
    }
    check_unused();
  }

 private:
  struct Entry {
    const TensorView* tensor;
    bool used;
  };
  struct Part {
    Part(std::string_view tensor, int num_rows, int interleaved)
        : name(tensor), rows(num_rows), interleaved_head_dim(interleaved) {}
    std::string name;
    int rows;
    int interleaved_head_dim;
  };

  const TensorView& take(std::string_view name, std::initializer_list<std::int64_t> shape) {
    const auto found = tensors_.find(name);
    if (found == tensors_.end()) {
      throw Error(ErrorCode::invalid_model,
                  model_.parts.name + ": tensor " + in_quotes(name) + " is missing");
    }
    found->second.used = true;
    const TensorView& tensor = *found->second.tensor;
    if (!std::ranges::equal(tensor.shape, shape)) {
      throw Error(ErrorCode::invalid_model, tensor.file + ": tensor " + in_quotes(name) +
                                                " has shape " + shape_text(tensor.shape) +
                                                ", the configuration asks for " +
                                                shape_text(std::vector<std::int64_t>(shape)));
    }
    if (!tensor.type.has_value()) {
      throw Error(ErrorCode::unsupported, tensor.file + ": tensor " + in_quotes(name) +
                                              " has type " + tensor.type_name +
                                              "; convert the model to F32, F16 or BF16");
    }
    return tensor;
  }

  std::vector<float> vector(std::string_view name, int size) {
    const TensorView& tensor = take(name, {size});
    if (block_elements(*tensor.type) != 1) {
      throw Error(ErrorCode::unsupported, tensor.file + ": norm tensor " + in_quotes(name) +
                                              " is quantised to " + tensor.type_name +
                                              "; norms must be F32, F16 or BF16");
    }
    return read_floats(tensor);
  }

  MatrixSource matrix(std::string name, int cols, const std::vector<Part>& parts) {
    MatrixSource result{std::move(name), {}, 0};
    for (const Part& part : parts) {
      const TensorView& tensor = take(part.name, {part.rows, cols});
      result.parts.push_back(
          {*tensor.type, cols, part.rows, aligned(tensor), part.interleaved_head_dim});
    }
    return result;
  }

  /// safetensors promises no alignment; kernels read elements whole, so a tensor that lies askew is
  /// copied. GGUF tensors never do.
  const std::byte* aligned(const TensorView& tensor) {
    const std::size_t width = *tensor.type == DataType::f32 ? 4 : 2;
    if (reinterpret_cast<std::uintptr_t>(tensor.data.data()) % width == 0) {
      return tensor.data.data();
    }
    return model_.aligned_copies.emplace_back(tensor.data.begin(), tensor.data.end()).data();
  }

  void check_unused() const {
    for (const TensorView& tensor : model_.parts.tensors) {
      if (tensors_.at(tensor.name).used) continue;
      if (std::ranges::any_of(names_.ignored, [&](std::string_view ending) {
            return std::string_view(tensor.name).ends_with(ending);
          })) {
        continue;
      }
      throw Error(ErrorCode::unsupported,
                  tensor.file + ": tensor " + in_quotes(tensor.name) +
                      " is no part of a Llama model with " +
                      std::to_string(model_.parts.config.num_layers) +
                      " layers; specdec runs plain Llama models only (no biases, no experts)");
    }
  }

  LoadedModel& model_;
  const TensorNames& names_;
  std::unordered_map<std::string_view, Entry> tensors_;
};

}  // namespace

std::unique_ptr<ModelSource> build_model(ModelParts parts, const TensorNames& names) {
  check_config(parts.config, parts.name);
  auto model = std::make_unique<LoadedModel>();
  model->parts = std::move(parts);
  Builder(*model, names).build();
  model->parts.tensors = {};
  return model;
}

}  // namespace specdec
