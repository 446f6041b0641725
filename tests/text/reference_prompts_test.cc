#include <doctest/doctest.h>

#include <fstream>
#include <nlohmann/json.hpp>

#include "test_models.h"

using namespace specdec;

// 40 prompts rendered and tokenised by Hugging Face transformers (models/README.md).
TEST_CASE("reference prompts: the rendered text and its ids are those of transformers") {
  const auto tokenizer = make_bpe_tokenizer(smollm2_data());
  std::ifstream file(SPECDEC_SOURCE_DIR "/tests/data/smollm2_reference.jsonl");
  REQUIRE(file);
  int prompts = 0;
  for (std::string line; std::getline(file, line); ++prompts) {
    const auto reference = nlohmann::json::parse(line);
    const auto rendered = reference.at("rendered").get<std::string>();
    const ChatMessage message{"user", reference.at("prompt").get<std::string>()};
    CHECK(tokenizer->apply_chat_template({&message, 1}, true) == rendered);
    CHECK(tokenizer->encode(rendered) == reference.at("prompt_tokens").get<std::vector<TokenId>>());
    const auto answer = reference.at("greedy_tokens").get<std::vector<TokenId>>();
    CHECK(tokenizer->decode(answer) == reference.at("text").get<std::string>());
  }
  CHECK(prompts == 40);
}
