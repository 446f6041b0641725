// specdec-bench's runner over a tiny random model: who runs what, and that nobody profits from
// another's cache.

#include <doctest/doctest.h>

#include <string>
#include <vector>

#include "tiny_engine.h"
#include "tools/specdec_bench/runner.h"

namespace {

using namespace specdec;
using namespace specdec::bench;
using specdec::testing::TinyEngine;

const std::vector<Prompt> kPrompts = {{"a", {"one", "and then?"}},
                                      {"b", {"two two two two"}},
                                      {"a", {"three", "why?", "so?"}},
                                      {"b", {"four"}},
                                      {"c", {"five"}}};

Plan plan(int batch, bool all_turns) {
  Plan plan;
  plan.methods = {"none", "ngram"};
  plan.sampling.max_tokens = 6;
  plan.sampling.ignore_eos = true;
  plan.sampling.temperature = 0.8f;
  plan.sampling.seed = 5;
  plan.batch = batch;
  plan.all_turns = all_turns;
  return plan;
}

}  // namespace

TEST_CASE("every method runs every prompt, in any batch, with the same tokens") {
  const TinyEngine tiny;
  Engine engine = tiny.load();
  std::vector<std::size_t> progress;
  const auto alone = run_all(engine, kPrompts, plan(1, false), [&](std::size_t done) {
    progress.push_back(done);
    return false;
  });
  CHECK(progress == std::vector<std::size_t>{1, 2, 3, 4, 5, 6, 7, 8, 9, 10});
  const auto together =
      run_all(engine, kPrompts, plan(3, false), [](std::size_t) { return false; });
  REQUIRE(alone.size() == 2);
  for (std::size_t method = 0; method < 2; ++method) {
    REQUIRE(alone[method].size() == kPrompts.size());
    REQUIRE(together[method].size() == kPrompts.size());
    for (std::size_t i = 0; i < kPrompts.size(); ++i) {
      CHECK(alone[method][i].category == kPrompts[i].category);
      CHECK(alone[method][i].tokens.size() == 6);
      CHECK(alone[method][i].tokens == alone[0][i].tokens);
      CHECK(together[method][i].tokens == alone[0][i].tokens);
      CHECK(alone[method][i].total_time > 0);
      CHECK(alone[method][i].time_to_first_token > 0);
      CHECK(alone[method][i].decode_tokens == 5);
      CHECK(alone[method][i].num_step_tokens >= alone[method][i].num_spec_steps);
    }
  }
  CHECK(alone[0][1].num_draft_tokens == 0);
}

TEST_CASE("no run finds a prefix in the cache that another one computed") {
  const TinyEngine tiny;
  Engine engine = tiny.load();
  const std::vector<Prompt> twice = {{"a", {std::string(200, 'x')}},
                                     {"a", {std::string(200, 'x')}}};
  run_all(engine, twice, plan(1, false), [](std::size_t) { return false; });
  run_all(engine, twice, plan(2, false), [](std::size_t) { return false; });
  CHECK(engine.stats().prefix_hit_tokens == 0);
}

TEST_CASE("all turns: later turns carry the conversation") {
  const TinyEngine tiny;
  Engine engine = tiny.load();
  const auto runs = run_all(engine, kPrompts, plan(2, true), [](std::size_t) { return false; });
  for (const auto& method : runs)
    for (std::size_t i = 0; i < kPrompts.size(); ++i) {
      CHECK(method[i].tokens.size() == 6 * kPrompts[i].turns.size());
      CHECK(method[i].tokens == runs[0][i].tokens);
    }
}

TEST_CASE("a measurement that is stopped keeps what it has") {
  const TinyEngine tiny;
  Engine engine = tiny.load();
  const auto runs =
      run_all(engine, kPrompts, plan(1, false), [](std::size_t done) { return done == 3; });
  CHECK(runs[0].size() + runs[1].size() == 3);
}

TEST_CASE("grammars hold under every method, and free decoding makes as many tokens without") {
  const TinyEngine tiny;
  Engine engine = tiny.load();
  std::vector<Prompt> prompts = kPrompts;
  for (Prompt& prompt : prompts) prompt.grammar = {GrammarSource::Kind::regex, "[a-c]{2,4}", {}};
  Plan constrained = plan(2, false);
  constrained.methods = {"ngram", "none", std::string(kFree)};
  const auto runs = run_all(engine, prompts, constrained, [](std::size_t) { return false; });
  REQUIRE(runs.size() == 3);
  for (std::size_t i = 0; i < prompts.size(); ++i) {
    std::string text;
    for (const TokenId token : runs[1][i].tokens) text += engine.tokenizer().token_bytes(token);
    CHECK_FALSE(Grammar::regex("[a-c]{2,4}").check(text));
    CHECK(runs[0][i].tokens == runs[1][i].tokens);
    CHECK(runs[2][i].tokens.size() == runs[1][i].tokens.size());
    CHECK(runs[1][i].grammar_time > 0);
  }
}
