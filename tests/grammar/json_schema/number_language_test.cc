#include "sampling/grammar/json_schema/number_language.h"

#include <doctest/doctest.h>

#include <cstdlib>
#include <random>
#include <string>
#include <vector>

using namespace specdec::grammar;

namespace {

/// A decimal text with at most three places, and its value in thousandths.
struct Text {
  std::string text;
  long long thousandths;
};

std::vector<Text> texts() {
  std::vector<Text> all;
  for (const long long value :
       {0LL,     1LL,     2LL,      5LL,      9LL,      10LL,     11LL,     19LL,   25LL,
        99LL,    100LL,   101LL,    250LL,    999LL,    1000LL,   1500LL,   9990LL, 10000LL,
        12345LL, 99999LL, 100000LL, 100001LL, 123456LL, 999999LL, 1000000LL}) {
    const std::string whole = std::to_string(value / 1000);
    const std::string places = std::to_string(1000 + value % 1000).substr(1);
    for (std::size_t size = 0; size <= 3; ++size) {
      if (std::atoi(places.substr(size).c_str()) != 0) continue;
      for (const char* zeros : {"", "0"}) {
        if (size == 0 && *zeros == '0') continue;
        const std::string text = whole + (size == 0 ? "" : "." + places.substr(0, size) + zeros);
        all.push_back({text, value});
        all.push_back({"-" + text, -value});
      }
    }
  }
  return all;
}

Decimal decimal(long long thousandths) {
  return *Decimal::parse(std::to_string(thousandths) + "e-3");
}

}  // namespace

TEST_CASE("decimals compare as their values") {
  std::mt19937 random(7);
  const auto pick = [&] { return static_cast<long long>(random() % 4001) - 2000; };
  for (int i = 0; i < 20000; ++i) {
    const long long a = pick(), b = pick();
    CHECK((decimal(a) < decimal(b)) == (a < b));
    CHECK((decimal(a) == decimal(b)) == (a == b));
  }
  CHECK(Decimal::parse("1.500e3")->text() == "1500");
  CHECK(Decimal::parse("-0.00120")->text() == "-0.0012");
  CHECK(*Decimal::parse("-0") == *Decimal::parse("0.0e9"));
  CHECK(!Decimal::parse("1e999999999999"));
}

TEST_CASE("bounds, equality and complements hold exactly the texts they should") {
  const std::vector<Text> all = texts();
  std::vector<long long> bounds = {0, 1, -1, 250, 999, 1000, -1000, 9990, 10000, 99999, -123456};
  for (const long long bound : bounds) {
    RegexPool pool;
    NumberLanguage numbers(pool, {});
    const Decimal at = decimal(bound);
    const RegexRef less = numbers.less(at, false), up_to = numbers.less(at, true);
    const RegexRef more = numbers.greater(at, false), from = numbers.greater(at, true);
    const RegexRef same = numbers.equal(at), other = numbers.complement(same);
    for (const Text& t : all) {
      CAPTURE(t.text);
      CAPTURE(bound);
      CHECK(pool.matches(less, t.text) == (t.thousandths < bound));
      CHECK(pool.matches(up_to, t.text) == (t.thousandths <= bound));
      CHECK(pool.matches(more, t.text) == (t.thousandths > bound));
      CHECK(pool.matches(from, t.text) == (t.thousandths >= bound));
      CHECK(pool.matches(same, t.text) == (t.thousandths == bound));
      CHECK(pool.matches(other, t.text) == (t.thousandths != bound));
    }
    // What serialisers write with an exponent lies beyond every bound, or between it and zero.
    CHECK(pool.matches(less, "1e+16") == false);
    CHECK(pool.matches(less, "-2.5e+300") == true);
    CHECK(pool.matches(more, "1e-05") == (bound <= 0));
    CHECK(pool.matches(more, "-1e-05") == (bound < 0));
  }
}

TEST_CASE("multiples") {
  const std::vector<Text> all = texts();
  for (const long long divisor : {1LL, 2LL, 3LL, 5LL, 7LL, 10LL, 250LL, 500LL, 1000LL, 2500LL,
                                  3000LL, 7000LL, 11000LL, 100000LL}) {
    RegexPool pool;
    NumberLanguage numbers(pool, {false, true});
    const RegexRef multiples = numbers.multiple_of(decimal(divisor));
    const RegexRef others = numbers.complement(multiples);
    for (const Text& t : all) {
      CAPTURE(t.text);
      CAPTURE(divisor);
      CHECK(pool.matches(multiples, t.text) == (t.thousandths % divisor == 0));
      CHECK(pool.matches(others, t.text) == (t.thousandths % divisor != 0));
    }
  }
}

TEST_CASE("integers") {
  RegexPool pool;
  NumberLanguage numbers(pool, {});
  for (const char* text : {"0", "-0", "17", "-3", "1.0", "2.000", "1e+20", "1.5e16"})
    CHECK(pool.matches(numbers.integer(true), text));
  for (const char* text : {"1.5", "01", "1e-05", "", "-", "1."}) {
    CHECK(!pool.matches(numbers.integer(true), text));
    CHECK(!pool.matches(numbers.integer(false), text));
  }
  CHECK(!pool.matches(numbers.integer(false), "1.0"));
}
