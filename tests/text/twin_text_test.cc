#include <doctest/doctest.h>

#include <fstream>
#include <nlohmann/json.hpp>
#include <random>
#include <string>

#include "draft/twin_text.h"
#include "engine/text/byte_level.h"
#include "test_models.h"

using namespace specdec;

namespace {

/// A second vocabulary: bytes, a few merges, other numbers, other special tokens, and a token that
/// begins every text.
TokenizerData other_data() {
  TokenizerData data;
  data.source = "other";
  data.pretokenizer = "llama3";
  data.tokens = {"<s>", "<|im_end|>"};
  data.special_tokens = {0, 1};
  const TokenizerData reference = smollm2_data();
  // Its bytes and its first merges, in reversed order.
  std::vector<std::string> tokens;
  for (const std::string& token : reference.tokens)
    if (token.size() <= 2 && !token.empty()) tokens.push_back(token);
  data.tokens.insert(data.tokens.end(), tokens.rbegin(), tokens.rend());
  for (const std::string& merge : reference.merges) {
    std::string merged = merge;
    merged.erase(merged.find(' '), 1);
    if (std::ranges::find(tokens, merged) != tokens.end()) data.merges.push_back(merge);
  }
  data.bos_token = 0;
  data.add_bos = true;
  data.eos_tokens = {1};
  return data;
}

std::vector<std::string> texts() {
  std::vector<std::string> all = {"",
                                  "a",
                                  "Hello world",
                                  "  two  blanks\n\n and\tlines ",
                                  "12345 67.8 %",
                                  "don't we'll I'D",
                                  "naïve café \xe6\x97\xa5\xe6\x9c\xac\xe8\xaa\x9e text",
                                  "\xff\xfe broken \x80 bytes",
                                  "for (int i = 0; i < n; ++i) {\n    sum += x[i];\n}\n",
                                  "<|im_start|>user\nHi there<|im_end|>\n<|im_start|>assistant\n"};
  std::ifstream file(SPECDEC_SOURCE_DIR "/tests/data/smollm2_reference.jsonl");
  for (std::string line; std::getline(file, line);)
    all.push_back(nlohmann::json::parse(line).at("rendered").get<std::string>());
  return all;
}

std::vector<TokenId> joined(std::span<const TokenId> a, std::span<const TokenId> b) {
  std::vector<TokenId> all(a.begin(), a.end());
  all.insert(all.end(), b.begin(), b.end());
  return all;
}

}  // namespace

TEST_CASE(
    "a twin text is the same text, its settled part only grows, and it is spelled as a whole") {
  const auto target = make_bpe_tokenizer(smollm2_data());
  const auto draft = make_bpe_tokenizer(other_data());
  std::mt19937 random(1);
  int partly_settled = 0;
  for (const std::string& text : texts()) {
    CAPTURE(text);
    const std::vector<TokenId> tokens = target->encode(text);
    TwinText twin(*target, *draft);
    std::vector<TokenId> settled;
    for (std::size_t length = 1; length <= tokens.size();) {
      twin.follow(std::span(tokens).first(length));
      const std::string so_far = target->decode(std::span(tokens).first(length), true);
      const std::vector<TokenId> all = joined(twin.settled(), twin.open());
      CHECK(draft->decode(std::span(all).subspan(1), true) == so_far);
      if (text.find_first_of("\xff\xfe\x80") == std::string::npos)
        CHECK(all == draft->encode(so_far));
      REQUIRE(twin.settled().size() >= settled.size());
      CHECK(std::equal(settled.begin(), settled.end(), twin.settled().begin()));
      settled.assign(twin.settled().begin(), twin.settled().end());
      partly_settled += settled.size() > 1 && !twin.open().empty() ? 1 : 0;

      const std::string rest = target->decode(std::span(tokens).subspan(length), true);
      CHECK(target->decode(twin.continuation(rest), true) == rest);
      if (text.find_first_of("\xff\xfe\x80") == std::string::npos)
        CHECK(joined(std::span(tokens).first(length), twin.continuation(rest)) == tokens);
      if (length == tokens.size()) break;
      length = std::min(length + 1 + random() % 5, tokens.size());
    }
  }
  CHECK(partly_settled > 500);
}

TEST_CASE("text that never comes to a word's end is settled all the same") {
  const auto target = make_bpe_tokenizer(smollm2_data());
  const auto draft = make_bpe_tokenizer(other_data());
  const std::vector<TokenId> tokens = target->encode(std::string(3000, 'x') + "123456789");
  TwinText twin(*target, *draft);
  for (std::size_t length = 1; length <= tokens.size(); ++length) {
    twin.follow(std::span(tokens).first(length));
    const std::vector<TokenId> all = joined(twin.settled(), twin.open());
    CHECK(draft->decode(std::span(all).subspan(1), true) ==
          target->decode(std::span(tokens).first(length), true));
    CHECK(draft->decode(twin.open(), true).size() <= 64 * 32);
  }
  CHECK(twin.settled().size() > 1);
}

TEST_CASE("behind tokens that the target spells otherwise, the continuation is spelled alone") {
  const auto target = make_bpe_tokenizer(smollm2_data());
  const auto draft = make_bpe_tokenizer(other_data());
  TwinText twin(*target, *draft);
  const std::vector<TokenId> hel = joined(target->encode("he"), target->encode("l"));
  REQUIRE(hel != target->encode("hel"));
  twin.follow(hel);
  CHECK(twin.continuation("lo world") == target->encode("lo world"));
}
