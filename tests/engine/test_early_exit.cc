#include <doctest/doctest.h>

#include "engine/micro_models.h"
#include "specdec/error.h"
#include "support/engine_runs.h"

// The oracle of a draft by the target's first layers is a draft model that consists of them, with
// KV, a cache and a commit of its own: the drafts must be the same, tree by tree.

using namespace specdec;
using namespace specdec::testing;

namespace {

Request request_of(int length, float temperature) {
  Request request;
  for (int t = 0; t < length; ++t) request.prompt_tokens.push_back((13 * t + 5) % 250);
  request.sampling.temperature = temperature;
  request.sampling.seed = 3;
  request.sampling.max_tokens = 60;
  request.sampling.ignore_eos = true;
  return request;
}

struct Drafts {
  std::vector<TreeSnapshot> trees;  // of each step
  RequestStats stats;
};

Drafts run(Engine& engine, const Request& request) {
  Drafts drafts;
  engine.record_trees(true);
  const RequestId id = engine.submit(request);
  while (engine.step()) {
    drafts.trees.push_back(engine.last_tree(id));
    for (const Output& output : engine.take_outputs())
      if (output.finished()) drafts.stats = output.stats;
  }
  return drafts;
}

void check_equal(const Drafts& expected, const Drafts& actual) {
  REQUIRE(expected.trees.size() == actual.trees.size());
  for (std::size_t step = 0; step < expected.trees.size(); ++step) {
    CAPTURE(step);
    CHECK(expected.trees[step].tokens == actual.trees[step].tokens);
    CHECK(expected.trees[step].parents == actual.trees[step].parents);
    CHECK(expected.trees[step].accepted_path == actual.trees[step].accepted_path);
  }
}

}  // namespace

TEST_CASE("the target's first layers draft what a model made of them drafts") {
  for (const int topk : {1, 3})
    for (const float temperature : {0.0f, 1.0f}) {
      CAPTURE(topk);
      CAPTURE(temperature);
      Config early = micro_early_exit_config();
      early.draft.tree.topk = topk;
      Config separate = micro_config();
      separate.draft.model = micro_models().first_layers;
      separate.draft.tree.topk = topk;
      Engine engine = Engine::load(early);
      Engine oracle = Engine::load(separate);
      // The second prompt begins with the first: its KV is a hit, and the draft's with it.
      for (const int length : {37, 50}) {
        const Drafts expected = run(oracle, request_of(length, temperature));
        const Drafts actual = run(engine, request_of(length, temperature));
        check_equal(expected, actual);
        CHECK(actual.stats.num_cached_tokens == expected.stats.num_cached_tokens);
        CHECK(actual.stats.speculation.spec_decode_num_accepted_tokens > 3);
      }
    }
}

TEST_CASE("what is made of the drafts is what a model of the first layers would have had made") {
  // Under the sampled rules tokens depend on every draft, and on both models' logits at it.
  std::vector<Request> requests;
  for (int i = 0; i < 12; ++i) {
    requests.push_back(request_of(3 + 7 * i, i % 4 == 0 ? 0.0f : 1.0f));
    requests.back().sampling.seed = 40U + static_cast<std::uint64_t>(i);
    requests.back().sampling.logprobs = 2;
    requests.back().sampling.repetition_penalty = i % 3 == 0 ? 1.2f : 1.0f;
  }
  const auto run_all = [&](Config config, const std::string& model) {
    config.kv_cache.prefix_cache = false;  // a model of its own may find its KV missing
    Engine engine = Engine::load(config);
    for (std::size_t i = 0; i < requests.size(); ++i)
      requests[i].speculation.method = i % 3 == 1 ? "suffix+" + model : i % 5 == 4 ? "none" : model;
    std::vector<RunResult> results = run_requests(engine, requests, 5, 2);
    CHECK(engine.stats().speculation.spec_decode_num_accepted_tokens > 50);
    return results;
  };
  for (const char* rule : {"coupled", "rejection", "traversal", "typical"})
    for (const int topk : {1, 3}) {
      CAPTURE(rule);
      CAPTURE(topk);
      Config early = micro_early_exit_config();
      early.draft.tree.topk = topk;
      early.draft.tree.num_draft_tokens = 9;
      early.draft.length.num_speculative_tokens = 4;
      early.verify.method = rule;
      Config separate = early;
      separate.draft.early_exit.exit_layer = 0;
      separate.draft.method = "draft_model";
      separate.draft.model = micro_models().first_layers;
      const std::vector<RunResult> expected = run_all(separate, "draft_model");
      const std::vector<RunResult> actual = run_all(early, "early_exit");
      for (std::size_t i = 0; i < requests.size(); ++i) {
        INFO("request " << i << ": " << describe_difference(expected[i], actual[i]));
        CHECK(same_output(expected[i], actual[i]));
      }
    }
}

TEST_CASE("drafts of the first layers need no room in the cache") {
  const Config early = micro_early_exit_config();
  Config plain = early;
  plain.draft.method = "none";
  plain.draft.early_exit.exit_layer = 0;
  CHECK(Engine::load(early).stats().kv_blocks_total == Engine::load(plain).stats().kv_blocks_total);
}

TEST_CASE("an exit layer that cannot be is refused with what to do") {
  Config config = micro_early_exit_config();
  config.draft.early_exit.exit_layer = 0;
  CHECK(refusal(config).find("draft.early_exit.exit_layer is 0") != std::string::npos);
  config.draft.early_exit.exit_layer = 200;
  CHECK(refusal(config).find("is 200") != std::string::npos);
  CHECK(refusal(config).find("must leave some out") != std::string::npos);
  config.draft.early_exit.exit_layer = 2;
  config.draft.model = micro_models().draft;
  CHECK(refusal(config).find("one draft model") != std::string::npos);
}
