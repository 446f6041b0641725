#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>

#include "engine/model/medusa_heads.h"
#include "engine/model/medusa_source.h"
#include "model/model_test_support.h"

using namespace specdec;
using namespace specdec::testing;
using kernels::DataType;

namespace {

ModelConfig target_config() {
  ModelConfig config = micro_model_config();
  config.num_layers = 2;
  config.hidden_size = 64;
  return config;
}

std::unique_ptr<MedusaSource> open(const std::filesystem::path& folder) {
  return open_medusa(folder, target_config(), HeadWeights::as_stored);
}

/// The message with which heads are refused after `bend` of their tensors and configuration.
std::string refusal(const std::function<void(RandomModel&, MedusaOptions&)>& bend) {
  const TemporaryFolder folder;
  MedusaOptions options;
  RandomModel heads = random_medusa(target_config(), 5, options);
  bend(heads, options);
  write_medusa_folder(folder.path(), heads, options);
  try {
    open(folder.path());
  } catch (const Error& error) {
    return error.what();
  }
  return "";
}

RandomTensor& tensor(RandomModel& heads, std::string_view name) {
  return *std::ranges::find(heads.tensors, name, &RandomTensor::name);
}

bool holds(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

using Values = std::vector<double>;

Values product(const RandomTensor& matrix, const Values& x) {
  Values result(static_cast<std::size_t>(matrix.shape[0]));
  for (std::size_t row = 0; row < result.size(); ++row)
    for (std::size_t i = 0; i < x.size(); ++i)
      result[row] += static_cast<double>(matrix.values[row * x.size() + i]) * x[i];
  return result;
}

}  // namespace

TEST_CASE("Medusa: every dialect describes the same heads") {
  for (const int num_blocks : {0, 1, 2})
    for (const bool bias : {true, false}) {
      CAPTURE(num_blocks);
      CAPTURE(bias);
      MedusaOptions options{.num_heads = 4, .num_blocks = num_blocks, .bias = bias};
      const RandomModel heads = random_medusa(target_config(), 5, options);
      const TemporaryFolder folder;
      write_medusa_folder(folder.path() / "a", heads, options);
      options.prefix = "medusa_head.";
      // Nothing tells "medusa_head.0.0.weight" from a block's without a block.
      if (num_blocks > 0) write_medusa_folder(folder.path() / "b", heads, options);
      options.vllm = true;
      write_medusa_folder(folder.path() / "c", heads, options);
      for (const char* name : {"a", "b", "c"}) {
        if (*name == 'b' && num_blocks == 0) continue;
        CAPTURE(name);
        REQUIRE(is_medusa(folder.path() / name));
        const auto source = open(folder.path() / name);
        REQUIRE(source->heads.size() == 4);
        for (std::size_t head = 0; head < 4; ++head) {
          const MedusaSource::Head& got = source->heads[head];
          const std::string at = std::to_string(head) + ".";
          REQUIRE(got.blocks.size() == static_cast<std::size_t>(num_blocks));
          for (std::size_t i = 0; i < got.blocks.size(); ++i) {
            const std::string block = at + std::to_string(i) + ".linear.";
            CHECK(matrix_values(got.blocks[i].weight) == heads.tensor(block + "weight").values);
            CHECK(got.blocks[i].bias ==
                  (bias ? heads.tensor(block + "bias").values : std::vector<float>{}));
          }
          CHECK(matrix_values(got.output) ==
                heads.tensor(at + std::to_string(num_blocks) + ".weight").values);
        }
      }
    }
}

TEST_CASE("Medusa: a configuration that names fewer heads than the file holds is believed less") {
  const TemporaryFolder folder;
  MedusaOptions options{.num_heads = 3};
  const RandomModel heads = random_medusa(target_config(), 5, options);
  options.num_heads = 2;
  write_medusa_folder(folder.path(), heads, options);
  CHECK(open(folder.path())->heads.size() == 3);
  std::filesystem::remove(folder.path() / "config.json");
  CHECK(is_medusa(folder.path()));
  CHECK(open(folder.path())->heads.size() == 3);
}

TEST_CASE("Medusa: malformed heads are refused, with what is wrong") {
  CHECK(refusal([](RandomModel&, MedusaOptions&) {}) == "");
  CHECK(holds(refusal([](RandomModel&, MedusaOptions& options) { options.num_heads = 4; }),
              "tensor '3.0.weight' is missing"));
  CHECK(holds(refusal([](RandomModel&, MedusaOptions& options) { options.num_heads = 99; }),
              "must be 1 to 32"));
  CHECK(holds(refusal([](RandomModel& heads, MedusaOptions&) {
                heads.tensors.erase(heads.tensors.begin() + 2);
              }),
              "tensor '0.1.weight' is missing"));
  CHECK(holds(refusal([](RandomModel& heads, MedusaOptions&) {
                tensor(heads, "1.0.linear.bias").name = "1.0.linear.scale";
              }),
              "tensor '1.0.linear.scale' is no part of Medusa heads"));
  CHECK(holds(refusal([](RandomModel& heads, MedusaOptions&) {
                RandomTensor& output = tensor(heads, "2.1.weight");
                output.shape[0] -= 1;
                output.values.resize(output.values.size() - 64);
              }),
              "tensor '2.1.weight' has shape [299, 64], the configuration asks for [300, 64]"));
  CHECK(holds(refusal([](RandomModel& heads, MedusaOptions&) {
                RandomTensor& weight = tensor(heads, "1.0.linear.weight");
                weight.shape = {32, 128};
              }),
              "tensor '1.0.linear.weight' has shape [32, 128]"));
  const TemporaryFolder empty;
  CHECK_FALSE(is_medusa(empty.path()));
}

TEST_CASE("Medusa: logits of features against plain double precision") {
  for (const int num_blocks : {0, 1, 3}) {
    CAPTURE(num_blocks);
    const TemporaryFolder folder;
    const ModelConfig config = target_config();
    const MedusaOptions options{.num_heads = 2, .num_blocks = num_blocks};
    const RandomModel model = random_medusa(config, 5, options);
    write_medusa_folder(folder.path(), model, options);
    const RandomModel target = random_model(config, 1);
    const std::vector<float>& norm = target.tensor("model.norm.weight").values;
    const auto backend = make_backend({});
    MedusaHeads heads(*backend, *open(folder.path()), config, norm);

    const std::vector<float> x(target.tensor("model.embed_tokens.weight").values);
    heads.observe(1, x.data() + 64, 9, Stream{});
    heads.observe(2, x.data(), 9, Stream{});
    REQUIRE(heads.features() == x.data());  // the last layer's output, no other
    const std::vector<std::int32_t> rows = {4, 0, 7};
    for (const int head : {0, 1}) {
      const std::span<const float> got = heads.forward(head, heads.features(), rows, Stream{});
      REQUIRE(got.size() == 3 * 300);
      for (std::size_t row = 0; row < rows.size(); ++row) {
        const float* const from = x.data() + rows[row] * 64;
        Values hidden(from, from + 64);
        double squares = 0;
        for (const double value : hidden) squares += value * value;
        for (std::size_t i = 0; i < 64; ++i)
          hidden[i] *= static_cast<double>(norm[i]) /
                       std::sqrt(squares / 64 + static_cast<double>(config.norm_eps));
        const std::string at = std::to_string(head) + ".";
        for (int block = 0; block < num_blocks; ++block) {
          const std::string name = at + std::to_string(block) + ".linear.";
          const Values inner = product(model.tensor(name + "weight"), hidden);
          for (std::size_t i = 0; i < 64; ++i) {
            const double value =
                inner[i] + static_cast<double>(model.tensor(name + "bias").values[i]);
            hidden[i] += value / (1 + std::exp(-value));
          }
        }
        const Values logits =
            product(model.tensor(at + std::to_string(num_blocks) + ".weight"), hidden);
        double largest = 0;
        double worst = 0;
        for (std::size_t i = 0; i < logits.size(); ++i) {
          largest = std::max(largest, std::fabs(logits[i]));
          worst = std::max(worst, std::fabs(logits[i] - static_cast<double>(got[row * 300 + i])));
        }
        CHECK(worst < 1e-5 * largest);
      }
    }
  }
}
