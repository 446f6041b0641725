#include <doctest/doctest.h>

#include <limits>

#include "engine/model/gguf_model.h"
#include "model/model_test_support.h"

using namespace specdec;
using namespace specdec::testing;

namespace {

constexpr auto kInvalid = ErrorCode::invalid_model;
constexpr auto kUnsupported = ErrorCode::unsupported;
constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

std::vector<GgufCase> config_cases() {
  const auto u32 = [](const char* key, std::uint32_t value) {
    return [=](GgufFileSpec& spec) { spec.set_u32(key, value); };
  };
  const auto f32 = [](const char* key, float value) {
    return [=](GgufFileSpec& spec) { spec.set_f32(key, value); };
  };
  const auto erased = [](const char* key) { return [=](GgufFileSpec& spec) { spec.erase(key); }; };
  return {
      {"no architecture",
       kInvalid,
       erased("general.architecture"),
       {"'general.architecture'", "is missing"}},
      {"another architecture",
       kUnsupported,
       [](auto& s) { s.set_string("general.architecture", "gpt2"); },
       {"'gpt2' models are not supported"}},
      {"architecture as a number",
       kInvalid,
       u32("general.architecture", 1),
       {"'general.architecture'", "must be a string, is uint32"}},
      {"name that is not UTF-8",
       kInvalid,
       [](auto& s) { s.set_string("general.name", "\xc3"); },
       {"'general.name'", "is not UTF-8"}},
      {"no layer count",
       kInvalid,
       erased("llama.block_count"),
       {"'llama.block_count'", "is missing"}},
      {"no hidden size",
       kInvalid,
       erased("llama.embedding_length"),
       {"'llama.embedding_length'", "is missing"}},
      {"no head count",
       kInvalid,
       erased("llama.attention.head_count"),
       {"'llama.attention.head_count'", "is missing"}},
      {"no FFN size",
       kInvalid,
       erased("llama.feed_forward_length"),
       {"'llama.feed_forward_length'", "is missing"}},
      {"no context length",
       kInvalid,
       erased("llama.context_length"),
       {"'llama.context_length'", "is missing"}},
      {"no epsilon",
       kInvalid,
       erased("llama.attention.layer_norm_rms_epsilon"),
       {"layer_norm_rms_epsilon'", "is missing"}},
      {"0 layers", kInvalid, u32("llama.block_count", 0), {"the number of layers is 0"}},
      {"4 billion layers",
       kInvalid,
       u32("llama.block_count", 4000000000u),
       {"'llama.block_count'", "is 4000000000, out of range"}},
      {"2 billion layers",
       kInvalid,
       u32("llama.block_count", 2000000000),
       {"the number of layers is 2"}},
      {"one layer too many",
       kInvalid,
       u32("llama.block_count", 2),
       {"'blk.1.attn_norm.weight' is missing"}},
      {"-1 layers",
       kInvalid,
       [](auto& s) { s.set_i32("llama.block_count", -1); },
       {"'llama.block_count'", "is -1"}},
      {"layers as a float",
       kInvalid,
       f32("llama.block_count", 1.0f),
       {"'llama.block_count'", "must be an integer", "is float32"}},
      {"layers as 2^64 - 1",
       kInvalid,
       [](auto& s) { s.set_u64("llama.block_count", UINT64_MAX); },
       {"'llama.block_count'", "must be an integer below 2^63"}},
      {"0 heads", kInvalid, u32("llama.attention.head_count", 0), {"number of heads is 0"}},
      {"0 KV heads",
       kInvalid,
       u32("llama.attention.head_count_kv", 0),
       {"number of KV heads is 0"}},
      {"more KV heads than heads",
       kInvalid,
       u32("llama.attention.head_count_kv", 4),
       {"number of KV heads is 4"}},
      {"heads that KV heads do not divide",
       kInvalid,
       [](auto& s) {
         s.set_u32("llama.attention.head_count", 3);
         s.set_u32("llama.attention.head_count_kv", 2);
       },
       {"(3) is no multiple of the number of KV heads (2)"}},
      {"heads per layer",
       kUnsupported,
       [](auto& s) { s.set_i32s("llama.attention.head_count_kv", {1}); },
       {"'llama.attention.head_count_kv'", "differs per layer"}},
      {"heads that do not divide the hidden size",
       kInvalid,
       [](auto& s) {
         s.erase("llama.attention.key_length");
         s.set_u32("llama.attention.head_count", 3);
       },
       {"3 heads do not divide the hidden size 32"}},
      {"odd head size",
       kInvalid,
       [](auto& s) {
         s.set_u32("llama.attention.key_length", 15);
         s.erase("llama.attention.value_length");
         s.erase("llama.rope.dimension_count");
       },
       {"the head size (15) must be even"}},
      {"value size other than the key size",
       kUnsupported,
       u32("llama.attention.value_length", 8),
       {"'llama.attention.value_length'", "is 8", "head size 16"}},
      {"partial rope",
       kUnsupported,
       u32("llama.rope.dimension_count", 8),
       {"'llama.rope.dimension_count'", "is 8"}},
      {"another hidden size",
       kInvalid,
       u32("llama.embedding_length", 64),
       {"has shape", "asks for"}},
      {"context of 0", kInvalid, u32("llama.context_length", 0), {"the context length is 0"}},
      {"vocabulary other than the embedding",
       kInvalid,
       u32("llama.vocab_size", 301),
       {"'llama.vocab_size'", "is 301", "has 300 rows"}},
      {"epsilon of NaN",
       kInvalid,
       f32("llama.attention.layer_norm_rms_epsilon", kNan),
       {"layer_norm_rms_epsilon'", "must be finite"}},
      {"negative epsilon",
       kInvalid,
       f32("llama.attention.layer_norm_rms_epsilon", -1e-5f),
       {"the norm epsilon is -9.99999975e-06", "0..1"}},
      {"rope base of 0", kInvalid, f32("llama.rope.freq_base", 0.0f), {"the rope theta is 0"}},
      {"rope base of infinity",
       kInvalid,
       f32("llama.rope.freq_base", std::numeric_limits<float>::infinity()),
       {"'llama.rope.freq_base'", "must be finite"}},
      {"experts", kUnsupported, u32("llama.expert_count", 8), {"'llama.expert_count'", "is set"}},
      {"linear rope scaling",
       kUnsupported,
       [](auto& s) {
         s.set_string("llama.rope.scaling.type", "linear");
         s.set_f32("llama.rope.scaling.factor", 2.0f);
       },
       {"'llama.rope.scaling.type'", "'linear' is not supported"}},
      {"array where a number should be",
       kInvalid,
       [](auto& s) { s.set_i32s("llama.rope.freq_base", {1}); },
       {"'llama.rope.freq_base'", "is an array"}},
  };
}

std::vector<GgufCase> tokenizer_cases() {
  const auto text = [](const char* key, const char* value) {
    return [=](GgufFileSpec& spec) { spec.set_string(key, value); };
  };
  const auto types_with = [](std::int32_t type) {
    return [=](GgufFileSpec& spec) {
      std::vector<std::int32_t> types(300, 1);
      types[7] = type;
      spec.set_i32s("tokenizer.ggml.token_type", types);
    };
  };
  return {
      {"no tokenizer",
       kInvalid,
       [](auto& s) { s.erase("tokenizer.ggml.model"); },
       {"'tokenizer.ggml.model'", "is missing"}},
      {"sentencepiece tokenizer",
       kUnsupported,
       text("tokenizer.ggml.model", "llama"),
       {"'tokenizer.ggml.model'", "'llama' tokenizers are not supported"}},
      {"unknown pre-tokenizer",
       kUnsupported,
       text("tokenizer.ggml.pre", "falcon"),
       {"'tokenizer.ggml.pre'", "'falcon' is not supported"}},
      {"no tokens",
       kInvalid,
       [](auto& s) { s.erase("tokenizer.ggml.tokens"); },
       {"'tokenizer.ggml.tokens'", "is missing"}},
      {"no merges",
       kInvalid,
       [](auto& s) { s.erase("tokenizer.ggml.merges"); },
       {"'tokenizer.ggml.merges'", "is missing"}},
      {"tokens as one string",
       kInvalid,
       text("tokenizer.ggml.tokens", "abc"),
       {"'tokenizer.ggml.tokens'", "must be an array"}},
      {"tokens as numbers",
       kInvalid,
       [](auto& s) {
         s.set_i32s("tokenizer.ggml.tokens", {1, 2, 3});
       },
       {"'tokenizer.ggml.tokens'", "must be an array of strings, is one of int32"}},
      {"more tokens than rows",
       kInvalid,
       [](auto& s) { s.set_strings("tokenizer.ggml.tokens", std::vector<std::string>(301, "x")); },
       {"'tokenizer.ggml.tokens'", "has 301 tokens, the embedding 300 rows"}},
      {"fewer types than tokens",
       kInvalid,
       [](auto& s) {
         s.set_i32s("tokenizer.ggml.token_type", {1, 1});
       },
       {"'tokenizer.ggml.token_type'", "has 2 entries for 300 tokens"}},
      {"types as strings",
       kInvalid,
       [](auto& s) { s.set_strings("tokenizer.ggml.token_type", {"1"}); },
       {"'tokenizer.ggml.token_type'", "must be an array of integers"}},
      {"unknown token type",
       kInvalid,
       types_with(7),
       {"'tokenizer.ggml.token_type'", "token 7 has type 7"}},
      {"negative token type", kInvalid, types_with(-1), {"token 7 has type -1"}},
      {"end token outside the vocabulary",
       kInvalid,
       [](auto& s) { s.set_u32("tokenizer.ggml.eos_token_id", 300); },
       {"'tokenizer.ggml.eos_token_id'", "token 300 is outside the vocabulary of 300"}},
      {"begin token of 2^32 - 1",
       kInvalid,
       [](auto& s) { s.set_u32("tokenizer.ggml.bos_token_id", 0xffffffffu); },
       {"'tokenizer.ggml.bos_token_id'", "token 4294967295 is outside"}},
      {"add_bos as a number",
       kInvalid,
       [](auto& s) { s.set_u32("tokenizer.ggml.add_bos_token", 1); },
       {"'tokenizer.ggml.add_bos_token'", "must be a bool"}},
      {"template that is not UTF-8",
       kInvalid,
       text("tokenizer.chat_template", "<|im_start|>\xf5"),
       {"'tokenizer.chat_template'", "is not UTF-8"}},
  };
}

}  // namespace

TEST_CASE("GGUF: contradictory configurations") {
  check_gguf_cases(config_cases(), [](auto file) { open_gguf_model(file); });
}

TEST_CASE("GGUF: malformed tokenizers") {
  check_gguf_cases(tokenizer_cases(), [](auto file) {
    // The weights stay usable: a broken tokenizer is reported when it is asked for.
    check_valid(*open_gguf_model(file), {file});
    read_gguf_tokenizer(GgufFile(file), 300);
  });
}
