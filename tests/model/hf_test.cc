#include <doctest/doctest.h>

#include <algorithm>
#include <cstring>

#include "engine/model/hf_folder.h"
#include "engine/model/tensor_view.h"
#include "model/model_test_support.h"

using namespace specdec;
using namespace specdec::testing;
using kernels::DataType;

namespace {

ModelConfig grouped_config() {
  ModelConfig config = micro_model_config();
  config.num_layers = 2;
  config.num_heads = 4;
  config.num_kv_heads = 2;
  config.head_dim = 24;
  config.ffn_size = 96;
  config.rope_theta = 500000.0f;
  config.tied_head = false;
  return config;
}

ModelConfig parse(const std::string& json) { return parse_hf_config(json, "config.json"); }

const std::string kSmallest =
    R"("architectures": ["LlamaForCausalLM"], "vocab_size": 10, "hidden_size": 64,
       "num_hidden_layers": 1, "num_attention_heads": 4, "intermediate_size": 128)";

}  // namespace

TEST_CASE("HF folder: single and sharded, every type") {
  for (const DataType type : {DataType::f32, DataType::f16, DataType::bf16}) {
    for (const int shards : {1, 3}) {
      CAPTURE(to_string(type));
      CAPTURE(shards);
      const TemporaryFolder folder;
      ModelConfig config = grouped_config();
      config.tied_head = shards == 1;
      const RandomModel model = random_model(config, 13);
      HfOptions options;
      options.type = type;
      options.num_shards = shards;
      write_hf_folder(folder.path(), model, options);
      const auto source = open_model(folder.path());
      check_same_model(*source, model, type, type);
      for (const RowSource& part : source->layers()[0].qkv.parts) {
        CHECK(part.interleaved_head_dim == 0);
      }
    }
  }
}

TEST_CASE("HF folder and GGUF file of one model describe the same weights") {
  const TemporaryFolder folder;
  const RandomModel model = random_model(grouped_config(), 17);
  write_hf_folder(folder.path() / "hf", model);
  write_gguf(folder.path() / "model.gguf", model);
  const auto hf = open_model(folder.path() / "hf");
  const auto gguf = open_model(folder.path() / "model.gguf");
  CHECK(matrix_values(hf->embedding()) == matrix_values(gguf->embedding()));
  CHECK(matrix_values(hf->head()) == matrix_values(gguf->head()));
  REQUIRE(hf->layers().size() == gguf->layers().size());
  for (std::size_t i = 0; i < hf->layers().size(); ++i) {
    const LayerSource& a = hf->layers()[i];
    const LayerSource& b = gguf->layers()[i];
    CHECK(a.attention_norm == b.attention_norm);
    CHECK(a.ffn_norm == b.ffn_norm);
    CHECK(matrix_values(a.qkv) == matrix_values(b.qkv));
    CHECK(matrix_values(a.attention_output) == matrix_values(b.attention_output));
    CHECK(matrix_values(a.gate_up) == matrix_values(b.gate_up));
    CHECK(matrix_values(a.down) == matrix_values(b.down));
    // The layouts on disk differ: the check above means something.
    CHECK(std::memcmp(a.qkv.parts[0].data, b.qkv.parts[0].data, 32 * 4) == 0);
    CHECK(std::memcmp(a.qkv.parts[0].data + 32 * 4, b.qkv.parts[0].data + 32 * 4, 32 * 4) != 0);
  }
  CHECK(rope_inverse_frequencies(hf->config()) == rope_inverse_frequencies(gguf->config()));
}

TEST_CASE("HF folder: released pages still read the same") {
  const TemporaryFolder folder;
  const RandomModel model = random_model(grouped_config(), 13);
  write_hf_folder(folder.path(), model, {DataType::f32, 2, true});
  const auto source = open_model(folder.path());
  for (const LayerSource& layer : source->layers()) source->release(layer.gate_up);
  source->release(source->head());
  check_same_model(*source, model, DataType::f32, DataType::f32);
}

TEST_CASE("HF folder: tensors that lie askew are read from an aligned copy") {
  const RandomModel model = random_model(micro_model_config(), 9);
  auto bytes = safetensors_bytes(model);
  // One space more in the header shifts every tensor by a byte; the format allows it.
  std::uint64_t header = 0;
  std::memcpy(&header, bytes.data(), sizeof header);
  bytes.insert(bytes.begin() + static_cast<std::ptrdiff_t>(8 + header), std::byte{' '});
  ++header;
  std::memcpy(bytes.data(), &header, sizeof header);
  const auto source = open_hf_model(hf_config_json(model.config), "askew",
                                    {in_memory(bytes, "model.safetensors")}, {});
  check_same_model(*source, model, DataType::f32, DataType::f32);
  CHECK(reinterpret_cast<std::uintptr_t>(source->embedding().parts[0].data) % 4 == 0);
  source->release(source->embedding());
}

TEST_CASE("HF folder: a stored copy of a tied head and old inv_freq tensors are passed over") {
  RandomModel model = random_model(micro_model_config(), 9);
  model.tensors.push_back({"lm_head.weight", {300, 32}, std::vector<float>(300 * 32)});
  model.tensors.push_back(
      {"model.layers.0.self_attn.rotary_emb.inv_freq", {8}, std::vector<float>(8)});
  const auto source = open_hf_model(hf_config_json(model.config), "tied",
                                    {in_memory(safetensors_bytes(model), "model.safetensors")}, {});
  CHECK(&source->head() == &source->embedding());
}

TEST_CASE("HF folder: the folder's name stands in for a missing model name") {
  const TemporaryFolder folder;
  RandomModel model = random_model(micro_model_config(), 9);
  model.config.name.clear();
  write_hf_folder(folder.path() / "tiny-llama", model);
  CHECK(open_model(folder.path() / "tiny-llama")->config().name == "tiny-llama");
}

TEST_CASE("HF folder and GGUF file give the same tokenizer") {
  const TemporaryFolder folder;
  const RandomModel model = random_model(micro_model_config(), 9);
  write_hf_folder(folder.path() / "hf", model);
  write_gguf(folder.path() / "model.gguf", model);
  const auto hf = open_model(folder.path() / "hf")->load_tokenizer();
  const auto gguf = open_model(folder.path() / "model.gguf")->load_tokenizer();
  CHECK(hf->vocab_size() == 300);
  CHECK(gguf->vocab_size() == 300);
  const std::string text = "<|im_start|>user\nThe tree, 42 then\xc3\xa9 <|im_end|>";
  const auto ids = hf->encode(text);
  CHECK(ids == gguf->encode(text));
  CHECK(ids.front() == 1);
  CHECK(ids.back() == 2);
  CHECK(ids.size() < text.size() - 20);  // merges were applied
  CHECK(hf->decode(ids, true) == text);
  CHECK(std::ranges::equal(hf->eos_tokens(), gguf->eos_tokens()));
  const ChatMessage question[] = {{"user", "Why?"}};
  CHECK(hf->apply_chat_template(question, true) ==
        "<|im_start|>user\nWhy?<|im_end|>\n<|im_start|>assistant\n");
  CHECK(hf->apply_chat_template(question, true) == gguf->apply_chat_template(question, true));
}

TEST_CASE("HF folder: a tokenizer smaller than the embedding is padded, a larger one refused") {
  const TemporaryFolder folder;
  ModelConfig config = micro_model_config();
  write_hf_folder(folder.path(), random_model(config, 9));
  write_file(folder.path() / "tokenizer.json", tokenizer_json(TestTokenizer(270, true)));
  CHECK(open_model(folder.path())->load_tokenizer()->vocab_size() == 300);
  write_file(folder.path() / "tokenizer.json", tokenizer_json(TestTokenizer(301, true)));
  const auto source = open_model(folder.path());
  check_error([&] { source->load_tokenizer(); }, ErrorCode::invalid_model,
              {"the tokenizer has 301 tokens, the embedding 300 rows"});
}

TEST_CASE("config.json: defaults are those of LlamaConfig") {
  const ModelConfig config = parse("{" + kSmallest + "}");
  CHECK(config.num_kv_heads == 4);
  CHECK(config.head_dim == 16);
  CHECK(config.max_position == 2048);
  CHECK(config.norm_eps == 1e-6f);
  CHECK(config.rope_theta == 10000.0f);
  CHECK_FALSE(config.tied_head);
  CHECK(config.rope_scaling.factor == 1.0f);
}

TEST_CASE("config.json: null is the same as absent") {
  const ModelConfig config =
      parse("{" + kSmallest +
            R"(, "head_dim": null, "num_key_value_heads": null, "rope_scaling": null,
                "sliding_window": null, "quantization_config": null, "attention_bias": null})");
  CHECK(config.head_dim == 16);
  CHECK(config.num_kv_heads == 4);
}

TEST_CASE("config.json: every spelling of rope scaling") {
  const std::string values =
      R"("factor": 32.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
         "original_max_position_embeddings": 4096})";
  for (const std::string& spelling :
       {R"(, "rope_theta": 500000, "rope_scaling": {"rope_type": "llama3", )" + values,
        R"(, "rope_theta": 500000.0, "rope_scaling": {"type": "llama3", )" + values,
        R"(, "rope_parameters": {"rope_theta": 5e5, "rope_type": "llama3", )" + values}) {
    CAPTURE(spelling);
    const ModelConfig config = parse("{" + kSmallest + spelling + "}");
    CHECK(config.rope_theta == 500000.0f);
    CHECK(config.rope_scaling.factor == 32.0f);
    CHECK(config.rope_scaling.low_freq_factor == 1.0f);
    CHECK(config.rope_scaling.high_freq_factor == 4.0f);
    CHECK(config.rope_scaling.original_max_position == 4096);
  }
  const ModelConfig plain =
      parse("{" + kSmallest + R"(, "rope_scaling": {"type": "default", "factor": 3}})");
  CHECK(plain.rope_scaling.factor == 1.0f);
}
