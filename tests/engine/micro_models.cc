#include "engine/micro_models.h"

#include <doctest/doctest.h>
#include <unistd.h>

#include <filesystem>
#include <numeric>
#include <random>
#include <string>

#include "engine/backend/backend.h"
#include "engine/model/transformer.h"
#include "specdec/engine.h"
#include "specdec/error.h"
#include "support/engine_runs.h"
#include "support/model_writer.h"

namespace specdec::testing {

namespace {

constexpr int kExitLayer = 3;

/// Removes the folder when the process ends.
struct TemporaryModels {
  std::filesystem::path folder =
      std::filesystem::temp_directory_path() / ("specdec-micro-" + std::to_string(::getpid()));
  MicroModels paths;

  TemporaryModels() {
    std::filesystem::create_directories(folder);
    ModelConfig config = micro_model_config();
    // A token takes about 3 KiB of cache in both models together (f32 on the CPU, f16 on a GPU), so
    // that 1 MiB runs out in the tests of preemption.
    config.num_layers = test_device() == "cpu" ? 4 : 8;
    config.num_kv_heads = 2;
    config.num_heads = 4;
    config.hidden_size = 64;
    const RandomModel target = random_model(config, 1);
    const RandomModel draft = perturbed_model(target, 0.1f, 2);
    paths = {.target = (folder / "target.gguf").string(),
             .draft = (folder / "draft.gguf").string(),
             .first_layers = (folder / "first_layers.gguf").string(),
             .some_tokens = (folder / "tokens.txt").string(),
             .medusa = (folder / "medusa").string(),
             .eagle = (folder / "eagle").string()};
    const GgufOptions target_types{.type = kernels::DataType::q4_1,
                                   .embedding_type = kernels::DataType::q8_0};
    write_gguf(paths.target, target, target_types);
    ModelConfig first_layers = config;
    first_layers.num_layers = kExitLayer;
    write_gguf(paths.first_layers, random_model(first_layers, 1), target_types);
    write_gguf(paths.draft, draft,
               {.type = kernels::DataType::q8_0, .embedding_type = kernels::DataType::q8_0});
    std::string list;
    for (int token = config.vocab_size - 1; token >= 0; --token)
      if (token % 3 != 1) list += std::to_string(token) + "\n";
    write_file(paths.some_tokens, list);
    write_medusa_folder(paths.medusa, random_medusa(config, 4));
    const EagleOptions eagle{.type = kernels::DataType::bf16, .draft_vocab_size = 100};
    write_eagle_folder(paths.eagle, random_eagle_head(config, 3, eagle), eagle);
  }
  ~TemporaryModels() {
    std::error_code ignored;
    std::filesystem::remove_all(folder, ignored);
  }
};

}  // namespace

const MicroModels& micro_models() {
  static const TemporaryModels models;
  return models.paths;
}

Config micro_config() {
  Config config;
  config.target.model = micro_models().target;
  config.draft.model = micro_models().draft;
  config.draft.method = "draft_model";
  config.kv_cache.memory_mb = 8;
  config.kv_cache.block_size = 16;
  config.backend.device = test_device();
  config.kv_cache.type = config.backend.device == "cpu" ? "f32" : "f16";
  config.backend.threads = 2;
  config.scheduler.max_num_batched_tokens = 256;
  config.scheduler.max_num_seqs = 16;
  config.log.level = "off";
  return config;
}

Config micro_eagle_config() {
  Config config = micro_config();
  config.draft.model = micro_models().eagle;
  config.draft.method = "eagle3";
  return config;
}

Config micro_early_exit_config() {
  Config config = micro_config();
  config.draft.model.clear();
  config.draft.method = "early_exit";
  config.draft.early_exit.exit_layer = kExitLayer;
  return config;
}

Config micro_medusa_config() {
  Config config = micro_config();
  config.draft.model = micro_models().medusa;
  config.draft.method = "medusa";
  return config;
}

Config micro_trimmed_config() {
  Config config = micro_config();
  config.draft.vocabulary_list = micro_models().some_tokens;
  return config;
}

std::vector<Config> micro_model_configs() {
  std::vector<Config> configs = {micro_config(), micro_eagle_config(), micro_early_exit_config(),
                                 micro_trimmed_config()};
  if (test_device() == "cpu") configs.push_back(micro_medusa_config());
  return configs;
}

std::vector<float> logits_of(const std::string& path, const Config& config, int rows) {
  constexpr int kBlockSize = 16;
  const auto backend = make_backend(config.backend);
  const auto source = open_model(path);
  Transformer model(
      *backend, TransformerWeights(*backend, *source),
      KvPoolStorage(*backend, source->config(), 8, kBlockSize, kernels::DataType::f32), 64);
  std::vector<BlockId> table(8);
  std::iota(table.begin(), table.end(), 0);
  ForwardBatch batch;
  std::mt19937 random(5);
  batch.begin_sequence(0, table);
  for (int row = 0; row < rows; ++row)
    batch.add_row(static_cast<TokenId>(random() % 250), row, true);
  const std::span<const float> logits = model.forward(batch, Stream{});
  return {logits.begin(), logits.end()};
}

std::string refusal(const Config& config) {
  try {
    Engine::load(config);
  } catch (const Error& error) {
    CHECK(error.code() == ErrorCode::invalid_config);
    return error.what();
  }
  return "loaded";
}

}  // namespace specdec::testing
