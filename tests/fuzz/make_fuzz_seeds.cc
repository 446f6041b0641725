// Writes the seed files of the fuzz targets: make_fuzz_seeds DIRECTORY
#include <cstdio>
#include <filesystem>

#include "support/model_writer.h"

using namespace specdec;
using namespace specdec::testing;
using kernels::DataType;

namespace {

/// As small as a model gets: seeds of a few hundred bytes let the fuzzer reach every field.
ModelConfig seed_config(int width) {
  ModelConfig config = micro_model_config();
  config.name = "s";
  config.vocab_size = 8;
  config.hidden_size = width;
  config.num_heads = 1;
  config.num_kv_heads = 1;
  config.head_dim = width;
  config.ffn_size = width;
  return config;
}

const std::vector<std::string> kTokens = {
    "<|endoftext|>", "<|im_start|>", "<|im_end|>", "a", "b", "ab", "c", ""};

GgufFileSpec seed_gguf(const RandomModel& model, GgufOptions options) {
  options.tokenizer = false;
  GgufFileSpec spec = gguf_spec(model, options);
  spec.set_string("tokenizer.ggml.model", "gpt2");
  spec.set_string("tokenizer.ggml.pre", "smollm");
  spec.set_strings("tokenizer.ggml.tokens", kTokens);
  spec.set_strings("tokenizer.ggml.merges", {"a b"});
  spec.set_i32s("tokenizer.ggml.token_type", {3, 3, 3, 1, 1, 1, 4, 5});
  spec.set_u32("tokenizer.ggml.eos_token_id", 2);
  spec.set_string("tokenizer.chat_template", "<|im_start|><|im_end|>");
  return spec;
}

std::vector<std::byte> hf_seed(const RandomModel& model, const HfOptions& options) {
  const std::string config = hf_config_json(model.config);
  return Bytes()
      .add(static_cast<std::uint16_t>(config.size()))
      .add_text(config)
      .append(safetensors_bytes(model, options))
      .data;
}

/// A head for one of the targets that fuzz_eagle has; `flags` as there.
std::vector<std::byte> eagle_seed(std::uint8_t flags, int width, const EagleOptions& options) {
  ModelConfig target = seed_config(width);
  target.num_layers = 6;
  const RandomModel head = random_eagle_head(target, 1, options);
  const std::string config = eagle_config_json(head, options);
  return Bytes()
      .add(flags)
      .add(static_cast<std::uint16_t>(config.size()))
      .add_text(config)
      .append(eagle_safetensors_bytes(head, options))
      .data;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 2) {
    std::fputs("usage: make_fuzz_seeds DIRECTORY\n", stderr);
    return 2;
  }
  const std::filesystem::path root = argv[1];
  for (const char* name : {"gguf", "safetensors", "eagle", "tokenizer_json"}) {
    std::filesystem::create_directories(root / name);
  }
  const auto model_of = [](int width, bool tied) {
    ModelConfig config = seed_config(width);
    config.tied_head = tied;
    return random_model(config, 1);
  };
  const DataType types[] = {DataType::f32,  DataType::f16,  DataType::bf16,
                            DataType::q8_0, DataType::q4_0, DataType::q4_1};
  const char* const names[] = {"f32", "f16", "bf16", "q8_0", "q4_0", "q4_1"};
  for (std::size_t i = 0; i < std::size(types); ++i) {
    GgufOptions options;
    options.type = options.embedding_type = types[i];
    options.version = i % 2 == 0 ? 3 : 2;
    options.alignment = i == 1 ? 64 : 32;
    const int width = types[i] >= DataType::q8_0 ? 32 : 2;
    write_file(root / "gguf" / (std::string(names[i]) + ".gguf"),
               seed_gguf(model_of(width, i % 2 == 0), options).bytes());
  }
  for (std::size_t i = 0; i < 3; ++i) {
    write_file(root / "safetensors" / names[i], hf_seed(model_of(2, i != 0), {types[i], 1, true}));
  }
  RandomModel scaled = model_of(2, true);
  scaled.config.rope_scaling = {8.0f, 1.0f, 4.0f, 8192};
  write_file(root / "safetensors" / "llama3", hf_seed(scaled, {}));
  EagleOptions eagle{.feature_layers = {2, 3}};
  write_file(root / "eagle" / "plain", eagle_seed(0, 2, eagle));
  eagle.type = DataType::bf16;
  write_file(root / "eagle" / "quantised", eagle_seed(3, 32, eagle));
  eagle.draft_vocab_size = 4;
  write_file(root / "eagle" / "smaller_vocabulary", eagle_seed(0, 2, eagle));
  eagle.speculators = eagle.own_embedding = eagle.norm_before_residual = true;
  write_file(root / "eagle" / "speculators", eagle_seed(0, 2, eagle));
  TestTokenizer tokenizer(300, true);
  write_file(root / "tokenizer_json" / "bytes.json", tokenizer_json(tokenizer));
  tokenizer.tokens = kTokens;
  tokenizer.tokens.pop_back();
  tokenizer.merges = {"a b"};
  std::string files = tokenizer_json(tokenizer);
  write_file(root / "tokenizer_json" / "small.json", files);
  for (const std::string& part :
       {std::string(R"({"bos_token": "<|endoftext|>", "eos_token": {"content": "<|im_end|>"},
                        "add_bos_token": true})"),
        std::string(R"({"eos_token_id": [0, 2]})"), tokenizer.chat_template}) {
    files += '\0' + part;
  }
  write_file(root / "tokenizer_json" / "all_files", files);
  return 0;
}
