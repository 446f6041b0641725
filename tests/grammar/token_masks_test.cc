#include "sampling/grammar/token_masks.h"

#include <doctest/doctest.h>

#include <cstdlib>
#include <random>
#include <string>
#include <vector>

#include "mask_oracle.h"
#include "random_grammars.h"
#include "sampling/grammar/gbnf.h"
#include "sampling/grammar/regex_syntax.h"
#include "specdec/error.h"
#include "vocabularies.h"

using namespace specdec;
using namespace specdec::grammar;
using namespace specdec::testing;

namespace {

bool full() { return std::getenv("SPECDEC_TEST_FULL") != nullptr; }

}  // namespace

TEST_CASE("masks of random grammars are those of brute force, under three vocabularies") {
  const Vocabulary vocabularies[] = {smollm2_vocabulary(), made_vocabulary(), random_vocabulary(5)};
  std::mt19937_64 random(1);
  for (const Vocabulary& vocabulary : vocabularies) {
    CAPTURE(vocabulary.name);
    const TokenIndex index = vocabulary.index();
    const int wanted = full() ? 1000 : 300;
    int done = 0;
    int past_limits = 0;
    for (int i = 0; done < wanted; ++i) {
      const bool regex = i % 3 == 0;
      const std::string text = regex ? random_regex(random) : random_gbnf(random);
      CAPTURE(text);
      try {
        GrammarSpec spec;
        if (regex)
          spec.set_start(spec.add_lexeme(parse_regex(spec.regexes(), text)));
        else
          spec = parse_gbnf(text);
        CompiledGrammar grammar(std::move(spec));
        compare_masks(grammar, vocabulary, index, random, 4);
        ++done;
      } catch (const Error& error) {
        const std::string what = error.what();
        CAPTURE(what);
        // A random grammar may be so ambiguous that each place in a token is several lexemes' end.
        const bool past_limit = what.find("than the limit allows") != std::string::npos;
        past_limits += past_limit ? 1 : 0;
        REQUIRE((past_limit || what.find("no text matches") != std::string::npos));
      }
    }
    CHECK(past_limits * 50 <= wanted);  // 17 of the long form's 1000 under SmolLM2
  }
}

TEST_CASE("masks of a JSON grammar") {
  constexpr const char* kJson = R"(
root   ::= object
value  ::= object | array | string | number | ("true" | "false" | "null") ws
object ::= "{" ws ( string ":" ws value ("," ws string ":" ws value)* )? "}" ws
array  ::= "[" ws ( value ("," ws value)* )? "]" ws
string ::= "\"" ( [^"\\\x7F\x00-\x1F] | "\\" (["\\bfnrt] | "u" [0-9a-fA-F]{4}) )* "\"" ws
number ::= ("-"? ([0-9] | [1-9] [0-9]{0,15})) ("." [0-9]+)? ([eE] [-+]? [0-9] [1-9]{0,15})? ws
ws     ::= | " " | "\n" [ \t]{0,20}
)";
  std::mt19937_64 random(2);
  for (const Vocabulary& vocabulary :
       {smollm2_vocabulary(), made_vocabulary(), random_vocabulary(6)}) {
    CAPTURE(vocabulary.name);
    CompiledGrammar grammar(parse_gbnf(kJson));
    compare_masks(grammar, vocabulary, vocabulary.index(), random, 20);
  }
}

TEST_CASE("masks inside strings: bounded, of a pattern, different from some, beyond ASCII") {
  std::mt19937_64 random(4);
  constexpr const char* kChar = "([^\"\\\\\\x00-\\x1F]|\\\\[\"nu])";
  for (const Vocabulary& vocabulary :
       {smollm2_vocabulary(), made_vocabulary(), random_vocabulary(7)}) {
    CAPTURE(vocabulary.name);
    const TokenIndex index = vocabulary.index();
    for (const char* bounds : {"{0,5}", "{2,9}", "{3}", "{0,40}", "{1,1000}", "*"}) {
      CAPTURE(bounds);
      for (int kind = 0; kind < 4; ++kind) {
        CAPTURE(kind);
        GrammarSpec spec;
        RegexPool& pool = spec.regexes();
        const RegexRef quote = pool.byte('"');
        RegexRef text = parse_regex(pool, std::string(kChar) + bounds);
        if (kind == 1) text = pool.all_of(text, parse_regex(pool, "[a-z ]*[^a]?"));
        if (kind == 2) {
          const std::string_view names[] = {"the", "name", " a", "\u00e4", "th"};
          text = pool.all_of(text, pool.complement(pool.any_literal(names)));
        }
        if (kind == 3) text = pool.all_of(text, parse_regex(pool, "[^x\\u00e4-\\u00e9]*"));
        const Symbol string = spec.add_lexeme(pool.concat({quote, text, quote}));
        const Symbol list = spec.add_nonterminal();
        spec.add_production(list, {string});
        spec.add_production(list, {list, spec.add_literal(","), string});
        spec.set_start(list);
        CompiledGrammar grammar(std::move(spec));
        compare_masks(grammar, vocabulary, index, random, 6);
      }
    }
  }
}

// The pattern needs 32 characters to end, so the ceiling decides how many may come before them.
TEST_CASE("masks where a ceiling is within reach of what a pattern asks for") {
  std::mt19937_64 random(8);
  for (const Vocabulary& vocabulary : {smollm2_vocabulary(), made_vocabulary()}) {
    CAPTURE(vocabulary.name);
    const TokenIndex index = vocabulary.index();
    for (const char* ceiling : {"{0,40}", "{0,55}", "{0,57}", "{0,90}"}) {
      CAPTURE(ceiling);
      GrammarSpec spec;
      RegexPool& pool = spec.regexes();
      const RegexRef quote = pool.byte('"');
      const RegexRef text = pool.all_of(parse_regex(pool, std::string("[a-c ]") + ceiling),
                                        parse_regex(pool, "[a ]*b{32}"));
      spec.set_start(spec.add_lexeme(pool.concat({quote, text, quote})));
      CompiledGrammar grammar(std::move(spec));
      compare_masks(grammar, vocabulary, index, random, 8);
    }
  }
}

TEST_CASE("masks stay within the grammar's memory, and what was forgotten is found again") {
  const Vocabulary vocabulary = smollm2_vocabulary();
  const TokenIndex index = vocabulary.index();
  std::mt19937_64 random(10);
  std::vector<std::string> names;  // a number, and a string without some letters
  std::string pattern;
  for (int i = 0; i < 700; ++i) {
    names.push_back(std::to_string(i) + ':');
    pattern += (i == 0 ? "" : "|") + names.back() + "[^\"";
    for (int j = 0; j < 3; ++j) pattern.push_back(static_cast<char>('a' + random() % 26));
    pattern += "]*\"";
  }
  const auto make = [&](std::size_t matcher_bytes) {
    GrammarSpec spec({.matcher_bytes = matcher_bytes});
    spec.set_start(spec.add_lexeme(parse_regex(spec.regexes(), pattern)));
    return CompiledGrammar(std::move(spec));
  };
  constexpr std::size_t kLimit = std::size_t{8} << 20;
  CompiledGrammar limited = make(kLimit), free = make(std::size_t{1} << 30);
  TokenMasks limited_masks(limited, index, vocabulary.end_tokens);
  TokenMasks free_masks(free, index, vocabulary.end_tokens);
  std::vector<std::uint64_t> bits(index.words()), expected(index.words());
  for (const std::string& name : names) {
    limited_masks.fill(limited.advance(limited.start(), std::string_view(name)), bits);
    free_masks.fill(free.advance(free.start(), std::string_view(name)), expected);
    REQUIRE(bits == expected);
    limited_masks.fill(limited.start(), bits);
    CHECK(limited_masks.memory_bytes() < kLimit / 2);
  }
  CHECK(free_masks.memory_bytes() > kLimit / 2);
}

// What a class takes is found by kinds of bytes, what follows it by a walk: within the lexeme and
// beyond its end.
TEST_CASE("masks where a class of characters is left within a token") {
  std::mt19937_64 random(9);
  for (const Vocabulary& vocabulary : {smollm2_vocabulary(), made_vocabulary()}) {
    CAPTURE(vocabulary.name);
    const TokenIndex index = vocabulary.index();
    for (const char* word : {"[a-z]{1,20}", "[a-zA-Z0-9 ]{3}", "[0-9a-f]{0,6}", "[a-z ]*", "\\w+",
                             "[^ -/]{2,40}", "([a-m]|[g-z])*"}) {
      CAPTURE(word);
      for (const char* tail : {"[ .,]+[A-Z]?", "-[0-9]*", "\"", "(:|\u00e4)[a-z]"}) {
        CAPTURE(tail);
        for (const bool apart : {false, true}) {
          CAPTURE(apart);
          GrammarSpec spec;
          RegexPool& pool = spec.regexes();
          const RegexRef first = parse_regex(pool, word), second = parse_regex(pool, tail);
          const Symbol text = spec.add_nonterminal();
          if (apart)
            spec.add_production(text, {spec.add_lexeme(first), spec.add_lexeme(second)});
          else
            spec.add_production(text, {spec.add_lexeme(pool.concat(first, second))});
          spec.set_start(text);
          CompiledGrammar grammar(std::move(spec));
          compare_masks(grammar, vocabulary, index, random, 3);
        }
      }
    }
  }
}

TEST_CASE("a mask's bits are the tokens that can be taken, and lead to a mask again") {
  const Vocabulary vocabulary = made_vocabulary();
  const TokenIndex index = vocabulary.index();
  std::mt19937_64 random(3);
  std::vector<std::uint64_t> bits(mask_words(vocabulary));
  for (int i = 0; i < 100; ++i) {
    const std::string text = random_regex(random, 4);
    CAPTURE(text);
    GrammarSpec spec;
    spec.set_start(spec.add_lexeme(parse_regex(spec.regexes(), text)));
    CompiledGrammar grammar(std::move(spec));
    TokenMasks masks(grammar, index, vocabulary.end_tokens);
    GrammarState state = grammar.start();
    std::string written;
    for (int step = 0; step < 20; ++step) {
      masks.fill(state, bits);
      std::vector<std::size_t> allowed;
      for (std::size_t token = 0; token < vocabulary.bytes.size(); ++token)
        if (bits[token >> 6] >> (token & 63) & 1) allowed.push_back(token);
      REQUIRE(!allowed.empty());  // the vocabulary has every byte
      const std::size_t token = allowed[random() % allowed.size()];
      if (vocabulary.bytes[token].empty()) {
        CHECK(grammar.accepts(state));
        break;
      }
      written += vocabulary.bytes[token];
      state = grammar.advance(state, vocabulary.bytes[token]);
      REQUIRE(!grammar.is_dead(state));
      CHECK(state == grammar.advance(grammar.start(), written));
    }
  }
}
