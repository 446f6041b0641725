#include "model/model_test_support.h"

#include <doctest/doctest.h>
#include <unistd.h>

#include <atomic>
#include <utility>

#include "engine/model/tensor_view.h"
#include "support/quantise.h"

namespace specdec::testing {

using kernels::DataType;

TemporaryFolder::TemporaryFolder() {
  static std::atomic<int> next{0};
  path_ = std::filesystem::temp_directory_path() /
          ("specdec_model_tests_" + std::to_string(::getpid()) + "_" + std::to_string(next++));
  std::filesystem::create_directories(path_);
}

TemporaryFolder::~TemporaryFolder() {
  std::error_code ignored;
  std::filesystem::remove_all(path_, ignored);
}

std::shared_ptr<const MappedFile> in_memory(std::vector<std::byte> bytes, std::string name) {
  return MappedFile::from_bytes(std::move(bytes), std::move(name));
}

std::vector<float> matrix_values(const MatrixSource& matrix) {
  std::vector<float> values;
  for (const RowSource& part : matrix.parts) {
    const std::size_t row_bytes = tensor_bytes(part.type, static_cast<std::size_t>(part.cols));
    const int dim = part.interleaved_head_dim;
    for (int row = 0; row < part.num_rows; ++row) {
      int source = row;
      if (dim != 0) {
        const int inside = row % dim;
        source = row - inside + (inside < dim / 2 ? 2 * inside : 2 * (inside - dim / 2) + 1);
      }
      const auto floats = dequantise(
          {part.data + static_cast<std::size_t>(source) * row_bytes, row_bytes}, part.type);
      values.insert(values.end(), floats.begin(), floats.end());
    }
  }
  return values;
}

std::vector<float> rounded(const RandomTensor& tensor, DataType type) {
  return dequantise(quantise(tensor.values, type), type);
}

void check_same_model(const ModelSource& source, const RandomModel& model, DataType type,
                      DataType table_type) {
  const auto joined = [&](std::initializer_list<std::string> names) {
    std::vector<float> values;
    for (const std::string& name : names) {
      const auto part = rounded(model.tensor(name), type);
      values.insert(values.end(), part.begin(), part.end());
    }
    return values;
  };
  const ModelConfig& config = source.config();
  CHECK(config.vocab_size == model.config.vocab_size);
  CHECK(config.hidden_size == model.config.hidden_size);
  CHECK(config.num_layers == model.config.num_layers);
  CHECK(config.num_heads == model.config.num_heads);
  CHECK(config.num_kv_heads == model.config.num_kv_heads);
  CHECK(config.head_dim == model.config.head_dim);
  CHECK(config.ffn_size == model.config.ffn_size);
  CHECK(config.max_position == model.config.max_position);
  CHECK(config.norm_eps == model.config.norm_eps);
  CHECK(config.rope_theta == model.config.rope_theta);
  CHECK(config.tied_head == model.config.tied_head);
  CHECK(config.rope_factors == model.config.rope_factors);
  CHECK(config.name == model.config.name);

  CHECK(matrix_values(source.embedding()) ==
        rounded(model.tensor("model.embed_tokens.weight"), table_type));
  const auto& head =
      model.tensor(config.tied_head ? "model.embed_tokens.weight" : "lm_head.weight");
  CHECK(matrix_values(source.head()) == rounded(head, table_type));
  if (config.tied_head) CHECK(&source.head() == &source.embedding());
  const auto norm_type = type == DataType::f16 || type == DataType::bf16 ? type : DataType::f32;
  // GGUF norms stay F32 whatever the matrices are; safetensors norms have the file's type.
  const auto norm_matches = [&](std::span<const float> values, const std::string& name) {
    const std::vector<float> got(values.begin(), values.end());
    return got == model.tensor(name).values || got == rounded(model.tensor(name), norm_type);
  };
  CHECK(norm_matches(source.output_norm(), "model.norm.weight"));
  REQUIRE(source.layers().size() == static_cast<std::size_t>(config.num_layers));
  for (std::size_t i = 0; i < source.layers().size(); ++i) {
    const LayerSource& layer = source.layers()[i];
    const std::string prefix = "model.layers." + std::to_string(i) + ".";
    CHECK(norm_matches(layer.attention_norm, prefix + "input_layernorm.weight"));
    CHECK(norm_matches(layer.ffn_norm, prefix + "post_attention_layernorm.weight"));
    CHECK(layer.qkv.rows() == config.qkv_rows());
    CHECK(matrix_values(layer.qkv) ==
          joined({prefix + "self_attn.q_proj.weight", prefix + "self_attn.k_proj.weight",
                  prefix + "self_attn.v_proj.weight"}));
    CHECK(matrix_values(layer.attention_output) == joined({prefix + "self_attn.o_proj.weight"}));
    CHECK(matrix_values(layer.gate_up) ==
          joined({prefix + "mlp.gate_proj.weight", prefix + "mlp.up_proj.weight"}));
    CHECK(matrix_values(layer.down) == joined({prefix + "mlp.down_proj.weight"}));
  }
}

namespace {

void require_matrix(const MatrixSource& matrix, int rows, int cols,
                    const std::vector<std::shared_ptr<const MappedFile>>& files) {
  REQUIRE(matrix.rows() == rows);
  REQUIRE(matrix.cols() == cols);
  for (const RowSource& part : matrix.parts) {
    REQUIRE(part.cols == cols);
    REQUIRE(cols % block_elements(part.type) == 0);
    const std::size_t size = tensor_bytes(
        part.type, static_cast<std::size_t>(part.num_rows) * static_cast<std::size_t>(cols));
    bool inside = false;
    for (const auto& file : files) {
      inside |= file->contains(part.data) && file->contains(part.data + size - 1);
    }
    REQUIRE(inside);
  }
}

}  // namespace

void check_valid(const ModelSource& source,
                 const std::vector<std::shared_ptr<const MappedFile>>& files) {
  const ModelConfig& config = source.config();
  const auto hidden = static_cast<std::size_t>(config.hidden_size);
  require_matrix(source.embedding(), config.vocab_size, config.hidden_size, files);
  require_matrix(source.head(), config.vocab_size, config.hidden_size, files);
  REQUIRE(source.output_norm().size() == hidden);
  REQUIRE(source.layers().size() == static_cast<std::size_t>(config.num_layers));
  for (const LayerSource& layer : source.layers()) {
    REQUIRE(layer.attention_norm.size() == hidden);
    REQUIRE(layer.ffn_norm.size() == hidden);
    require_matrix(layer.qkv, config.qkv_rows(), config.hidden_size, files);
    require_matrix(layer.attention_output, config.hidden_size, config.num_heads * config.head_dim,
                   files);
    require_matrix(layer.gate_up, 2 * config.ffn_size, config.hidden_size, files);
    require_matrix(layer.down, config.hidden_size, config.ffn_size, files);
  }
  for (const double frequency : rope_inverse_frequencies(config)) REQUIRE(frequency > 0.0);
}

void check_error(const std::function<void()>& action, ErrorCode code,
                 const std::vector<std::string>& fragments) {
  try {
    action();
  } catch (const Error& error) {
    const std::string message = error.what();
    INFO(message);
    CHECK(error.code() == code);
    for (const std::string& fragment : fragments) {
      INFO("wanted: " << fragment);
      CHECK(message.find(fragment) != std::string::npos);
    }
    return;
  }
  FAIL_CHECK("no error");
}

GgufFileSpec good_gguf_spec() {
  GgufOptions options;
  options.type = DataType::q4_0;
  options.embedding_type = DataType::q8_0;
  return gguf_spec(random_model(micro_model_config(), 7), options);
}

void check_gguf_cases(const std::vector<GgufCase>& cases,
                      const std::function<void(std::shared_ptr<const MappedFile>)>& open) {
  for (const GgufCase& c : cases) {
    CAPTURE(c.name);
    GgufFileSpec spec = good_gguf_spec();
    c.bend(spec);
    std::vector<std::string> fragments = {"bent.gguf: "};
    fragments.insert(fragments.end(), c.fragments.begin(), c.fragments.end());
    check_error([&] { open(in_memory(spec.bytes(), "bent.gguf")); }, c.code, fragments);
  }
}

}  // namespace specdec::testing
