#include <doctest/doctest.h>

#include <map>
#include <random>
#include <string>
#include <vector>

#include "engine/micro_models.h"
#include "support/check_outputs.h"
#include "support/engine_runs.h"

// Single steps whose passes are graphs, on micro models: what a graph changes is the time alone.
// Few requests, so that an interpreter of the kernels gets through them too.

using namespace specdec;
using namespace specdec::testing;

namespace {

struct Setting {
  const char* name = "";
  Config (*base)() = micro_config;
  const char* method = "none";
  int batch = 1;
  int topk = 1;
  int memory_mb = 8;
  bool device_loop = false;
  bool device_sampling = true;
  const char* mode = "fixed";
  const char* rule = "coupled";
  bool graphs = true;
  int fewest = 1;  // graph passes that its requests must bring
};

Config config_for(const Setting& setting) {
  Config config = setting.base();
  config.draft.method = setting.method;
  config.draft.length.num_speculative_tokens = 4;
  config.draft.length.mode = setting.mode;
  config.draft.length.cost_cache = "off";
  config.draft.tree.topk = setting.topk;
  config.draft.tree.num_draft_tokens = 7;
  config.kv_cache.memory_mb = setting.memory_mb;
  config.backend.device_loop = setting.device_loop;
  config.backend.device_sampling = setting.device_sampling;
  config.backend.step_graphs = setting.graphs;
  config.scheduler.max_num_seqs = 8;
  config.verify.method = setting.rule;
  return config;
}

/// Every second one constrained by a grammar if `constrained`; some greedy, some sampled, with
/// penalties, stop strings and log-probabilities.
std::vector<Request> mixed_requests(std::size_t count, int max_tokens, bool constrained,
                                    std::size_t longer = 0) {
  std::mt19937 random(7);
  std::vector<Request> requests(count);
  for (std::size_t i = 0; i < count; ++i) {
    Request& request = requests[i];
    for (std::size_t t = 0; t < longer + 2 + 6 * (i % 3); ++t)
      request.prompt_tokens.push_back(static_cast<TokenId>(30 + random() % 60));
    SamplingOptions& options = request.sampling;
    options.max_tokens = max_tokens - static_cast<int>(i % 3);
    options.seed = 50 + i;
    options.logprobs = static_cast<int>(i % 3) - 1;
    if (i % 2 == 1) options.temperature = 0.8f;
    if (i % 3 == 1) options.top_p = 0.9f;
    if (i % 4 == 2) options.repetition_penalty = 1.2f;
    if (i % 5 == 3) options.stop = {"q", "zz"};
    options.ignore_eos = i % 3 != 2;
    if (constrained && i % 2 == 0)
      request.grammar = i % 4 == 0 ? Grammar::regex("(yes|no|maybe)(,(yes|no|maybe)){2,6}")
                                   : Grammar::regex("[a-f]{3,12}-\\d{2,4}");
  }
  return requests;
}

std::vector<RunResult> plain_results(const std::vector<Request>& requests) {
  Engine engine = Engine::load(config_for({.device_sampling = false, .graphs = false}));
  const std::vector<RunResult> results = run_requests(engine, requests, 1);
  CHECK(engine.stats().num_graph_passes == 0);
  return results;
}

bool no_device() { return test_device() != "cuda" || device_missing(); }

/// Steps an engine through requests of which another's steps may lie between.
class Stepped {
 public:
  Stepped(Engine& engine, const std::vector<Request>& requests)
      : engine_(engine), results(requests.size()) {
    for (std::size_t i = 0; i < requests.size(); ++i) {
      ids.push_back(engine.submit(requests[i]));
      index_[ids.back()] = i;
    }
  }
  bool step() {
    const bool more = engine_.step();
    for (const Output& output : engine_.take_outputs()) {
      RunResult& result = results[index_.at(output.id)];
      result.text += output.text;
      for (const OutputToken& token : output.tokens) {
        result.tokens.push_back(token.token);
        result.logprobs.push_back(token.logprob);
        result.top_logprobs.push_back(token.top_logprobs);
      }
      if (output.finished()) result.finish_reason = output.finish_reason;
    }
    return more;
  }

 private:
  Engine& engine_;
  std::map<RequestId, std::size_t> index_;

 public:
  std::vector<RequestId> ids;
  std::vector<RunResult> results;
};

}  // namespace

TEST_CASE("graphs of single steps change no token and no logprob" * doctest::skip(no_device())) {
  const Setting settings[] = {
      {.name = "plain, batch 5", .batch = 5, .fewest = 8},
      {.name = "draft model beside the loop",
       .method = "draft_model",
       .batch = 2,
       .device_loop = true,
       .fewest = 3},
      {.name = "mixture with an EAGLE-3 head, batch 4",
       .base = micro_eagle_config,
       .method = "suffix+eagle3",
       .batch = 4,
       .device_loop = true,
       .fewest = 30},
      {.name = "mixture with a draft model, trees, batch 3",
       .method = "suffix+draft_model",
       .batch = 3,
       .topk = 3,
       .fewest = 40},
      {.name = "lookahead, the host draws",
       .method = "lookahead",
       .batch = 2,
       .device_sampling = false,
       .fewest = 12},
      // Most of its passes go on from an early exit's rows.
      {.name = "early exit", .base = micro_early_exit_config, .method = "early_exit", .batch = 3},
  };
  for (const bool constrained : {false, true}) {
    CAPTURE(constrained);
    const std::vector<Request> requests = mixed_requests(5, 12, constrained);
    const std::vector<RunResult> expected = plain_results(requests);
    for (const Setting& setting : settings) {
      // In turn, for their time: half of them without a grammar.
      if (!constrained && (&setting - settings) % 2 == 1) continue;
      INFO(setting.name);
      Engine engine = Engine::load(config_for(setting));
      CHECK(engine.stats().num_graph_passes == 0);
      check_equal(expected, run_requests(engine, requests, setting.batch));
      CHECK(engine.stats().num_graph_passes >= setting.fewest);
      CHECK(engine.stats().kv_blocks_held == 0);
    }
  }
}

// Costs are those of passes by graphs: what was timed, captured and thrown away at load is in
// nobody's way.
TEST_CASE("adaptive lengths over graphs of single steps change no token" *
          doctest::skip(no_device())) {
  const std::vector<Request> requests = mixed_requests(4, 16, true);
  const std::vector<RunResult> expected = plain_results(requests);
  Engine engine = Engine::load(config_for({.method = "suffix+draft_model", .mode = "adaptive"}));
  CHECK(engine.stats().num_graph_passes == 0);
  CHECK(engine.stats().verify_costs.size() > 5);
  check_equal(expected, run_requests(engine, requests, 2));
  CHECK(engine.stats().num_graph_passes > 0);
}

// Drafts follow the target's features and the draft's own logits, so they show what the tokens of
// the coupled rule hide.
TEST_CASE("drafts are the same with and without graphs" * doctest::skip(no_device())) {
  const std::vector<Request> requests = mixed_requests(3, 14, false);
  const Setting settings[] = {
      {.name = "mixture with an EAGLE-3 head",
       .base = micro_eagle_config,
       .method = "suffix+eagle3",
       .batch = 2,
       .topk = 2},
      {.name = "draft model", .method = "draft_model", .batch = 2},
      {.name = "draft model, rejection", .method = "draft_model", .batch = 3, .rule = "rejection"},
  };
  for (Setting setting : settings) {
    INFO(setting.name);
    std::vector<RunResult> results[2];
    for (const bool graphs : {false, true}) {
      setting.graphs = graphs;
      Engine engine = Engine::load(config_for(setting));
      results[graphs] = run_requests(engine, requests, setting.batch);
      CHECK((engine.stats().num_graph_passes > 0) == graphs);
    }
    check_equal(results[0], results[1]);
    for (std::size_t i = 0; i < requests.size(); ++i) {
      CAPTURE(i);
      const SpeculationStats& launched = results[0][i].stats.speculation;
      const SpeculationStats& captured = results[1][i].stats.speculation;
      CHECK(launched.acceptance_histogram == captured.acceptance_histogram);
      CHECK(launched.spec_decode_num_draft_tokens == captured.spec_decode_num_draft_tokens);
      CHECK(launched.num_spec_steps == captured.num_spec_steps);
    }
  }
}

TEST_CASE("preempted and cancelled requests leave graphs of single steps as they were" *
          doctest::skip(no_device())) {
  const std::vector<Request> requests = mixed_requests(7, 26, false, 70);
  const std::vector<RunResult> expected = plain_results(requests);
  Engine engine = Engine::load(config_for({.method = "suffix+draft_model", .memory_mb = 1}));
  Stepped run(engine, requests);
  for (int step = 0; step < 6; ++step) run.step();
  engine.cancel(run.ids[1]);
  while (run.step()) {
  }
  for (std::size_t i = 0; i < requests.size(); ++i) {
    INFO("request " << i << ": " << describe_difference(expected[i], run.results[i]));
    if (i != 1) CHECK(same_output(expected[i], run.results[i]));
  }
  CHECK(run.results[1].finish_reason == FinishReason::cancelled);
  const std::vector<TokenId>& some = run.results[1].tokens;
  REQUIRE(some.size() <= expected[1].tokens.size());
  CHECK(std::equal(some.begin(), some.end(), expected[1].tokens.begin()));
  CHECK(engine.stats().num_preemptions > 0);
  CHECK(engine.stats().num_graph_passes > 0);
  CHECK(engine.stats().kv_blocks_held == 0);
}

TEST_CASE("two engines of one process have graphs of their own" * doctest::skip(no_device())) {
  const std::vector<Request> requests = mixed_requests(3, 12, true);
  const std::vector<RunResult> expected = plain_results(requests);
  Engine first = Engine::load(config_for({.method = "lookahead"}));
  Engine second = Engine::load(config_for({.base = micro_eagle_config, .method = "suffix+eagle3"}));
  Stepped one(first, requests);
  Stepped other(second, requests);
  for (bool more = true; more;) {
    more = one.step();
    more = other.step() || more;
  }
  check_equal(expected, one.results);
  check_equal(expected, other.results);
  CHECK(first.stats().num_graph_passes > 0);
  CHECK(second.stats().num_graph_passes > 0);
}
