#include <doctest/doctest.h>

#include <random>
#include <string>
#include <utility>

#include "engine/backend/backend.h"
#include "engine/cost_cache.h"
#include "engine/guessed_requests.h"
#include "engine/micro_models.h"
#include "support/check_outputs.h"
#include "support/engine_runs.h"

// Steps that follow each other on the device without the host, on micro models: few requests, so
// that an interpreter of the kernels gets through them too. tests/exactness has the real model.

using namespace specdec;
using namespace specdec::testing;

namespace {

struct Setting {
  const char* name = "";
  Config (*base)() = micro_config;
  const char* method = nullptr;  // null: the base's
  int length = 4;
  int topk = 1;
  int batch = 1;
  int memory_mb = 8;
  const char* mode = "fixed";
  const char* rule = "coupled";
};

Config config_for(const Setting& setting) {
  Config config = setting.base();
  if (setting.method != nullptr) config.draft.method = setting.method;
  config.draft.length.num_speculative_tokens = setting.length;
  config.draft.length.mode = setting.mode;
  config.draft.length.schedule = {{1, 4}, {3, 0}, {4, 2}};
  config.draft.length.cost_cache = "off";
  config.draft.tree.topk = setting.topk;
  config.draft.tree.num_draft_tokens = 10;
  config.kv_cache.memory_mb = setting.memory_mb;
  config.scheduler.max_num_seqs = setting.batch;  // adaptive lengths measure every size of batch
  config.verify.method = setting.rule;
  return config;
}

/// Greedy, nucleus, top-k with min-p, penalties, bias and log-probabilities, in turn; one request
/// is over at once. Prompts have 3 to 18 tokens, or so many more.
std::vector<Request> mixed_requests(std::size_t count, int max_tokens, std::size_t longer = 0) {
  std::mt19937 random(9);
  std::vector<Request> requests(count);
  for (std::size_t i = 0; i < count; ++i) {
    Request& request = requests[i];
    for (std::size_t t = 0; t < longer + 3 + 5 * (i % 4); ++t)
      request.prompt_tokens.push_back(static_cast<TokenId>(30 + random() % 200));
    SamplingOptions& options = request.sampling;
    options.max_tokens = i == 1 ? 1 : max_tokens - static_cast<int>(i % 5);
    options.seed = 100 + i;
    options.logprobs = static_cast<int>(i % 4) - 1;
    options.ignore_eos = i % 3 == 0;
    switch (i % 5) {
      case 1:
        options.temperature = 0.8f;
        options.top_p = 0.9f;
        break;
      case 2:
        options.temperature = 1.0f;
        options.top_k = 20;
        options.min_p = 0.02f;
        break;
      case 3:
        options.temperature = 0.7f;
        options.repetition_penalty = 1.2f;
        options.frequency_penalty = 0.1f;
        break;
      case 4:
        options.logit_bias = {{60, -5.0f}, {84, 1.0f}};
        options.min_tokens = 5;
        break;
      default:
        break;
    }
  }
  return requests;
}

bool no_device() { return test_device() != "cuda" || device_missing(); }

}  // namespace

TEST_CASE("runs of device steps change no token and no logprob" * doctest::skip(no_device())) {
  Config plain = config_for({.method = "none"});
  plain.backend.device_loop = false;
  Engine reference = Engine::load(plain);
  const std::vector<Request> requests = mixed_requests(6, 16);
  const std::vector<RunResult> expected = run_requests(reference, requests, 1);
  CHECK(reference.stats().num_device_steps == 0);
  const Setting settings[] = {
      {.name = "plain", .method = "none"},
      {.name = "plain, batch 5", .method = "none", .batch = 5},
      {.name = "ngram, adaptive, batch 5", .method = "ngram", .batch = 5, .mode = "adaptive"},
      {.name = "chain"},
      {.name = "chain, adaptive, batch 3", .batch = 3, .mode = "adaptive"},
      {.name = "chain, scheduled, batch 5", .batch = 5, .mode = "schedule"},
      {.name = "tree, adaptive, batch 4", .topk = 3, .batch = 4, .mode = "adaptive"},
      {.name = "chain, cut head, batch 3", .base = micro_trimmed_config, .batch = 3},
      {.name = "tree, cut head, batch 2", .base = micro_trimmed_config, .topk = 3, .batch = 2},
      {.name = "EAGLE-3 chain", .base = micro_eagle_config},
      {.name = "EAGLE-3 chain, adaptive, batch 3",
       .base = micro_eagle_config,
       .length = 5,
       .batch = 3,
       .mode = "adaptive"},
      // Batches that shrink stop drafting and begin again: KV and features that lag.
      {.name = "EAGLE-3 chain, scheduled, batch 5",
       .base = micro_eagle_config,
       .batch = 5,
       .mode = "schedule"},
      {.name = "EAGLE-3 tree, batch 4", .base = micro_eagle_config, .topk = 3, .batch = 4},
  };
  for (const Setting& setting : settings) {
    INFO(std::string(setting.name));
    Engine engine = Engine::load(config_for(setting));
    check_equal(expected, run_requests(engine, requests, setting.batch, setting.batch > 1 ? 7 : 0));
    CHECK(engine.stats().num_device_steps > 0);
    CHECK(engine.stats().kv_blocks_held == 0);
  }
}

TEST_CASE("runs of device steps under preemption change no token and no logprob" *
          doctest::skip(no_device())) {
  Config plain = config_for({.method = "none"});
  plain.backend.device_loop = false;
  Engine reference = Engine::load(plain);
  const std::vector<Request> requests = mixed_requests(9, 32, 90);
  const std::vector<RunResult> expected = run_requests(reference, requests, 1);
  const Setting settings[] = {
      {.name = "chain, batch 8", .batch = 8, .memory_mb = 1},
      {.name = "EAGLE-3 chain, batch 8", .base = micro_eagle_config, .batch = 8, .memory_mb = 1},
      {.name = "EAGLE-3 tree, scheduled, batch 8",
       .base = micro_eagle_config,
       .topk = 3,
       .batch = 8,
       .memory_mb = 1,
       .mode = "schedule"},
  };
  for (const Setting& setting : settings) {
    INFO(std::string(setting.name));
    Engine engine = Engine::load(config_for(setting));
    check_equal(expected, run_requests(engine, requests, setting.batch, 7));
    CHECK(engine.stats().num_device_steps > 0);
    CHECK(engine.stats().num_preemptions > 0);
    // A head comes back where that pays, by costs measured here: with turns as short as a GPU's it
    // may not. (test_head_return.cc tests that it does.)
    const bool scheduled = setting.mode == std::string("schedule");
    if (scheduled) WARN(engine.stats().num_returned_tokens > 0);
    CHECK(engine.stats().kv_blocks_held == 0);
  }
}

// Here the draft decides which of the right tokens comes out: what the device drafts, and draws,
// must be what the host does.
TEST_CASE("runs of device steps judge drafts by the sampled rules as single steps do" *
          doctest::skip(no_device())) {
  std::vector<Request> requests = mixed_requests(4, 16);
  // A prompt that repeats itself has something to look up, and few likely tokens are guessed.
  for (Request& request : requests) {
    const std::vector<TokenId> once = request.prompt_tokens;
    request.prompt_tokens.insert(request.prompt_tokens.end(), once.begin(), once.end());
    for (TokenId token = 30; token < 36; ++token) request.sampling.logit_bias[token] = 6.0f;
  }
  for (const char* rule : {"rejection", "block", "traversal"}) {
    CAPTURE(rule);
    std::vector<RunResult> expected;
    for (const bool device_loop : {false, true}) {
      CAPTURE(device_loop);
      Config config = config_for({.method = "ngram", .length = 6, .rule = rule});
      config.backend.device_loop = device_loop;
      Engine engine = Engine::load(config);
      const std::vector<RunResult> actual = run_requests(engine, requests, 3);
      CHECK((engine.stats().num_device_steps > 0) == device_loop);
      CHECK(engine.stats().speculation.spec_decode_num_accepted_tokens > 0);
      if (device_loop)
        check_equal(expected, actual);
      else
        expected = actual;
    }
  }
}

namespace {

/// guessed_request() with more noise and fewer tokens, which a head guesses still more often.
Request well_guessed_request(std::vector<TokenId> prompt, int max_tokens) {
  Request request = guessed_request(std::move(prompt), max_tokens);
  request.sampling.temperature = 2.0f;
  request.sampling.logit_bias.clear();
  for (TokenId token = 30; token < 54; token += 6) request.sampling.logit_bias[token] = 14.0f;
  request.sampling.logprobs = 0;
  return request;
}

/// A request beside another that ends early: its answer, and how much of it there was when the
/// first draft came.
struct Accompanied {
  RunResult result;
  std::size_t before = 0;
};

Accompanied run_beside(Engine& engine, const Request& request, const Request& companion) {
  const RequestId id = engine.submit(request);
  engine.submit(companion);
  Accompanied run;
  while (engine.step())
    for (const Output& output : engine.take_outputs()) {
      if (output.id != id) continue;
      if (output.stats.speculation.spec_decode_num_drafts == 0) run.before += output.tokens.size();
      for (const OutputToken& token : output.tokens) {
        run.result.tokens.push_back(token.token);
        run.result.logprobs.push_back(token.logprob);
      }
      run.result.stats = output.stats;
    }
  return run;
}

/// As many drafts of each were right for one token, for two, ... Of those that were wrong at once
/// the last may have been too long for the request: that hangs on where a run began, and so on
/// time.
void check_same_drafts(const SpeculationStats& expected, const SpeculationStats& actual) {
  CHECK(expected.spec_decode_num_accepted_tokens > 5);
  CHECK(actual.spec_decode_num_accepted_tokens == expected.spec_decode_num_accepted_tokens);
  const auto right = [](const SpeculationStats& stats) {
    std::vector<std::int64_t> counts = stats.acceptance_histogram;
    if (!counts.empty()) counts.front() = 0;
    return counts;
  };
  CHECK(right(actual) == right(expected));
}

}  // namespace

TEST_CASE("runs of device steps draft with a cut head what single steps draft" *
          doctest::skip(no_device())) {
  for (const bool sampled : {false, true})
    for (const int topk : {1, 3}) {
      CAPTURE(sampled);
      CAPTURE(topk);
      Config config = config_for({.base = micro_trimmed_config, .topk = topk});
      Request request = well_guessed_request(tokens_from(0, 21), 48);
      if (!sampled) request.sampling.temperature = 0;
      std::vector<RunResult> results;
      for (const bool device_loop : {false, true}) {
        config.backend.device_loop = device_loop;
        Engine engine = Engine::load(config);
        results.push_back(run_requests(engine, {request}, 1).front());
        CHECK((engine.stats().num_device_steps > 0) == device_loop);
      }
      check_equal({results[0]}, {results[1]});
      check_same_drafts(results[0].stats.speculation, results[1].stats.speculation);
    }
}

// Under coupled acceptance tokens say nothing about a head's KV; how far each of its drafts was
// right does.
TEST_CASE("runs of device steps bring back a head that drafts as if it had never left" *
          doctest::skip(no_device())) {
  for (const int topk : {1, 3}) {
    CAPTURE(topk);
    Config config = config_for({.base = micro_eagle_config, .topk = topk, .batch = 2});
    const Request request = well_guessed_request(tokens_from(0, 21), 48);
    Engine never_left = Engine::load(config);

    config.draft.length.mode = "schedule";
    config.draft.length.schedule = {{1, 4}, {2, 0}};
    Engine engine = Engine::load(config);
    const Accompanied run =
        run_beside(engine, request, well_guessed_request(tokens_from(60, 9), 12));
    REQUIRE(run.result.tokens.size() == 48);
    CHECK(run.before >= 11);
    CHECK(run.before < 16);
    CHECK(engine.stats().num_returned_tokens >= static_cast<std::int64_t>(run.before) - 1);
    CHECK(engine.stats().num_returned_tokens < static_cast<std::int64_t>(run.before) + 21);

    // The head that never left begins where this one came back.
    Request rest = request;
    rest.prompt_tokens.insert(rest.prompt_tokens.end(), run.result.tokens.begin(),
                              run.result.tokens.begin() + static_cast<int>(run.before) - 1);
    rest.sampling.max_tokens = 49 - static_cast<int>(run.before);
    const RunResult expected = run_requests(never_left, {rest}, 1).front();
    const std::vector<TokenId> tokens(run.result.tokens.begin() + static_cast<int>(run.before) - 1,
                                      run.result.tokens.end());
    const std::vector<float> logprobs(
        run.result.logprobs.begin() + static_cast<int>(run.before) - 1, run.result.logprobs.end());
    CHECK(tokens == expected.tokens);
    CHECK(logprobs == expected.logprobs);
    check_same_drafts(expected.stats.speculation, run.result.stats.speculation);

    // A conversation's next turn finds what the returned head has left in the cache.
    Request next = request;
    next.prompt_tokens.insert(next.prompt_tokens.end(), run.result.tokens.begin(),
                              run.result.tokens.end());
    next.prompt_tokens.push_back(9);
    next.sampling.max_tokens = 24;
    Engine cold = Engine::load(config);
    const RunResult fresh = run_requests(cold, {next}, 1).front();
    const RunResult cached = run_requests(engine, {next}, 1).front();
    CHECK(cached.stats.num_cached_tokens > 50);
    check_equal({fresh}, {cached});
    check_same_drafts(fresh.stats.speculation, cached.stats.speculation);
  }
}

TEST_CASE("runs of device steps bring a head back only where it pays" *
          doctest::skip(no_device())) {
  const std::string path = micro_models().eagle + ".costs.json";
  Config config = config_for({.base = micro_eagle_config, .batch = 2});
  config.draft.length.mode = "adaptive";
  config.draft.length.cost_cache = path;
  const auto backend = make_backend(config.backend);
  const int threads = backend->host_executor().num_threads();
  const CostCache cache(path);
  cache.store(cost_key(config, backend->name(), threads),
              {.verify = {{1, 0.02}, {8, 0.02}}, .draft = {{1, 0.002}}});
  const std::vector<Request> requests = {well_guessed_request(tokens_from(0, 21), 36),
                                         well_guessed_request(tokens_from(60, 9), 8)};
  Config plain = config_for({.method = "none"});
  Engine reference = Engine::load(plain);
  const std::vector<RunResult> expected = run_requests(reference, requests, 1);
  // A turn that drafts for two costs what three of its tokens are worth and more.
  const TurnCosts turns = {{0, {{1, 0.03}, {2, 0.03}}},
                           {1, {{1, 0.032}, {2, 0.2}}},
                           {2, {{1, 0.034}, {2, 0.2}}},
                           {4, {{1, 0.036}, {2, 0.2}}}};
  for (const double each : {1e-3, 1e-1}) {
    CAPTURE(each);  // seconds for a missed token
    cache.store(turn_cost_key(config, backend->name(), threads),
                {.draft = {{1, 0.002}}, .returns = {{1, each}, {64, 64 * each}}, .turns = turns});
    Engine engine = Engine::load(config);
    check_equal(expected, run_requests(engine, requests, 2));
    CHECK((engine.stats().num_returned_tokens > 0) == (each < 1e-2));
    CHECK((engine.stats().speculation.spec_decode_num_drafts > 0) == (each < 1e-2));
  }
}

TEST_CASE("runs of device steps bring a head back to those alone that have enough left" *
          doctest::skip(no_device())) {
  // Three decode plainly; when the last is done, one of the others has four tokens to go.
  const std::vector<Request> requests = {well_guessed_request(tokens_from(0, 21), 36),
                                         well_guessed_request(tokens_from(30, 30), 16),
                                         well_guessed_request(tokens_from(60, 9), 12)};
  Config plain = config_for({.method = "none"});
  Engine reference = Engine::load(plain);
  const std::vector<RunResult> expected = run_requests(reference, requests, 1);
  Config config = config_for({.base = micro_eagle_config, .batch = 3, .mode = "schedule"});
  config.draft.length.schedule = {{1, 4}, {3, 0}};
  Engine engine = Engine::load(config);
  const std::vector<RunResult> actual = run_requests(engine, requests, 3);
  check_equal(expected, actual);
  CHECK(actual[0].stats.speculation.spec_decode_num_drafts > 0);
  CHECK(actual[1].stats.speculation.spec_decode_num_drafts == 0);
  CHECK(actual[2].stats.speculation.spec_decode_num_drafts == 0);
  CHECK(engine.stats().num_returned_tokens < 21 + 16);
}
