#include "sampling/grammar/compiled_grammar.h"

#include <doctest/doctest.h>

#include <string>

#include "sampling/grammar/regex_syntax.h"
#include "specdec/error.h"

using namespace specdec;
using namespace specdec::grammar;

namespace {

struct Builder {
  GrammarSpec spec;
  Symbol regex(std::string_view pattern) {
    return spec.add_lexeme(parse_regex(spec.regexes(), pattern));
  }
  CompiledGrammar compile(Symbol start) {
    spec.set_start(start);
    return CompiledGrammar(std::move(spec));
  }
};

}  // namespace

TEST_CASE("arithmetic, left-recursive") {
  Builder b;
  const Symbol number = b.regex("[0-9]+"), plus = b.regex("[-+]"), times = b.regex("[*/]");
  const Symbol open = b.regex("\\("), close = b.regex("\\)");
  const Symbol sum = b.spec.add_nonterminal(), product = b.spec.add_nonterminal(),
               factor = b.spec.add_nonterminal();
  b.spec.add_production(sum, {product});
  b.spec.add_production(sum, {sum, plus, product});
  b.spec.add_production(product, {factor});
  b.spec.add_production(product, {product, times, factor});
  b.spec.add_production(factor, {number});
  b.spec.add_production(factor, {open, sum, close});
  CompiledGrammar grammar = b.compile(sum);
  CHECK(grammar.matches("1"));
  CHECK(grammar.matches("12+3*(4-5)/6"));
  CHECK(grammar.matches("((((1))))"));
  CHECK(!grammar.matches(""));
  CHECK(!grammar.matches("1+"));
  CHECK(!grammar.matches("(1"));
  CHECK(!grammar.matches("1)"));
  CHECK(grammar.is_dead(grammar.advance(grammar.start(), "1)")));
  // The same place in a list is the same state, however long the list.
  CHECK(grammar.advance(grammar.start(), "1+2+") == grammar.advance(grammar.start(), "1+2+33+4+"));
}

TEST_CASE("right recursion keeps its rows") {
  Builder b;
  const Symbol item = b.regex("[a-z]+"), comma = b.regex(",");
  const Symbol list = b.spec.add_nonterminal();
  b.spec.add_production(list, {item});
  b.spec.add_production(list, {item, comma, list});
  CompiledGrammar grammar = b.compile(list);
  CHECK(grammar.matches("a,bc,d"));
  CHECK(!grammar.matches("a,,d"));
  CHECK(grammar.advance(grammar.start(), "a,") == grammar.advance(grammar.start(), "a,b,ccc,"));
}

TEST_CASE("ambiguity between lexemes keeps every reading") {
  Builder b;
  const Symbol text = b.spec.add_nonterminal();
  const Symbol as = b.regex("a*"), word = b.regex("[ab]{2}"), c = b.regex("c");
  b.spec.add_production(text, {as, word, c});
  CompiledGrammar grammar = b.compile(text);
  for (const char* yes : {"abc", "aac", "aaaac", "aaabc", "abac"}) {
    CAPTURE(yes);
    CHECK(grammar.matches(yes));
  }
  for (const char* no : {"ac", "bbbc", "abab"}) {
    CAPTURE(no);
    CHECK(!grammar.matches(no));
  }
}

TEST_CASE("empty symbols anywhere") {
  Builder b;
  const Symbol a = b.regex("a"), maybe = b.regex("b?"), end = b.regex("c?");
  const Symbol text = b.spec.add_nonterminal(), inner = b.spec.add_nonterminal();
  b.spec.add_production(text, {inner, inner, end});
  b.spec.add_production(inner, {});
  b.spec.add_production(inner, {maybe, inner, a});
  CompiledGrammar grammar = b.compile(text);
  for (const char* yes : {"", "c", "a", "ba", "bbaa", "baba", "babac", "bbaabac"}) {
    CAPTURE(yes);
    CHECK(grammar.matches(yes));
  }
  for (const char* no : {"b", "cb", "bb", "abb", "bca"}) {
    CAPTURE(no);
    CHECK(!grammar.matches(no));
  }
}

TEST_CASE("lazy symbols: members in any order") {
  Builder b;
  const Symbol names[] = {b.regex("x"), b.regex("y"), b.regex("z")};
  const Symbol comma = b.regex(",");
  // One symbol per set of members that are still to come; all of them must come.
  std::function<Symbol(GrammarSpec&, unsigned)> members = [&](GrammarSpec& spec, unsigned open) {
    return spec.add_lazy_nonterminal([&, open](GrammarSpec& inner, Symbol self) {
      for (unsigned i = 0; i < 3; ++i) {
        if (!(open >> i & 1)) continue;
        const unsigned rest = open & ~(1u << i);
        if (rest == 0)
          inner.add_production(self, {names[i]});
        else
          inner.add_production(self, {names[i], comma, members(inner, rest)});
      }
    });
  };
  const Symbol start = members(b.spec, 7);
  CompiledGrammar grammar = b.compile(start);
  for (const char* yes : {"x,y,z", "z,y,x", "y,x,z"}) CHECK(grammar.matches(yes));
  for (const char* no : {"x,y", "x,x,y", "x,y,z,", "x,y,z,x"}) CHECK(!grammar.matches(no));
}

TEST_CASE("lazy symbols that may be empty") {
  Builder b;
  const Symbol x = b.regex("x"), comma = b.regex(",");
  // Up to three of them, the rest always optional.
  std::function<Symbol(GrammarSpec&, int)> more = [&](GrammarSpec& spec, int left) {
    return spec.add_lazy_nonterminal([&, left](GrammarSpec& inner, Symbol self) {
      inner.add_production(self, {});
      if (left > 0) inner.add_production(self, {comma, x, more(inner, left - 1)});
    });
  };
  const Symbol start = b.spec.add_nonterminal();
  b.spec.add_production(start, {x, more(b.spec, 2)});
  CompiledGrammar grammar = b.compile(start);
  for (const char* yes : {"x", "x,x", "x,x,x"}) CHECK(grammar.matches(yes));
  for (const char* no : {"", "x,", "x,x,x,x", "x,x,x,"}) CHECK(!grammar.matches(no));
}

TEST_CASE("what cannot be completed is no way to go") {
  Builder b;
  const Symbol a = b.regex("a"), never = b.spec.add_lexeme(b.spec.regexes().never());
  const Symbol text = b.spec.add_nonterminal(), endless = b.spec.add_nonterminal();
  b.spec.add_production(text, {a});
  b.spec.add_production(text, {a, a, never});
  b.spec.add_production(text, {a, endless});
  b.spec.add_production(endless, {a, endless});
  CompiledGrammar grammar = b.compile(text);
  CHECK(grammar.matches("a"));
  CHECK(grammar.is_dead(grammar.advance(grammar.start(), "aa")));

  Builder empty;
  const Symbol nothing = empty.spec.add_nonterminal();
  empty.spec.add_production(nothing, {nothing});
  CHECK_THROWS_AS(empty.compile(nothing), Error);
}

TEST_CASE("an intersection that dies is seen at once") {
  Builder b;
  RegexPool& pool = b.spec.regexes();
  const RegexRef even = pool.star(pool.literal("ab")), other = parse_regex(pool, "(ab|ac)*ac");
  const Symbol text = b.spec.add_lexeme(pool.any_of(pool.all_of(even, other), pool.literal("abx")));
  const Symbol start = b.spec.add_nonterminal();
  b.spec.add_production(start, {text});
  CompiledGrammar grammar = b.compile(start);
  CHECK(grammar.forced_text(grammar.start(), 10) == "abx");
}
