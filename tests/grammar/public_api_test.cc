#include <doctest/doctest.h>

#include <algorithm>
#include <chrono>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "specdec/error.h"
#include "specdec/grammar.h"
#include "vocabularies.h"

using namespace specdec;
using namespace specdec::testing;

namespace {

GrammarVocabulary vocabulary_of(const Vocabulary& vocabulary) {
  const std::vector<std::string_view> views(vocabulary.bytes.begin(), vocabulary.bytes.end());
  return GrammarVocabulary(views, vocabulary.end_tokens);
}

std::vector<TokenId> allowed(const GrammarMatcher& matcher, const GrammarVocabulary& vocabulary) {
  std::vector<std::uint64_t> bits(vocabulary.mask_words());
  matcher.fill_mask(bits);
  std::vector<TokenId> tokens;
  for (TokenId token = 0; token < vocabulary.size(); ++token)
    if (bits[static_cast<std::size_t>(token) >> 6] >> (token & 63) & 1) tokens.push_back(token);
  return tokens;
}

}  // namespace

TEST_CASE("a matcher takes what its mask allows, forks by copying, and stops at the end") {
  const Vocabulary words = made_vocabulary();
  const GrammarVocabulary vocabulary = vocabulary_of(words);
  const std::vector<Grammar> grammars{
      Grammar::regex("(a|b){2,4}c?"), Grammar::json(),
      Grammar::gbnf("root ::= \"(\" root \")\" | \"x\""),
      Grammar::json_schema(
          R"({"type":"object","required":["a"],"properties":{"a":{"type":"integer"}}})"),
      Grammar::choice(std::vector<std::string>{"the cab", "the", "abab"})};
  std::mt19937_64 random(1);
  for (const Grammar& grammar : grammars)
    for (int round = 0; round < 10; ++round) {
      GrammarMatcher matcher(grammar, vocabulary);
      std::vector<TokenId> taken;
      for (int step = 0; step < 25 && !matcher.finished(); ++step) {
        const std::vector<TokenId> tokens = allowed(matcher, vocabulary);
        REQUIRE(!tokens.empty());
        for (TokenId token = 0; token < vocabulary.size(); ++token) {
          const bool listed = std::binary_search(tokens.begin(), tokens.end(), token);
          REQUIRE(matcher.allows(token) == listed);
        }
        const GrammarMatcher before = matcher;
        const TokenId token = tokens[random() % tokens.size()];
        REQUIRE(matcher.accept(token));
        CHECK(before.allows(token));
        taken.push_back(token);
        // Replayed from the beginning, it is the same state.
        GrammarMatcher replayed(grammar, vocabulary);
        for (const TokenId again : taken) REQUIRE(replayed.accept(again));
        CHECK(allowed(replayed, vocabulary) == allowed(matcher, vocabulary));
        CHECK(replayed.can_end() == matcher.can_end());
      }
      if (!matcher.finished()) continue;
      CHECK(allowed(matcher, vocabulary).empty());
      CHECK(!matcher.accept(taken.front()));
      std::string text;
      for (const TokenId token : taken) text += words.bytes[static_cast<std::size_t>(token)];
      CHECK(grammar.matches(text));
    }
}

TEST_CASE("forced text, ends and refusals") {
  const GrammarVocabulary vocabulary = vocabulary_of(made_vocabulary());
  GrammarMatcher matcher(Grammar::regex("abc(d|e)f"), vocabulary);
  CHECK(matcher.forced_text() == "abc");
  CHECK(matcher.forced_text(2) == "ab");
  CHECK(GrammarMatcher(Grammar::regex("ab(cd)?"), vocabulary).forced_text() == "ab");  // or the end
  CHECK(!matcher.accept("abx"));
  CHECK(matcher.accept("abcd"));
  CHECK(matcher.forced_text() == "f");
  CHECK(!matcher.can_end());
  CHECK(matcher.accept("f"));
  CHECK(matcher.can_end());
  CHECK(matcher.must_end());

  const auto refusal = Grammar::regex("a[0-9]{3}").check("a12x");
  REQUIRE(refusal);
  CHECK(refusal->offset == 3);
  CHECK(refusal->expected == "a digit");
  const auto early = Grammar::regex("a[0-9]{3}").check("a12");
  REQUIRE(early);
  CHECK(early->offset == 3);
}

TEST_CASE("triggers: free text until a tag, then a grammar, then free text") {
  const std::vector<GrammarTrigger> triggers{
      {"<tool>", Grammar::json_schema(R"({"type":"object","properties":{"x":{"type":"integer"}},
                                         "required":["x"],"additionalProperties":false})"),
       "</tool>"},
      {"<sum>", Grammar::regex("[0-9]+\\+[0-9]+")}};
  const Grammar grammar = Grammar::triggered(triggers);
  for (const char* yes :
       {"", "just text", "a < b > c <too>", "so <tool>{\"x\": 1}</tool> it is", "<sum>1+2",
        "<sum>1+2 and <tool>{\"x\":3}</tool><tool>{\"x\":4}</tool>", "<<sum>3+4>"}) {
    CAPTURE(yes);
    CHECK(grammar.matches(yes));
  }
  for (const char* no : {"<tool>", "<tool>text", "<tool>{\"x\": 1}", "<tool>{}</tool>",
                         "a <sum>1+ b", "<sum>", "<tool>{\"x\":1}</tool><sum>"}) {
    CAPTURE(no);
    CHECK(!grammar.matches(no));
  }
  GrammarMatcher matcher(grammar, vocabulary_of(made_vocabulary()));
  CHECK(matcher.accept("Let me see: <tool>"));
  CHECK(!matcher.can_end());
  CHECK(matcher.accept("{\"x\":1"));
  CHECK(matcher.accept("}"));
  CHECK(matcher.forced_text() == "</tool>");
}

TEST_CASE("a vocabulary that cannot begin a text") {
  const std::vector<std::string_view> bytes{"a", "b", ""};
  const TokenId end[] = {2};
  const GrammarVocabulary vocabulary(bytes, end);
  CHECK_THROWS_AS(GrammarMatcher(Grammar::regex("c+"), vocabulary), Error);
  CHECK_NOTHROW(GrammarMatcher(Grammar::regex("b+"), vocabulary));
  const TokenId outside[] = {3};
  CHECK_THROWS_AS(GrammarVocabulary(bytes, outside), Error);
}

TEST_CASE("one grammar, many threads") {
  const GrammarVocabulary vocabulary = vocabulary_of(made_vocabulary());
  const Grammar grammar = Grammar::json();
  std::vector<std::string> texts(4);
  std::vector<std::thread> threads;
  for (std::size_t t = 0; t < texts.size(); ++t)
    threads.emplace_back([&, t] {
      std::mt19937_64 random(t % 2);  // two of them do the same
      GrammarMatcher matcher(grammar, vocabulary);
      for (int step = 0; step < 60 && !matcher.finished(); ++step) {
        const std::vector<TokenId> tokens = allowed(matcher, vocabulary);
        const TokenId token = tokens[random() % tokens.size()];
        matcher.accept(token);
        texts[t] += std::to_string(token) + " ";
      }
    });
  for (std::thread& thread : threads) thread.join();
  CHECK(texts[0] == texts[2]);
  CHECK(texts[1] == texts[3]);
}

TEST_CASE("the cache keeps what was used last") {
  GrammarCache cache(std::size_t{1} << 30, 3);
  int compiled = 0;
  const auto get = [&](const std::string& pattern) {
    return cache.get("regex:" + pattern, [&] {
      ++compiled;
      return Grammar::regex(pattern);
    });
  };
  for (const char* pattern : {"a", "b", "c", "a", "d", "a"}) CHECK(get(pattern).matches(pattern));
  CHECK(compiled == 4);
  CHECK(cache.size() == 3);
  get("b");  // had gone
  CHECK(compiled == 5);
  CHECK_THROWS_AS(get("("), Error);
  CHECK(cache.size() == 3);
  GrammarCache tiny(1);
  CHECK(tiny.get("x", [] { return Grammar::regex("x+"); }).matches("xx"));
  tiny.get("y", [] { return Grammar::regex("y+"); });
  CHECK(tiny.size() == 1);
}

TEST_CASE("a grammar that has grown to a quarter of the cache is compiled anew") {
  const GrammarVocabulary vocabulary = vocabulary_of(made_vocabulary());
  const GrammarSource source{GrammarSource::Kind::regex, "[a-z]{1,400}(x|y)"};
  const std::size_t fresh = source.compile().memory_bytes();
  GrammarCache cache(16 * fresh);
  const Grammar first = cache.get(source);
  CHECK(cache.get(source).memory_bytes() == fresh);
  GrammarMatcher matcher(first, vocabulary);
  while (first.memory_bytes() <= 4 * fresh) {
    matcher.mask();
    REQUIRE(matcher.accept("ax"));
  }
  CHECK(cache.get(source).memory_bytes() == fresh);
  CHECK(first.matches("bx"));  // lives on without the cache
  CHECK(cache.size() == 1);
}

TEST_CASE("sources of every kind are compiled and kept apart") {
  GrammarCache cache;
  using Kind = GrammarSource::Kind;
  CHECK(cache.get({Kind::json}).matches("[1, {}]"));
  CHECK(cache.get({Kind::regex, "true"}).matches("true"));
  CHECK_FALSE(cache.get({Kind::json_schema, "true"}).check("17").has_value());
  CHECK(cache.get({Kind::gbnf, "root ::= \"a\" | \"b\""}).matches("b"));
  const Grammar choice = cache.get({Kind::choice, "one\ntwo"});
  CHECK(choice.matches("two"));
  CHECK_FALSE(choice.matches("one\ntwo"));
  const JsonOptions tight{.whitespace = JsonOptions::Whitespace::none};
  CHECK_FALSE(cache.get({Kind::json, "", tight}).matches("[1, 2]"));
  CHECK(cache.size() == 6);
  int loaded = 0;
  const JsonOptions with_loader{.load_schema = [&](std::string_view) {
    ++loaded;
    return std::optional<std::string>("{\"type\": \"null\"}");
  }};
  for (int i = 0; i < 2; ++i)
    CHECK(cache.get({Kind::json_schema, R"({"$ref":"other.json"})", with_loader}).matches("null"));
  CHECK(loaded >= 2);
  CHECK(cache.size() == 6);
  CHECK_THROWS_AS(cache.get({Kind::gbnf, "root ::= ("}), Error);
}

TEST_CASE("masks are shared rows: one for a state, in every matcher of the grammar") {
  const GrammarVocabulary vocabulary = vocabulary_of(made_vocabulary());
  const Grammar grammar = Grammar::regex("[ab]{2,300}c");
  GrammarMatcher one(grammar, vocabulary);
  GrammarMatcher other(grammar, vocabulary);
  std::vector<std::uint64_t> bits(vocabulary.mask_words());
  for (int step = 0; step < 40; ++step) {
    one.fill_mask(bits);
    const GrammarMask mask = one.mask();
    CHECK(*mask == bits);
    CHECK(one.mask() == mask);
    CHECK(other.mask() == mask);
    REQUIRE(one.accept(step % 2 == 0 ? "a" : "b"));
    REQUIRE(other.accept(step % 2 == 0 ? "b" : "a"));  // another text, the same state
  }
  const TokenId end = made_vocabulary().end_tokens.front();
  REQUIRE(one.accept("c"));
  REQUIRE(one.accept(end));
  one.fill_mask(bits);
  CHECK(*one.mask() == bits);
  CHECK(std::ranges::all_of(bits, [](std::uint64_t word) { return word == 0; }));
}
