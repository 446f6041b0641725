#include "sampling/grammar/mask_rows.h"

#include <doctest/doctest.h>

#include <random>
#include <vector>

#include "sampling/grammar/regex_syntax.h"
#include "vocabularies.h"

using namespace specdec;
using namespace specdec::grammar;
using namespace specdec::testing;

TEST_CASE("mask rows are those of their states, and no more of them than allowed are kept") {
  const Vocabulary vocabulary = made_vocabulary();
  const TokenIndex index = vocabulary.index();
  GrammarSpec spec;
  spec.set_start(spec.add_lexeme(parse_regex(spec.regexes(), "[ab]{0,60}(ca|cb|the)?")));
  CompiledGrammar grammar(std::move(spec));
  TokenMasks masks(grammar, index, vocabulary.end_tokens);
  std::vector<GrammarState> states{grammar.start()};
  for (int i = 0; i < 60; ++i) states.push_back(grammar.advance(states.back(), "a"));

  const std::size_t one_row = [&] {
    MaskRows rows(index.words());
    rows.of(states[0], masks);
    return rows.memory_bytes();
  }();
  MaskRows rows(index.words(), 8 * one_row);
  std::mt19937 random(1);
  std::vector<std::uint64_t> bits(index.words());
  const MaskRows::Row held = rows.of(states[3], masks);
  for (int i = 0; i < 2000; ++i) {
    const GrammarState state = states[random() % states.size()];
    const MaskRows::Row row = rows.of(state, masks);
    masks.fill(state, bits);
    CHECK(*row == bits);
    CHECK(rows.of(state, masks) == row);
    CHECK(rows.size() <= 8);
  }
  masks.fill(states[3], bits);
  CHECK(*held == bits);
  CHECK(std::vector<std::uint64_t>(index.words()) == *rows.none());

  // What is asked for again and again stays, whatever else comes.
  const MaskRows::Row kept = rows.of(states[5], masks);
  for (const GrammarState state : states) {
    rows.of(state, masks);
    CHECK(rows.of(states[5], masks) == kept);
  }
}
