#include <doctest/doctest.h>

#include "engine/model/gguf_model.h"
#include "model/model_test_support.h"

using namespace specdec;
using namespace specdec::testing;

namespace {

GgufFileSpec spec_of(bool chatml) {
  GgufOptions options;
  options.chatml = chatml;
  return gguf_spec(random_model(micro_model_config(), 7), options);
}

TokenizerData read(const GgufFileSpec& spec, int vocab_size = 300) {
  return read_gguf_tokenizer(GgufFile(in_memory(spec.bytes(), "model.gguf")), vocab_size);
}

}  // namespace

TEST_CASE("GGUF tokenizer: what was written comes back") {
  const TokenizerData data = read(spec_of(true));
  const TestTokenizer written(300, true);
  CHECK(data.source == "model.gguf");
  CHECK(data.pretokenizer == "smollm");
  CHECK(data.tokens == written.tokens);
  CHECK(data.merges == written.merges);
  CHECK(data.special_tokens == std::vector<TokenId>{0, 1, 2});
  CHECK(data.bos_token == 0);
  CHECK_FALSE(data.add_bos);
  CHECK_FALSE(data.ignore_merges);
  CHECK(data.eos_tokens == std::vector<TokenId>{2});
  CHECK(data.chat_template == written.chat_template);
}

TEST_CASE("GGUF tokenizer: without ChatML") {
  const TokenizerData data = read(spec_of(false));
  CHECK(data.special_tokens == std::vector<TokenId>{0});
  CHECK(data.eos_tokens == std::vector<TokenId>{0});
  CHECK(data.chat_template.empty());
}

TEST_CASE("GGUF tokenizer: an answer ends at the template's end of turn, too") {
  GgufFileSpec spec = spec_of(true);
  spec.set_u32("tokenizer.ggml.eos_token_id", 0);
  CHECK(read(spec).eos_tokens == std::vector<TokenId>{0, 2});
  spec.erase("tokenizer.chat_template");
  CHECK(read(spec).eos_tokens == std::vector<TokenId>{0});
  spec.set_u32("tokenizer.ggml.eot_token_id", 1);
  CHECK(read(spec).eos_tokens == std::vector<TokenId>{0, 1});
}

TEST_CASE("GGUF tokenizer: Llama 3 defaults") {
  GgufFileSpec spec = spec_of(true);
  spec.set_string("tokenizer.ggml.pre", "llama-bpe");
  spec.erase("tokenizer.ggml.add_bos_token");
  const TokenizerData data = read(spec);
  CHECK(data.pretokenizer == "llama3");
  CHECK(data.ignore_merges);
  CHECK(data.add_bos);
  spec.set_bool("tokenizer.ggml.add_bos_token", false);
  CHECK_FALSE(read(spec).add_bos);
}

TEST_CASE("GGUF tokenizer: names of pre-tokenizers") {
  GgufFileSpec spec = spec_of(true);
  const std::pair<const char*, const char*> names[] = {{"default", "gpt2"},
                                                       {"gpt-2", "gpt2"},
                                                       {"smollm", "smollm"},
                                                       {"llama3", "llama3"},
                                                       {"qwen2", "qwen2"}};
  for (const auto& [gguf, ours] : names) {
    spec.set_string("tokenizer.ggml.pre", gguf);
    CHECK(read(spec).pretokenizer == ours);
  }
  spec.erase("tokenizer.ggml.pre");
  CHECK(read(spec).pretokenizer == "gpt2");
}

TEST_CASE("GGUF tokenizer: unused tokens and padded rows stand for nothing") {
  GgufFileSpec spec = spec_of(true);
  std::vector<std::int32_t> types(300, 1);
  types[0] = types[1] = types[2] = 3;
  types[290] = 5;
  types[291] = 4;
  spec.set_i32s("tokenizer.ggml.token_type", types);
  const TokenizerData data = read(spec, 320);
  CHECK(data.tokens.size() == 320);
  CHECK(data.tokens[290].empty());
  CHECK_FALSE(data.tokens[291].empty());
  CHECK(data.tokens[319].empty());
  CHECK(data.special_tokens == std::vector<TokenId>{0, 1, 2});
  CHECK(data.added_tokens == std::vector<TokenId>{291});
}

TEST_CASE("GGUF tokenizer: -1 means no token") {
  GgufFileSpec spec = spec_of(true);
  spec.set_i32("tokenizer.ggml.bos_token_id", -1);
  spec.set_bool("tokenizer.ggml.add_bos_token", true);
  const TokenizerData data = read(spec);
  CHECK(data.bos_token == -1);
  CHECK_FALSE(data.add_bos);
}
