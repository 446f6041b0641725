#include <doctest/doctest.h>

#include <map>
#include <random>

#include "engine/micro_models.h"
#include "support/engine_runs.h"

// A server's life in fast motion: requests come and go, share prefixes, are cancelled at random,
// and the cache is too small for them all. Nothing may leak, and nobody may get other tokens than
// alone. SPECDEC_TEST_FULL=1 runs 50,000.

using namespace specdec;
using namespace specdec::testing;

namespace {

std::vector<Request> request_pool(std::size_t count) {
  std::mt19937 random(99);
  std::vector<Request> pool(count);
  for (std::size_t i = 0; i < count; ++i) {
    Request& request = pool[i];
    const auto family = static_cast<unsigned>(random() % 5);
    const std::size_t shared = random() % 48;
    for (std::size_t t = 0; t < shared; ++t)
      request.prompt_tokens.push_back(static_cast<TokenId>((family * 37 + t * 11) % 250));
    for (std::size_t t = random() % 8 + 1; t > 0; --t)
      request.prompt_tokens.push_back(static_cast<TokenId>(random() % 250));
    request.cache_salt = random() % 10 == 0 ? "salt" : "";
    request.sampling.max_tokens = 1 + static_cast<int>(random() % 16);
    request.sampling.temperature = random() % 2 == 0 ? 0.0f : 1.0f;
    request.sampling.seed = random();
    request.sampling.logprobs = 0;
  }
  return pool;
}

struct Running {
  std::size_t request = 0;
  bool cancelled = false;
  RunResult result;
};

}  // namespace

namespace {

void live_long(Config config) {
  const std::vector<Request> pool = request_pool(250);
  Config plain = micro_config();
  plain.kv_cache.prefix_cache = false;
  Engine alone = Engine::load(plain);
  std::vector<Request> plain_pool = pool;
  for (Request& request : plain_pool) request.speculation.enabled = false;
  const std::vector<RunResult> expected = run_requests(alone, plain_pool, 1);

  config.kv_cache.memory_mb = 1;
  config.draft.tree.topk = 2;
  config.draft.tree.num_draft_tokens = 6;
  config.scheduler.max_num_seqs = 24;
  config.scheduler.max_num_batched_tokens = 96;
  Engine engine = Engine::load(config);
  const int total = full_tests() ? 50000 : 1000;
  std::mt19937 random(4);
  std::map<RequestId, Running> running;
  int submitted = 0;
  int completed = 0;
  int cancelled = 0;
  bool all_right = true;
  while (submitted < total || !running.empty()) {
    while (submitted < total && running.size() < 40 && random() % 4 != 0) {
      const std::size_t choice = random() % pool.size();
      Request request = pool[choice];
      const std::string methods[] = {config.draft.method, "ngram", "none"};
      request.speculation.method = methods[random() % 3];
      request.speculation.num_speculative_tokens = static_cast<int>(random() % 5);
      running[engine.submit(std::move(request))].request = choice;
      ++submitted;
    }
    if (!running.empty() && random() % 12 == 0) {
      auto victim = running.begin();
      std::advance(victim, random() % running.size());
      victim->second.cancelled = engine.cancel(victim->first) || victim->second.cancelled;
    }
    engine.step();
    for (const Output& output : engine.take_outputs()) {
      Running& entry = running.at(output.id);
      entry.result.text += output.text;
      for (const OutputToken& token : output.tokens) {
        entry.result.tokens.push_back(token.token);
        entry.result.logprobs.push_back(token.logprob);
        entry.result.top_logprobs.emplace_back();
      }
      if (!output.finished()) continue;
      entry.result.finish_reason = output.finish_reason;
      const RunResult& right = expected[entry.request];
      if (output.finish_reason == FinishReason::cancelled) {
        ++cancelled;
        const bool prefix = entry.cancelled && entry.result.tokens.size() <= right.tokens.size() &&
                            std::equal(entry.result.tokens.begin(), entry.result.tokens.end(),
                                       right.tokens.begin());
        all_right = all_right && prefix;
        CHECK(prefix);
      } else {
        ++completed;
        const bool same = same_output(right, entry.result);
        all_right = all_right && same;
        INFO("request " << entry.request << ": " << describe_difference(right, entry.result));
        CHECK(same);
      }
      running.erase(output.id);
    }
    REQUIRE(all_right);  // one contradiction is enough
  }
  const EngineStats stats = engine.stats();
  CHECK(completed + cancelled == total);
  CHECK(cancelled > total / 50);
  // Runs of many steps on a device leave fewer moments at which requests meet.
  CHECK(stats.num_preemptions > (test_device() == "cpu" ? total / 100 : 0));
  CHECK(stats.prefix_hit_tokens > 0);
  CHECK(stats.kv_blocks_held == 0);
  CHECK(stats.kv_blocks_free + stats.kv_blocks_cached == stats.kv_blocks_total);
  CHECK(stats.num_running == 0);
  CHECK(stats.num_waiting == 0);
  CHECK(stats.num_requests_finished == total);
  if (full_tests())
    MESSAGE(completed << " completed, " << cancelled << " cancelled, " << stats.num_preemptions
                      << " preemptions, prefix hit rate " << stats.prefix_hit_rate());
}

}  // namespace

TEST_CASE("a long random life of the engine leaks nothing and changes no token") {
  live_long(micro_config());
}

TEST_CASE("... nor with an EAGLE-3 head, whose features live outside the cache") {
  live_long(micro_eagle_config());
}
