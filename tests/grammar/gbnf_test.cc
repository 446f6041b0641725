#include "sampling/grammar/gbnf.h"

#include <doctest/doctest.h>

#include <climits>
#include <set>
#include <string>

#include "sampling/grammar/compiled_grammar.h"

using namespace specdec::grammar;

namespace {

struct Quantifier {
  const char* text;
  int min;
  int max;
};
constexpr Quantifier kQuantifiers[] = {{"*", 0, INT_MAX},    {"+", 1, INT_MAX}, {"?", 0, 1},
                                       {"{1}", 1, 1},        {"{0,1}", 0, 1},   {"{2}", 2, 2},
                                       {"{1,}", 1, INT_MAX}, {"{0}", 0, 0}};
constexpr int kMostTimes = 6;

/// How often the element may come when what may come `times` often is repeated.
std::set<int> repeated(const std::set<int>& times, const Quantifier& quantifier) {
  std::set<int> sums = {0};  // of so many repeats
  std::set<int> all;
  for (int repeats = 0; repeats <= quantifier.max && repeats <= kMostTimes + 2; ++repeats) {
    if (repeats >= quantifier.min) all.insert(sums.begin(), sums.end());
    std::set<int> next;
    for (const int sum : sums)
      for (const int more : times)
        if (sum + more <= kMostTimes) next.insert(sum + more);
    sums = next;
  }
  return all;
}

}  // namespace

TEST_CASE("quantifiers of quantifiers, of what is regular and what is not") {
  const std::string rules = "\npair ::= \"ab\" | \"(\" pair \")\"\n";
  int wrong = 0;
  for (const std::string element : {"\"ab\"", "pair"})
    for (const Quantifier& first : kQuantifiers)
      for (const Quantifier& second : kQuantifiers)
        for (const Quantifier& third : kQuantifiers) {
          const std::string text = "root ::= \"<\" " + element + first.text + second.text +
                                   third.text + " \">\"" + rules;
          CompiledGrammar grammar(parse_gbnf(text));
          const std::set<int> expected = repeated(repeated(repeated({1}, first), second), third);
          std::string matched = "<";
          for (int times = 0; times <= kMostTimes; ++times, matched += "ab") {
            const bool matches = grammar.matches(matched + ">");
            if (matches == expected.contains(times)) continue;
            ++wrong;
            MESSAGE(text << times);
          }
        }
  CHECK(wrong == 0);
}
