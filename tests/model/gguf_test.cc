#include <doctest/doctest.h>

#include <cstdlib>
#include <filesystem>

#include "engine/model/gguf_model.h"
#include "engine/model/tensor_view.h"
#include "model/model_test_support.h"

using namespace specdec;
using namespace specdec::testing;
using kernels::DataType;

namespace {

std::unique_ptr<ModelSource> open_spec(const GgufFileSpec& spec) {
  return open_gguf_model(in_memory(spec.bytes(), "model.gguf"));
}

ModelConfig grouped_config() {
  ModelConfig config = micro_model_config();
  config.num_layers = 2;
  config.num_heads = 4;
  config.num_kv_heads = 2;
  config.head_dim = 24;  // heads x head size differs from the hidden size
  config.ffn_size = 96;
  config.rope_theta = 500000.0f;
  config.norm_eps = 1e-6f;
  return config;
}

}  // namespace

TEST_CASE("GGUF: every type, version and alignment gives back the weights that were written") {
  const DataType types[] = {DataType::f32,  DataType::f16,  DataType::bf16,
                            DataType::q8_0, DataType::q4_0, DataType::q4_1};
  for (const DataType type : types) {
    for (const std::uint32_t version : {2u, 3u}) {
      CAPTURE(to_string(type));
      CAPTURE(version);
      ModelConfig config = grouped_config();
      config.tied_head = version == 3;
      const RandomModel model = random_model(config, 11);
      GgufOptions options;
      options.type = type;
      options.embedding_type = type == DataType::q4_1 ? DataType::q8_0 : type;
      options.version = version;
      options.alignment = version == 2 ? 64 : 32;
      const auto source = open_spec(gguf_spec(model, options));
      check_same_model(*source, model, type, options.embedding_type);
      CHECK(source->embedding().parts.front().type == options.embedding_type);
      CHECK(source->layers()[0].down.parts.front().type == type);
    }
  }
}

TEST_CASE("GGUF: q and k are in the pairs layout, v is not") {
  const auto source = open_spec(gguf_spec(random_model(grouped_config(), 3)));
  const auto& parts = source->layers()[1].qkv.parts;
  REQUIRE(parts.size() == 3);
  CHECK(parts[0].interleaved_head_dim == 24);
  CHECK(parts[1].interleaved_head_dim == 24);
  CHECK(parts[2].interleaved_head_dim == 0);
}

TEST_CASE("GGUF: defaults for keys that a file may leave out") {
  const RandomModel model = random_model(micro_model_config(), 5);
  GgufFileSpec spec = gguf_spec(model);
  for (const char* key :
       {"llama.attention.key_length", "llama.attention.value_length", "llama.rope.dimension_count",
        "llama.rope.freq_base", "llama.vocab_size", "general.name"}) {
    spec.erase(key);
  }
  const ModelConfig config = open_spec(spec)->config();
  CHECK(config.head_dim == 16);
  CHECK(config.rope_theta == 10000.0f);
  CHECK(config.vocab_size == 300);

  ModelConfig all_heads = micro_model_config();
  all_heads.num_kv_heads = all_heads.num_heads;
  spec = gguf_spec(random_model(all_heads, 5));
  spec.erase("llama.attention.head_count_kv");
  CHECK(open_spec(spec)->config().num_kv_heads == 2);
}

TEST_CASE("GGUF: integers and floats of any width are understood") {
  GgufFileSpec spec = gguf_spec(random_model(micro_model_config(), 5));
  spec.set_u64("llama.embedding_length", 32);
  spec.set_i32("llama.block_count", 1);
  spec.set("llama.attention.head_count", 0, Bytes().add<std::uint8_t>(2).data);
  spec.set("llama.attention.head_count_kv", 1, Bytes().add<std::int8_t>(1).data);
  spec.set("llama.feed_forward_length", 2, Bytes().add<std::uint16_t>(64).data);
  spec.set("llama.context_length", 3, Bytes().add<std::int16_t>(512).data);
  spec.set("llama.rope.dimension_count", 11, Bytes().add<std::int64_t>(16).data);
  spec.set("llama.rope.freq_base", 12, Bytes().add<double>(10000.0).data);
  const auto file = in_memory(spec.bytes(), "model.gguf");
  check_valid(*open_gguf_model(file), {file});
}

TEST_CASE("GGUF: rope_freqs.weight becomes the rope factors") {
  ModelConfig config = micro_model_config();
  config.rope_factors = {1, 1, 1, 1.5f, 2, 4, 8, 8};
  const RandomModel model = random_model(config, 5);
  const auto source = open_spec(gguf_spec(model));
  check_same_model(*source, model, DataType::f32, DataType::f32);
}

TEST_CASE("GGUF: holes between tensors and unknown keys do no harm") {
  const RandomModel model = random_model(micro_model_config(), 5);
  GgufFileSpec spec = gguf_spec(model);
  spec.set_string("vendor.note", "hello");
  spec.set_strings("general.tags", {"a", "", "b"});
  std::uint64_t offset = 0;
  for (auto& tensor : spec.tensors) {
    tensor.data.resize((tensor.data.size() + 31) / 32 * 32 + 64);
    tensor.offset = offset;
    offset += tensor.data.size();
  }
  check_same_model(*open_spec(spec), model, DataType::f32, DataType::f32);
}

TEST_CASE("GGUF: a mapped file, released page by page, still reads the same") {
  const TemporaryFolder folder;
  ModelConfig config = micro_model_config();
  config.hidden_size = 256;
  config.num_heads = 16;
  config.ffn_size = 512;
  const RandomModel model = random_model(config, 21);
  write_gguf(folder.path() / "model.gguf", model);
  const auto source = open_model(folder.path() / "model.gguf");
  for (const LayerSource& layer : source->layers()) {
    for (const MatrixSource* matrix :
         {&layer.qkv, &layer.attention_output, &layer.gate_up, &layer.down}) {
      source->release(*matrix);
    }
  }
  source->release(source->embedding());
  check_same_model(*source, model, DataType::f32, DataType::f32);
}

TEST_CASE("GGUF: the draft model of the repository") {
  const auto source = open_model(SPECDEC_SOURCE_DIR "/models/smollm2-135m-draft.Q8_0.gguf");
  const ModelConfig& config = source->config();
  CHECK(config.num_layers == 3);
  CHECK(config.hidden_size == 256);
  CHECK(config.num_heads == 4);
  CHECK(config.num_kv_heads == 2);
  CHECK(config.head_dim == 64);
  CHECK(config.ffn_size == 768);
  CHECK(config.vocab_size == 49152);
  CHECK(config.rope_theta == 100000.0f);
  CHECK(config.tied_head);
  CHECK(source->embedding().parts.front().type == DataType::q8_0);
}

TEST_CASE("GGUF: the real target model") {
  const char* chosen = std::getenv("SPECDEC_TEST_TARGET");
  const std::filesystem::path path = chosen != nullptr ? chosen
                                                       : SPECDEC_SOURCE_DIR
                                         "/.cache/models/SmolLM2-135M-Instruct.Q4_1.gguf";
  if (!std::filesystem::exists(path)) {
    MESSAGE("skipped, no file " << path.string());
    return;
  }
  const auto source = open_model(path);
  const ModelConfig& config = source->config();
  CHECK(config.num_layers == 30);
  CHECK(config.hidden_size == 576);
  CHECK(config.num_heads == 9);
  CHECK(config.num_kv_heads == 3);
  CHECK(config.head_dim == 64);
  CHECK(config.ffn_size == 1536);
  CHECK(config.max_position == 8192);
  CHECK(source->embedding().parts.front().type == DataType::q8_0);
  CHECK(source->layers()[29].qkv.parts[0].type == DataType::q4_1);
  CHECK(source->layers()[29].qkv.rows() == 960);
}
