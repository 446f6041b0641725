#include "vocabularies.h"

#include <memory>
#include <random>

#include "engine/model/weights.h"

namespace specdec::testing {

const Vocabulary& smollm2_vocabulary() {
  static const Vocabulary vocabulary = [] {
    const auto tokenizer =
        open_model(SPECDEC_SOURCE_DIR "/models/smollm2-135m-draft.Q8_0.gguf")->load_tokenizer();
    Vocabulary result{.name = "smollm2"};
    for (TokenId token = 0; token < tokenizer->vocab_size(); ++token)
      result.bytes.emplace_back(tokenizer->token_bytes(token));
    result.end_tokens.assign(tokenizer->eos_tokens().begin(), tokenizer->eos_tokens().end());
    return result;
  }();
  return vocabulary;
}

Vocabulary made_vocabulary() {
  Vocabulary result{.name = "made"};
  for (int byte = 0; byte < 256; ++byte) result.bytes.emplace_back(1, static_cast<char>(byte));
  for (const char* piece : {"{\"",
                            "\":",
                            "\": \"",
                            "\",\"",
                            "\"},{\"",
                            "}]",
                            "[[",
                            "\\n",
                            "\\\"",
                            "\\u00",
                            "true",
                            "false",
                            "null",
                            "nul",
                            "tru",
                            ": ",
                            ", ",
                            "  ",
                            "\n\n",
                            "123",
                            "1.",
                            "e-",
                            "0.5",
                            "-1",
                            "abc",
                            "ab",
                            "the",
                            " the",
                            "cab",
                            "aaaa",
                            "aaaaaaaaaaaaaaaa",
                            "bbbb",
                            "abab",
                            "name",
                            "na",
                            "me\"",
                            "a\"b",
                            "\xC3\xA4",
                            "\xE2\x82\xAC",
                            "\xE2\x82",
                            "\xAC",
                            "\xF0\x9F\x98\x80",
                            "a\xC3",
                            "\xA4\"",
                            "((",
                            "))",
                            "()",
                            "+1",
                            "*(",
                            "x,",
                            ",y",
                            "ab",
                            "\":",
                            "aaaa"})
    result.bytes.emplace_back(piece);
  result.end_tokens = {static_cast<TokenId>(result.bytes.size())};
  result.bytes.emplace_back();  // the end of a text
  result.bytes.emplace_back();  // an unused id
  return result;
}

Vocabulary random_vocabulary(std::uint64_t seed) {
  std::mt19937_64 random(seed);
  Vocabulary result{.name = "random"};
  result.end_tokens = {0, 1};
  result.bytes.resize(2);
  constexpr std::string_view kBytes = "aabbc01\"\\{}[]:, \n\xC3\xA4";
  for (int i = 0; i < 3000; ++i) {
    std::string token;
    const std::size_t length = 1 + random() % 8;
    while (token.size() < length) token.push_back(kBytes[random() % kBytes.size()]);
    result.bytes.push_back(token);
  }
  return result;
}

}  // namespace specdec::testing
