#include <doctest/doctest.h>

#include <algorithm>
#include <random>
#include <regex>
#include <set>
#include <string>

#include "random_grammars.h"
#include "sampling/grammar/code_points.h"
#include "sampling/grammar/grammar_spec.h"
#include "sampling/grammar/regex_pool.h"
#include "sampling/grammar/regex_syntax.h"
#include "sampling/grammar/utf8.h"
#include "specdec/error.h"

using namespace specdec;
using namespace specdec::grammar;
using namespace specdec::testing;

namespace {

bool matches(std::string_view pattern, std::string_view text, bool anchored = true) {
  RegexPool pool;
  return pool.matches(parse_regex(pool, pattern, {.anchored = anchored}), text);
}

std::string error_of(std::string_view pattern) {
  RegexPool pool;
  try {
    parse_regex(pool, pattern);
  } catch (const Error& error) {
    CHECK(error.code() == ErrorCode::invalid_argument);
    return error.what();
  }
  return "";
}

std::string random_text(std::mt19937_64& random) {
  std::string text;
  for (auto length = random() % 9; length > 0; --length) text.push_back("abc0 -"[random() % 6]);
  return text;
}

// Anchors, word boundaries and look-ahead sprinkled over a random expression.
std::string random_search_pattern(std::mt19937_64& random) {
  std::string pattern;
  for (auto parts = 1 + random() % 3; parts > 0; --parts) {
    switch (random() % 9) {
      case 0:
        pattern += "^";
        break;
      case 1:
        pattern += "$";
        break;
      case 2:
        pattern += random() % 2 ? "\\b" : "\\B";
        break;
      case 3:
        pattern += std::string(random() % 2 ? "(?=" : "(?!") + random_regex(random, 1) + ")";
        break;
      case 4:
        pattern += "(^" + random_regex(random, 1) + "|" + random_regex(random, 1) + "$)";
        break;
      default:
        pattern += random_regex(random, 2);
    }
  }
  return pattern;
}

}  // namespace

TEST_CASE("random patterns match what std::regex matches") {
  std::mt19937_64 random(11);
  for (int i = 0; i < 1500; ++i) {
    const std::string pattern = random_regex(random, 4);
    CAPTURE(pattern);
    const std::regex oracle(pattern);
    RegexPool pool;
    const RegexRef regex = parse_regex(pool, pattern);
    for (int j = 0; j < 30; ++j) {
      const std::string text = random_text(random);
      CAPTURE(text);
      REQUIRE(pool.matches(regex, text) == std::regex_match(text, oracle));
    }
  }
}

TEST_CASE("random searches with anchors, boundaries and look-ahead find what std::regex finds") {
  std::mt19937_64 random(12);
  for (int i = 0; i < 1500; ++i) {
    const std::string pattern = random_search_pattern(random);
    CAPTURE(pattern);
    const std::regex oracle(pattern);
    RegexPool pool;
    const RegexRef regex = parse_regex(pool, pattern, {.anchored = false});
    for (int j = 0; j < 20; ++j) {
      const std::string text = random_text(random);
      CAPTURE(text);
      REQUIRE(pool.matches(regex, text) == std::regex_search(text, oracle));
    }
  }
}

TEST_CASE("intersection, complement and emptiness agree with membership") {
  std::mt19937_64 random(13);
  for (int i = 0; i < 400; ++i) {
    RegexPool pool;
    const RegexRef a = parse_regex(pool, random_regex(random, 3));
    const RegexRef b = parse_regex(pool, random_regex(random, 3));
    const RegexRef both = pool.all_of(a, b), neither = pool.complement(pool.any_of(a, b));
    const RegexRef a_alone = pool.all_of(a, pool.complement(b));
    bool some_both = false, some_alone = false;
    for (int j = 0; j < 60; ++j) {
      const std::string text = random_text(random);
      const bool in_a = pool.matches(a, text), in_b = pool.matches(b, text);
      REQUIRE(pool.matches(both, text) == (in_a && in_b));
      REQUIRE(pool.matches(neither, text) == (!in_a && !in_b));
      REQUIRE(pool.matches(a_alone, text) == (in_a && !in_b));
      some_both = some_both || (in_a && in_b);
      some_alone = some_alone || (in_a && !in_b);
    }
    REQUIRE(pool.is_never(both).has_value());
    REQUIRE(pool.is_never(a_alone).has_value());
    if (some_both) REQUIRE(!*pool.is_never(both));
    if (some_alone) REQUIRE(!*pool.is_never(a_alone));
    REQUIRE(*pool.is_never(pool.all_of(a, pool.complement(a))));
    REQUIRE(*pool.is_never(pool.all_of({a, b, pool.complement(pool.any_of(a, b))})));
  }
}

TEST_CASE("emptiness beside far bounds is that of every match's length") {
  std::mt19937_64 random(12);
  int never = 0;
  for (int i = 0; i < 400; ++i) {
    RegexPool pool;
    const auto least = static_cast<std::uint32_t>(random() % 60);
    const auto most = 32 + static_cast<std::uint32_t>(random() % 12);
    const auto least_chars = static_cast<std::uint32_t>(random() % 40);
    const RegexRef word = parse_regex(pool, random_regex(random, 2));
    // A pattern with a shortest match of about `least`, less some strings: it is not plain.
    const RegexRef pattern =
        pool.all_of(pool.concat(pool.repeat(parse_regex(pool, "[ab]"), least, std::nullopt), word),
                    pool.complement(parse_regex(pool, "a*c?")));
    const RegexRef both =
        pool.all_of(pattern, pool.repeat(parse_regex(pool, "[abc0-9]"), least_chars, most));
    // Every expression that some text of so many bytes leads to.
    bool found = false;
    std::set<RegexRef> reached{pattern};
    for (std::uint32_t length = 0; length <= most && !found; ++length) {
      std::set<RegexRef> next;
      for (const RegexRef regex : reached) {
        found = found || (length >= least_chars && pool.nullable(regex));
        for (const char byte : std::string_view("abc0123456789")) {
          const RegexRef to = pool.derivative(regex, static_cast<unsigned char>(byte));
          if (to != pool.never()) next.insert(to);
        }
      }
      reached = std::move(next);
    }
    CAPTURE(least);
    CAPTURE(most);
    REQUIRE(pool.is_never(both) == !found);
    never += found ? 0 : 1;
  }
  CHECK(never > 50);
  CHECK(never < 350);
}

TEST_CASE("bounds of repeats are counters, not copies") {
  RegexPool pool;
  const RegexRef regex = parse_regex(pool, "[a-z]{3,100000}");
  CHECK(pool.size() < 50);
  CHECK(!pool.matches(regex, "ab"));
  CHECK(pool.matches(regex, std::string(100000, 'x')));
  CHECK(!pool.matches(regex, std::string(100001, 'x')));
  for (const unsigned bound : {129u, 255u, 1000u}) {
    const RegexRef bounded = parse_regex(pool, "(a|b){1," + std::to_string(bound) + "}");
    CHECK(pool.matches(bounded, std::string(bound, 'a')));
    CHECK(!pool.matches(bounded, std::string(bound + 1, 'b')));
    CHECK(!pool.matches(bounded, ""));
  }
  // An ambiguous body reaches many counts at once; they are ranges, so states stay small.
  const RegexRef ambiguous = parse_regex(pool, "(a|aa|aaa){10,1000}b");
  const std::size_t before = pool.size();
  CHECK(pool.matches(ambiguous, std::string(900, 'a') + "b"));
  CHECK(!pool.matches(ambiguous, std::string(3001, 'a') + "b"));
  CHECK(pool.size() - before < 40'000);
}

TEST_CASE("a prefix tree of literals matches exactly them") {
  std::mt19937_64 random(14);
  for (int i = 0; i < 200; ++i) {
    std::vector<std::string> strings;
    for (auto n = random() % 30; n > 0; --n) strings.push_back(random_text(random));
    const std::vector<std::string_view> views(strings.begin(), strings.end());
    RegexPool pool;
    const RegexRef regex = pool.any_literal(views);
    for (const std::string& text : strings) CHECK(pool.matches(regex, text));
    for (int j = 0; j < 50; ++j) {
      const std::string text = random_text(random);
      const bool listed = std::find(strings.begin(), strings.end(), text) != strings.end();
      CHECK(pool.matches(regex, text) == listed);
    }
  }
  std::vector<std::string> many;
  for (int i = 0; i < 10'000; ++i) many.push_back("value-" + std::to_string(i * 7919));
  const std::vector<std::string_view> views(many.begin(), many.end());
  RegexPool pool;
  const RegexRef regex = pool.any_literal(views);
  CHECK(pool.matches(regex, many[1234]));
  CHECK(!pool.matches(regex, "value-1"));
}

TEST_CASE("modulo counts digits") {
  RegexPool pool;
  const RegexRef sevens = pool.modulo(7, 0);
  for (int i = 0; i < 3000; ++i) REQUIRE(pool.matches(sevens, std::to_string(i)) == (i % 7 == 0));
  CHECK(pool.matches(sevens, "1.4"));
  CHECK(!pool.matches(sevens, "1.5"));
}

TEST_CASE("UTF-8 of code point sets") {
  std::mt19937_64 random(15);
  const auto code_point = [&] {
    const char32_t limit[] = {0x80, 0x900, 0xE100, 0x110000};
    return static_cast<char32_t>(random() % limit[random() % 4]);
  };
  for (int i = 0; i < 100; ++i) {
    CodePointSet set;
    for (auto n = 1 + random() % 4; n > 0; --n) {
      const char32_t a = code_point(), b = random() % 2 ? a : code_point();
      set.add(std::min(a, b), std::max(a, b));
    }
    if (random() % 2) set = set.inverted();
    RegexPool pool;
    const RegexRef regex = utf8_regex(pool, set);
    std::vector<char32_t> probes;
    for (const CodePointRange& r : set.ranges())
      for (const char32_t c : {r.first, r.last}) probes.insert(probes.end(), {c - 1, c, c + 1});
    for (int j = 0; j < 50; ++j) probes.push_back(code_point());
    for (const char32_t c : probes) {
      if (c > kMaxCodePoint || (c >= 0xD800 && c < 0xE000)) continue;
      CAPTURE(static_cast<unsigned>(c));
      std::string text;
      utf8_append(text, c);
      REQUIRE(pool.matches(regex, text) == set.contains(c));
    }
  }
}

TEST_CASE("escapes, classes and Unicode properties") {
  CHECK(matches("\\d\\w\\s\\S\\D\\W", "5_\u2003x!\u00e4"));
  CHECK(!matches("\\d", "\u0661"));
  CHECK(matches("\\x41\\u0042\\u{1F600}\\uD83D\\uDE00\\cA\\0\\/\\-",
                std::string("AB😀😀\x01\0/-", 14)));
  CHECK(matches("[\\w.-]+@[a-z-]+", "a.b-c@d-e"));
  CHECK(matches("[^\\d\\s]", "\u00e4"));
  CHECK(matches("[\\]\\\\^-]+", "]\\^-"));
  CHECK(matches("\\p{Lu}\\p{L}*\\P{L}\\p{Nd}", "\u00c4rger-\u0665"));
  CHECK(matches("(?i)Yes|no", "YES"));
  CHECK(matches("(?i:a)b", "Ab"));
  CHECK(!matches("(?i:a)b", "AB"));
  CHECK(matches("(?<year>\\d{4})-(?P<month>\\d\\d)", "2026-11"));
  CHECK(matches("a{2}b{,3}c{x", "aab{,3}c{x"));  // no quantifiers: braces
  CHECK(matches("a.c", "a\u00e4c"));
  CHECK(!matches("a.c", "a\nc"));
  CHECK(matches("[^]", "\n"));
  CHECK(!matches("[]", "a"));
  CHECK(matches("(a*)*b", "aaab"));
  CHECK(matches("x*?y", "xxy"));
}

TEST_CASE("errors name line, column and reason") {
  CHECK(error_of("ab(c").find("regex:1:5: expected ')', found the end") == 0);
  CHECK(error_of("a)").find("regex:1:2: expected an operator or the end, found ')'") == 0);
  CHECK(error_of("a\n*b\n**").find("regex:") == 0);
  CHECK(error_of("*").find("nothing to repeat") != std::string::npos);
  CHECK(error_of("\u00e4\u00e4[b-a]").find("regex:1:4: the bounds of a range are reversed") == 0);
  CHECK(error_of("[abc").find("'[' without ']'") != std::string::npos);
  CHECK(error_of("(?<=a)b").find("look-behind") != std::string::npos);
  CHECK(error_of("(a)\\1").find("back-references") != std::string::npos);
  CHECK(error_of("\\p{Nonsense}").find("'Nonsense' is not a general category") !=
        std::string::npos);
  CHECK(error_of("a{3,2}").find("reversed") != std::string::npos);
  CHECK(error_of("(?:^a|b)*").find("anchor") != std::string::npos);
  CHECK(error_of("\\y").find("not an escape") != std::string::npos);
  CHECK(error_of("a\xFF").find("UTF-8") != std::string::npos);
  CHECK(error_of("a++").find("possessive") != std::string::npos);
  CHECK(error_of("a**").find("nothing to repeat") != std::string::npos);
}

TEST_CASE("hostile patterns end in an error or a result, never in a crash") {
  const std::string deep(100'000, '(');
  CHECK(error_of(deep).find("nest") != std::string::npos);
  std::string nested = "a";
  for (int i = 0; i < 190; ++i) nested = "(" + nested + "*b)";
  CHECK(error_of(nested).empty());
  CHECK(!matches(nested, "aaaaaaaaaaaa"));
  const std::string wide = [] {
    std::string text;
    for (int i = 0; i < 50'000; ++i) text += "a" + std::to_string(i) + "|";
    return text + "z";
  }();
  CHECK(matches(wide, "a4711"));
  CHECK(matches(std::string(100'000, 'x'), std::string(100'000, 'x')));
  // Needs 2^60 states in the worst case; the text only visits a few.
  CHECK(matches("(a|b)*a(a|b){60}", std::string(61, 'a')));
}

TEST_CASE("classes of many ranges are paid for") {
  const auto refusal = [](std::string_view pattern) -> std::string {
    GrammarSpec spec;
    const RegexPool::Budget budget = spec.budget();
    try {
      parse_regex(spec.regexes(), pattern);
    } catch (const Error& error) {
      return error.what();
    }
    return {};
  };
  // 100 KB of classes, no two of them equal.
  std::string distinct, repeated, bracket = "[";
  for (int i = 0; distinct.size() < 100'000; ++i) {
    utf8_append(distinct += "[\\p{Lu}\\p{Nd}\\p{Sm}", static_cast<char32_t>(0x4E00 + i));
    distinct += "]";
  }
  while (repeated.size() < 100'000) repeated += "\\pL";
  for (char32_t c = 0x1FFFF; bracket.size() < 100'000; c -= 2) utf8_append(bracket, c);
  CHECK(refusal(distinct).find("limit") != std::string::npos);
  CHECK(refusal(repeated).find("its classes have more ranges") != std::string::npos);
  CHECK(refusal(bracket + "]").empty());
  CHECK(refusal("^[\\p{L}\\p{M}\\p{N} '-]{1,100}([\\p{P}\\p{S}]\\p{L}*){3}$").empty());
}

TEST_CASE("a pool past its limit says so") {
  RegexPool pool(100'000);
  CHECK_THROWS_AS(pool.literal(std::string(1'000'000, 'a')), Error);
}
