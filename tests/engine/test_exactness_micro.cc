#include <doctest/doctest.h>

#include <random>

#include "engine/micro_models.h"
#include "support/check_outputs.h"
#include "support/engine_runs.h"

// The exactness law on micro models, where every combination is cheap: options, drafters, trees,
// batches, threads, cache, preemption. tests/exactness does the same on the real model.

using namespace specdec;
using namespace specdec::testing;

namespace {

/// Requests that between them use every sampling option.
std::vector<Request> varied_requests(std::size_t count, std::uint32_t seed) {
  std::mt19937 random(seed);
  std::vector<Request> requests(count);
  for (std::size_t i = 0; i < count; ++i) {
    Request& request = requests[i];
    SamplingOptions& options = request.sampling;
    const std::size_t length = 1 + random() % 40;
    // A few shared beginnings, so that prefixes are shared.
    const auto family = static_cast<unsigned>(random() % 3);
    for (std::size_t t = 0; t < length; ++t)
      request.prompt_tokens.push_back(
          static_cast<TokenId>(t < 20 ? family * 50 + t : random() % 250));
    request.cache_salt = i % 7 == 0 ? "other tenant" : "";
    options.max_tokens = 1 + static_cast<int>(random() % 40);
    options.seed = random();
    options.logprobs = static_cast<int>(random() % 4);
    if (i % 4 != 0) options.temperature = 0.5f + 0.25f * static_cast<float>(random() % 4);
    if (random() % 2 == 0) options.top_k = 5 + static_cast<int>(random() % 40);
    if (random() % 2 == 0) options.top_p = 0.9f;
    if (random() % 3 == 0) options.min_p = 0.02f;
    if (random() % 2 == 0) options.repetition_penalty = 1.2f;
    if (random() % 2 == 0) options.presence_penalty = 0.5f;
    if (random() % 2 == 0) options.frequency_penalty = 0.3f;
    if (random() % 3 == 0) options.logit_bias = {{7, 2.0f}, {9, -3.0f}};
    if (random() % 3 == 0) options.min_tokens = std::min(5, options.max_tokens);
    if (random() % 3 == 0) options.stop_token_ids = {static_cast<TokenId>(random() % 250)};
    if (random() % 3 == 0) options.stop = {"e", "qu"};
  }
  return requests;
}

void mix_methods(std::vector<Request>& requests, std::uint32_t seed, const Config& config) {
  std::mt19937 random(seed);
  const std::string& model = config.draft.method;
  const std::string methods[] = {model,    "ngram",           model,       "none",
                                 "suffix", "suffix+" + model, "lookahead", "lookahead+" + model};
  for (Request& request : requests) {
    request.speculation.method = methods[random() % std::size(methods)];
    request.speculation.num_speculative_tokens = static_cast<int>(random() % 17);
  }
}

std::vector<RunResult> plain_results(const std::vector<Request>& requests) {
  Config config = micro_config();
  config.kv_cache.prefix_cache = false;
  config.backend.threads = 1;
  // On a GPU, the host's tokens of launched passes are what the others are held to.
  config.backend.device_sampling = config.backend.step_graphs = false;
  Engine engine = Engine::load(config);
  std::vector<Request> plain = requests;
  for (Request& request : plain) request.speculation.enabled = false;
  return run_requests(engine, plain, 1);
}

}  // namespace

TEST_CASE("drafters, trees, batches, threads and caches change nothing") {
  std::vector<Request> requests = varied_requests(60, 1);
  const std::vector<RunResult> expected = plain_results(requests);
  std::uint32_t round = 0;
  for (const Config& base : micro_model_configs())
    for (const int topk : {1, 2, 4})
      for (const int batch : {1, 3, 8})
        for (const bool prefix_cache : {false, true}) {
          // Sanitizers see every fifth, among which is every kind.
          if (++round % 5 != 0 && is_sanitized()) continue;
          INFO(base.draft.method << ", topk " << topk << ", batch " << batch << ", prefix cache "
                                 << prefix_cache);
          Config config = base;
          config.draft.tree.topk = topk;
          config.draft.tree.num_draft_tokens = 3 + 5 * topk;
          config.backend.threads = 1 + static_cast<int>(round % 2);
          config.kv_cache.prefix_cache = prefix_cache;
          config.scheduler.max_num_batched_tokens = round % 3 == 0 ? 24 : 256;
          config.scheduler.max_num_seqs = 8;
          Engine engine = Engine::load(config);
          mix_methods(requests, round, config);
          check_equal(expected, run_requests(engine, requests, batch, round));
          if (prefix_cache)
            check_equal(expected, run_requests(engine, requests, batch, round + 100));
          CHECK(engine.stats().kv_blocks_held == 0);
          CHECK(engine.stats().speculation.spec_decode_num_accepted_tokens > 0);
        }
}

TEST_CASE("running out of blocks preempts and recomputes with the same tokens") {
  std::vector<Request> requests = varied_requests(60, 2);
  for (Request& request : requests) request.sampling.max_tokens += 40;
  const std::vector<RunResult> expected = plain_results(requests);
  for (const Config& base : micro_model_configs())
    for (const int topk : {1, 3}) {
      Config config = base;
      config.kv_cache.memory_mb = 1;
      config.draft.tree.topk = topk;
      config.scheduler.max_num_batched_tokens = 64;
      config.scheduler.max_num_seqs = 32;
      Engine engine = Engine::load(config);
      mix_methods(requests, 77, config);
      check_equal(expected, run_requests(engine, requests, 32, 5));
      CHECK(engine.stats().num_preemptions > 0);
      CHECK(engine.stats().kv_blocks_held == 0);
    }
}

TEST_CASE("the draft length schedule follows the batch and changes nothing") {
  std::vector<Request> requests = varied_requests(24, 3);
  const std::vector<RunResult> expected = plain_results(requests);
  Config config = micro_config();
  config.draft.method = "draft_model";
  config.draft.length.mode = "schedule";
  config.draft.length.schedule = {{1, 4}, {3, 2}, {6, 0}};
  for (const int batch : {1, 4, 8}) {
    Engine engine = Engine::load(config);
    check_equal(expected, run_requests(engine, requests, batch));
    const auto& histogram = engine.stats().speculation.acceptance_histogram;
    const std::size_t longest = batch == 1 ? 4 : batch == 4 ? 4 : 4;
    CHECK(histogram.size() <= longest + 1);
  }
}

TEST_CASE("adaptive lengths and mixtures of drafters change nothing") {
  std::vector<Request> requests = varied_requests(40, 4);
  // A long answer that repeats itself: host drafters find something, lengths change on the way.
  for (std::size_t i = 0; i < requests.size(); i += 4) requests[i].sampling.max_tokens = 120;
  const std::vector<RunResult> expected = plain_results(requests);
  std::uint32_t round = 0;
  for (const Config& base : micro_model_configs())
    for (const int topk : {1, 3})
      for (const int batch : {1, 5}) {
        CAPTURE(base.draft.method);
        CAPTURE(topk);
        CAPTURE(batch);
        Config config = base;
        config.draft.length.mode = "adaptive";
        config.draft.length.num_speculative_tokens = 8;
        config.draft.tree.topk = topk;
        config.kv_cache.memory_mb = round % 2 == 0 ? 8 : 1;
        Engine engine = Engine::load(config);
        for (const std::string& method :
             {config.draft.method, std::string("suffix"), "suffix+" + config.draft.method,
              "ngram+suffix+" + config.draft.method, std::string("lookahead+suffix")}) {
          CAPTURE(method);
          for (Request& request : requests) {
            request.speculation.method = method;
            request.speculation.num_speculative_tokens = 8;
          }
          check_equal(expected, run_requests(engine, requests, batch, ++round));
        }
        CHECK(engine.stats().kv_blocks_held == 0);
        CHECK(engine.stats().speculation.spec_decode_num_accepted_tokens > 0);
      }
}

TEST_CASE(
    "sampled rules with an EAGLE head, adaptive and in mixtures: every request runs through") {
  // These rules are lossless in distribution, not token by token; what is checked here is that
  // drawn drafts meet what the rules demand of them (verify() throws where they do not).
  std::vector<Request> requests = varied_requests(24, 5);
  for (const char* rule : {"rejection", "block", "traversal", "typical"})
    for (const char* mode : {"fixed", "adaptive"})
      for (const int topk : {1, 3}) {
        if (std::string(rule) == "block" && topk > 1) continue;
        CAPTURE(rule);
        CAPTURE(mode);
        Config config = micro_eagle_config();
        config.verify.method = rule;
        config.draft.length.mode = mode;
        config.draft.tree.topk = topk;
        Engine engine = Engine::load(config);
        for (std::size_t i = 0; i < requests.size(); ++i)
          requests[i].speculation.method =
              i % 3 == 0 || std::string(rule) == "block" ? "eagle3" : "suffix+eagle3";
        for (const RunResult& result : run_requests(engine, requests, 4)) {
          CHECK(result.finish_reason != FinishReason::error);
          CHECK(result.error == "");
        }
        CHECK(engine.stats().kv_blocks_held == 0);
      }
}

TEST_CASE("static trees change nothing, and every rule that takes trees takes them") {
  std::vector<Request> requests = varied_requests(24, 6);
  // Few likely tokens: even random heads are right now and then.
  for (Request& request : requests)
    for (TokenId token = 30; token < 54; token += 3) request.sampling.logit_bias[token] = 5.0f;
  const std::vector<RunResult> expected = plain_results(requests);
  for (Config config : micro_model_configs()) {
    config.draft.tree.choices = {"0", "1", "3", "0.0", "0.2", "1.0", "0.0.0"};
    for (const char* rule : {"coupled", "rejection", "traversal", "typical"}) {
      INFO(config.draft.method << ", " << rule);
      config.verify.method = rule;
      Engine engine = Engine::load(config);
      const std::vector<RunResult> results = run_requests(engine, requests, 3);
      if (std::string(rule) == "coupled") check_equal(expected, results);
      for (const RunResult& result : results) CHECK(result.error == "");
      CHECK(engine.stats().kv_blocks_held == 0);
      CHECK(engine.stats().speculation.spec_decode_num_accepted_tokens > 0);
    }
  }
}
