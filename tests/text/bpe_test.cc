#include <doctest/doctest.h>

#include <map>
#include <random>
#include <thread>

#include "engine/text/bpe_merges.h"
#include "engine/text/byte_level.h"
#include "engine/text/pretokenizer.h"
#include "specdec/error.h"
#include "test_models.h"

using namespace specdec;

namespace {

// The definition, without any data structure: merge the rule of lowest rank, leftmost first.
std::vector<TokenId> merge_by_definition(std::vector<TokenId> symbols,
                                         const std::vector<BpeMerge>& rules) {
  while (true) {
    std::size_t best_rank = rules.size(), at = 0;
    for (std::size_t i = 0; i + 1 < symbols.size(); ++i) {
      for (std::size_t rank = 0; rank < best_rank; ++rank) {
        if (rules[rank].left == symbols[i] && rules[rank].right == symbols[i + 1]) {
          best_rank = rank;
          at = i;
        }
      }
    }
    if (best_rank == rules.size()) return symbols;
    symbols[at] = rules[best_rank].merged;
    symbols.erase(symbols.begin() + static_cast<std::ptrdiff_t>(at) + 1);
  }
}

// All 256 bytes, then whatever the merges make; a special and an added token at the end.
TokenizerData tiny_data(const std::vector<std::string>& merges) {
  TokenizerData data;
  data.source = "tiny";
  data.pretokenizer = "gpt2";
  for (int byte = 0; byte < 256; ++byte) {
    data.tokens.push_back(byte_level_encoded(std::string(1, static_cast<char>(byte))));
  }
  data.merges = merges;
  for (const std::string& merge : merges) {
    std::string token = merge;
    token.erase(token.find(' '), 1);
    data.tokens.push_back(token);
  }
  data.special_tokens = {static_cast<TokenId>(data.tokens.size())};
  data.tokens.push_back("<|end|>");
  data.added_tokens = {static_cast<TokenId>(data.tokens.size())};
  data.tokens.push_back("<tool call>");
  return data;
}

std::string error_of(TokenizerData data, ErrorCode code = ErrorCode::invalid_model) {
  try {
    make_bpe_tokenizer(std::move(data));
  } catch (const Error& error) {
    CHECK(error.code() == code);
    return error.what();
  }
  return "no error";
}

std::string repeated(std::string_view unit, std::size_t bytes) {
  std::string text;
  while (text.size() < bytes) text += unit;
  return text;
}

}  // namespace

TEST_CASE("merging follows the definition, for short and long runs of symbols") {
  std::mt19937_64 random(1);
  const auto below = [&](std::size_t n) { return static_cast<TokenId>(random() % n); };
  for (int round = 0; round < 300; ++round) {
    const std::size_t alphabet = 1 + random() % 4;
    std::vector<BpeMerge> rules;
    std::map<std::pair<TokenId, TokenId>, bool> seen;
    TokenId next = static_cast<TokenId>(alphabet);
    for (int tries = 0; tries < 40; ++tries) {
      const TokenId left = below(static_cast<std::size_t>(next));
      const TokenId right = below(static_cast<std::size_t>(next));
      if (!seen.emplace(std::pair(left, right), true).second) continue;
      rules.push_back({left, right, next++});
    }
    // Ranks in another order than the ids: a rule may come before what makes its parts.
    std::shuffle(rules.begin(), rules.end(), random);
    const BpeMerges merges(rules);
    for (const std::size_t length : {0, 1, 2, 3, 7, 31, 32, 33, 34, 60, 200}) {
      std::vector<TokenId> symbols(length);
      for (TokenId& symbol : symbols) symbol = below(alphabet);
      const auto expected = merge_by_definition(symbols, rules);
      std::vector<TokenId> tokens = {-7};  // what is there stays
      merges.apply(symbols, tokens);
      REQUIRE(tokens.front() == -7);
      tokens.erase(tokens.begin());
      REQUIRE(tokens == expected);
    }
  }
}

TEST_CASE("every byte string survives encode and decode where the vocabulary has all bytes") {
  std::mt19937_64 random(2);
  for (const char* name : {"gpt2", "smollm", "llama3"}) {
    TokenizerData data = tiny_data({"a b", "\xC4\xA0 a", "\xC3\x83 \xC2\xA9", "\xC4\xA0 \xC4\xA0"});
    data.pretokenizer = name;
    const auto tokenizer = make_bpe_tokenizer(std::move(data));
    for (int round = 0; round < 2000; ++round) {
      std::string bytes;
      for (std::size_t n = random() % 24; n > 0; --n) {
        // Half of them ASCII, so that words come up.
        bytes.push_back(static_cast<char>(random() % 2 ? 0x20 + random() % 95 : random() % 256));
      }
      REQUIRE(tokenizer->decode(tokenizer->encode(bytes), true) == bytes);
      REQUIRE(tokenizer->decode(tokenizer->encode(bytes, false), true) == bytes);
    }
  }
}

TEST_CASE("special and added tokens") {
  TokenizerData data = tiny_data({"e n", "en d"});
  const TokenId special = data.special_tokens[0], added = data.added_tokens[0];
  data.tokens.push_back("<|end|>>");
  const auto longer = static_cast<TokenId>(data.tokens.size() - 1);
  data.special_tokens.push_back(longer);
  const auto tokenizer = make_bpe_tokenizer(data);
  using Ids = std::vector<TokenId>;

  CHECK(tokenizer->encode("<|end|>") == Ids{special});
  CHECK(tokenizer->encode("<|end|>>") == Ids{longer});
  CHECK(tokenizer->encode("<|end|><|end|>>x") == Ids{special, longer, 'x'});
  CHECK(tokenizer->encode("<<|end|>") == Ids{'<', special});
  CHECK(tokenizer->encode("<|end|") == tokenizer->encode("<|end|", false));
  CHECK(tokenizer->encode("a<|end|>b") == Ids{'a', special, 'b'});
  // As plain text it becomes no special token.
  for (const TokenId token : tokenizer->encode("<|end|>", false))
    CHECK(!tokenizer->is_special(token));
  CHECK(tokenizer->encode("a<tool call>b", false) == Ids{'a', added, 'b'});

  CHECK(tokenizer->is_special(special));
  CHECK(!tokenizer->is_special(added));
  CHECK(!tokenizer->is_special('a'));
  CHECK(!tokenizer->is_special(-1));
  CHECK(!tokenizer->is_special(1 << 20));
  CHECK(tokenizer->token_bytes(special).empty());
  CHECK(tokenizer->token_bytes(special, true) == "<|end|>");
  CHECK(tokenizer->token_bytes(added) == "<tool call>");
  CHECK(tokenizer->token_bytes(-1).empty());
  CHECK(tokenizer->token_bytes(tokenizer->vocab_size(), true).empty());
  const Ids ids = {'a', special, added, -3, 99999, ' '};
  CHECK(tokenizer->decode(ids) == "a<tool call> ");
  CHECK(tokenizer->decode(ids, true) == "a<|end|><tool call> ");
}

TEST_CASE(
    "the first token is added once, unknown bytes have their token, whole words pass merges") {
  TokenizerData data = tiny_data({"e n", "en d"});
  data.bos_token = data.special_tokens[0];
  data.add_bos = true;
  const TokenId bos = data.bos_token;
  using Ids = std::vector<TokenId>;
  auto tokenizer = make_bpe_tokenizer(data);
  CHECK(tokenizer->encode("") == Ids{bos});
  CHECK(tokenizer->encode("x") == Ids{bos, 'x'});
  CHECK(tokenizer->encode("<|end|>x") == Ids{bos, 'x'});
  CHECK(tokenizer->encode("<|end|><|end|>x") == Ids{bos, bos, 'x'});
  CHECK(tokenizer->encode("x<|end|>") == Ids{bos, 'x', bos});

  data.add_bos = false;
  data.tokens['q'] = "unused-q";
  tokenizer = make_bpe_tokenizer(data);
  CHECK(tokenizer->encode("aqa") == Ids{'a', 'a'});
  data.unknown_token = bos;
  tokenizer = make_bpe_tokenizer(data);
  CHECK(tokenizer->encode("aqqa") == Ids{'a', bos, bos, 'a'});

  // A whole token is taken as it is where merges would stop short of it.
  data.tokens.push_back("dne");
  const auto whole = static_cast<TokenId>(data.tokens.size() - 1);
  CHECK(make_bpe_tokenizer(data)->encode("dne") == Ids{'d', 'n', 'e'});
  data.ignore_merges = true;
  CHECK(make_bpe_tokenizer(data)->encode("dne") == Ids{whole});
  CHECK(make_bpe_tokenizer(data)->encode("dned") == Ids{'d', 'n', 'e', 'd'});
}

TEST_CASE("a contradictory vocabulary is refused by name") {
  const auto broken = [](auto change) {
    TokenizerData data = tiny_data({"a b"});
    change(data);
    return error_of(std::move(data));
  };
  const auto has = [](const std::string& message, const std::string& part) {
    INFO(message);
    CHECK(message.find(part) != std::string::npos);
    CHECK(message.starts_with("tiny: "));
  };
  has(broken([](auto& d) { d.tokens.clear(); }), "no tokens");
  has(broken([](auto& d) { d.merges.push_back("ab"); }), "merge 1 \"ab\"");
  has(broken([](auto& d) { d.merges.push_back("a  b"); }), "merge 1");
  has(broken([](auto& d) { d.merges.push_back(" ab"); }), "merge 1");
  has(broken([](auto& d) { d.merges.push_back("ab "); }), "merge 1");
  has(broken([](auto& d) { d.merges.push_back(""); }), "merge 1");
  has(broken([](auto& d) { d.merges.push_back("b a"); }), "needs token \"ba\"");
  has(broken([](auto& d) { d.merges.push_back("zz a"); }), "needs token \"zz\"");
  has(broken([](auto& d) { d.merges.push_back("a b"); }), "there twice");
  has(broken([](auto& d) { d.tokens.push_back("a"); }), "has the text of token 97");
  has(broken([](auto& d) { d.tokens.push_back("<|end|>"); }), "has the text of token");
  has(broken([](auto& d) { d.special_tokens.push_back(100000); }), "100000 is outside");
  has(broken([](auto& d) { d.added_tokens.push_back(-2); }), "-2 is outside");
  has(broken([](auto& d) { d.eos_tokens.push_back(100000); }), "eos token 100000");
  has(broken([](auto& d) { d.add_bos = true; }), "bos token -1");
  has(broken([](auto& d) { d.unknown_token = 100000; }), "unknown token 100000");
  TokenizerData data = tiny_data({});
  data.pretokenizer = "tekken";
  has(error_of(std::move(data), ErrorCode::unsupported), "\"tekken\"");
}

TEST_CASE("an id without text, the empty vocabulary of merges, literal tokens") {
  TokenizerData data = tiny_data({});
  data.tokens.resize(300);
  data.tokens.push_back("literal \xE2\x82\xAC");  // outside the byte-level alphabet
  const auto tokenizer = make_bpe_tokenizer(std::move(data));
  CHECK(tokenizer->vocab_size() == 301);
  CHECK(tokenizer->token_bytes(299).empty());
  CHECK(tokenizer->token_bytes(300) == "literal \xE2\x82\xAC");
  CHECK(tokenizer->encode("").empty());
  CHECK(tokenizer->encode("ab") == std::vector<TokenId>{'a', 'b'});
}

// Quadratic work would take minutes on these.
TEST_CASE("long runs of hostile text are taken in near-linear time") {
  for (const char* name : {"smollm", "llama3"}) {
    TokenizerData data = smollm2_data();
    data.pretokenizer = name;
    const auto tokenizer = make_bpe_tokenizer(std::move(data));
    for (const std::string_view unit : {"a", " ", "\n", " \n", "\t ", "=", "<", "<|im_end|",
                                        "\xC3\xA9", "\xE3\x80\x80", "\xFF", "'", "9"}) {
      const std::string text = repeated(unit, unit == "a" ? 1 << 20 : 1 << 18);
      const auto tokens = tokenizer->encode(text);
      // 0xFF is one of the 21 bytes that SmolLM2 has no token for.
      CHECK(tokenizer->decode(tokens, true) == (unit == "\xFF" ? "" : text));
    }
  }
}

TEST_CASE("white space long enough for any match limit") {
  const Pretokenizer pretokenizer("llama3", "test");
  std::vector<std::size_t> ends;
  const std::string text = std::string(24 << 20, ' ') + "x";
  pretokenizer.split(text, ends);
  CHECK(ends == std::vector<std::size_t>{text.size() - 2, text.size()});
}

TEST_CASE("many threads encode alike") {
  const auto tokenizer = make_bpe_tokenizer(smollm2_data());
  const std::string text =
      repeated("It's 42 na\xC3\xAFve <|im_end|> tokens; \xE4\xB8\xAD\xE6\x96\x87 ", 20000);
  const auto expected = tokenizer->encode(text);
  std::vector<int> equal(4);
  std::vector<std::thread> threads;
  for (int& result : equal) {
    threads.emplace_back([&] {
      for (int round = 0; round < 3; ++round) result += tokenizer->encode(text) == expected;
    });
  }
  for (std::thread& thread : threads) thread.join();
  for (const int result : equal) CHECK(result == 3);
}
