#include <doctest/doctest.h>

#include <fstream>
#include <nlohmann/json.hpp>

#include "support/engine_runs.h"

// The promise of the house on the real model: tokens and logprobs are bit for bit those of plain
// decoding, whatever drafts, batch, threads, cache and preemption do. SPECDEC_TEST_FULL=1 runs 60
// prompts of 200 tokens.

using namespace specdec;
using namespace specdec::testing;

namespace {

std::vector<std::string> prompts(std::size_t count, std::size_t longest) {
  std::ifstream file(SPECDEC_SOURCE_DIR "/bench/prompts/spec_bench_dev.jsonl");
  std::vector<std::string> all;
  for (std::string line; std::getline(file, line);) {
    std::string text = nlohmann::json::parse(line).at("turns").at(0).get<std::string>();
    if (text.size() <= longest) all.push_back(std::move(text));
  }
  // Every n-th: all categories take part.
  std::vector<std::string> chosen;
  for (std::size_t i = 0; chosen.size() < count && i < all.size(); i += all.size() / count)
    chosen.push_back(all[i]);
  return chosen;
}

Request make_request(const std::string& prompt, bool sampled, int max_tokens, std::uint64_t seed) {
  Request request;
  request.messages = {{"user", prompt}};
  request.sampling.max_tokens = max_tokens;
  request.sampling.logprobs = 3;
  request.sampling.seed = seed;
  if (sampled) {
    request.sampling.temperature = 0.8f;
    request.sampling.top_p = 0.95f;
    request.sampling.repetition_penalty = 1.1f;
    request.sampling.presence_penalty = 0.2f;
    request.sampling.frequency_penalty = 0.1f;
  }
  return request;
}

struct Setting {
  std::string name;
  int topk = 1;
  int num_draft_tokens = 16;
  int batch = 1;
  int threads = 2;
  bool prefix_cache = true;
  int memory_mb = 512;
  std::uint32_t order_seed = 0;
  bool repeat = false;           // the second run meets a hot prefix cache
  const char* method = nullptr;  // null: methods and lengths mixed request by request
  int length = 5;
  bool eagle = false;  // the EAGLE-3 head in the draft model's place
  const char* mode = "fixed";
  const char* kv_type = "f16";
  int exit_layer = 0;  // above 0: the target's first layers in the draft model's place
};

Config config_for(const Setting& setting) {
  Config config;
  config.target.model = real_target_path();
  config.draft.model =
      setting.eagle ? SPECDEC_SOURCE_DIR "/models/smollm2-135m-eagle3" : draft_model_path();
  config.draft.early_exit.exit_layer = setting.exit_layer;
  if (setting.exit_layer > 0) config.draft.model.clear();
  config.draft.length.mode = setting.mode;
  config.draft.tree.topk = setting.topk;
  config.draft.tree.num_draft_tokens = setting.num_draft_tokens;
  config.backend.device = test_device();
  config.backend.threads = setting.threads;
  config.kv_cache.prefix_cache = setting.prefix_cache;
  config.kv_cache.memory_mb = setting.memory_mb;
  config.kv_cache.type = setting.kv_type;
  return config;
}

std::vector<Request> with_methods(std::vector<Request> requests, const Setting& setting) {
  constexpr int kLengths[] = {1, 2, 3, 4, 5, 7, 8, 11, 16};
  const std::string model = setting.eagle ? "eagle3" : "draft_model";
  const std::string kMethods[] = {model, "ngram", "suffix+" + model, "none"};
  for (std::size_t i = 0; i < requests.size(); ++i) {
    requests[i].speculation.method =
        setting.method != nullptr ? setting.method : kMethods[i % std::size(kMethods)];
    requests[i].speculation.num_speculative_tokens =
        setting.method != nullptr ? setting.length : kLengths[i % std::size(kLengths)];
  }
  return requests;
}

int small_cache_mb() { return full_tests() ? 64 : 9; }

std::vector<Setting> all_settings() {
  return {
      {.name = "chain of 5, alone", .method = "draft_model"},
      {.name = "tree of 16, alone, 1 thread", .topk = 4, .threads = 1, .method = "draft_model"},
      {.name = "ngram 10, alone, no prefix cache",
       .prefix_cache = false,
       .method = "ngram",
       .length = 10},
      {.name = "mixed chains, batch 8, shuffled, hot prefix cache",
       .batch = 8,
       .order_seed = 7,
       .repeat = true},
      {.name = "mixed trees, batch 5, shuffled",
       .topk = 3,
       .num_draft_tokens = 12,
       .batch = 5,
       .order_seed = 11},
      {.name = "mixed chains, batch 8, preempted",
       .batch = 8,
       .memory_mb = small_cache_mb(),
       .order_seed = 3},
      {.name = "mixed trees, batch 8, preempted, 1 thread",
       .topk = 4,
       .batch = 8,
       .threads = 1,
       .memory_mb = small_cache_mb(),
       .order_seed = 5},
      {.name = "EAGLE-3 chain of 5, alone", .method = "eagle3", .eagle = true},
      {.name = "EAGLE-3 mixed trees, batch 5, preempted, hot prefix cache",
       .topk = 4,
       .batch = 8,
       .memory_mb = small_cache_mb(),
       .order_seed = 17,
       .repeat = true,
       .eagle = true},
      {.name = "suffix and EAGLE-3, adaptive, batch 2, 1 thread",
       .batch = 2,
       .threads = 1,
       .method = "suffix+eagle3",
       .length = 8,
       .eagle = true,
       .mode = "adaptive"},
      {.name = "lookahead, batch 3", .batch = 3, .method = "lookahead", .length = 6},
      {.name = "early exit after 6 layers, trees, batch 3",
       .topk = 2,
       .batch = 3,
       .method = "early_exit",
       .length = 3,
       .exit_layer = 6},
      {.name = "plain, batch 8, shuffled", .batch = 8, .order_seed = 13, .method = "none"},
  };
}

/// Compares every setting with plain decoding over the same kind of cache.
void check(const std::vector<Setting>& settings, bool sampled, std::size_t most_prompts) {
  if (real_target_path().empty()) {
    MESSAGE("skipped: no target model (SPECDEC_TEST_TARGET), or a sanitizer build");
    return;
  }
  const bool full = full_tests();
  const std::size_t count = full ? 60 : most_prompts;
  const std::vector<std::string> texts = prompts(count, full ? 100000 : 350);
  REQUIRE(texts.size() == count);
  const int max_tokens = full ? 200 : 64;

  std::vector<Request> requests;
  for (std::size_t i = 0; i < texts.size(); ++i)
    requests.push_back(make_request(texts[i], sampled, max_tokens, 1000 + i));

  const Setting plain{.name = "plain",
                      .prefix_cache = false,
                      .method = "none",
                      .kv_type = settings.front().kv_type};
  Engine reference = Engine::load(config_for(plain));
  const std::vector<RunResult> expected = run_requests(reference, with_methods(requests, plain), 1);

  for (const Setting& setting : settings) {
    const std::string title = setting.name + (sampled ? ", sampled" : ", greedy");
    INFO(title);
    Engine engine = Engine::load(config_for(setting));
    for (int run = 0; run < (setting.repeat ? 2 : 1); ++run) {
      const std::vector<RunResult> actual =
          run_requests(engine, with_methods(requests, setting), setting.batch, setting.order_seed);
      std::size_t identical = 0;
      for (std::size_t i = 0; i < expected.size(); ++i) {
        INFO("prompt " << i << ": " << describe_difference(expected[i], actual[i]));
        const bool same = same_output(expected[i], actual[i]);
        CHECK(same);
        identical += same ? 1U : 0U;
      }
      const EngineStats stats = engine.stats();
      if (full)
        MESSAGE(title << ": " << identical << " of " << expected.size() << " identical, "
                      << stats.speculation.mean_acceptance_length() << " tokens a step, "
                      << stats.num_preemptions << " preemptions, hit rate "
                      << stats.prefix_hit_rate());
      if (setting.memory_mb == small_cache_mb()) CHECK(stats.num_preemptions > 0);
      if (run == 1) CHECK(stats.prefix_hit_tokens > 0);
    }
    CHECK(engine.stats().kv_blocks_held == 0);
  }
}

}  // namespace

TEST_CASE("greedy: speculation changes no token and no logprob of the real model" *
          doctest::skip(device_missing())) {
  check(all_settings(), false, 5);
}

TEST_CASE("sampled: speculation changes no token and no logprob of the real model" *
          doctest::skip(device_missing())) {
  check(all_settings(), true, 5);
}

TEST_CASE("a cache of float32 changes no token and no logprob either" *
          doctest::skip(device_missing())) {
  check({{.name = "float32 cache, mixed chains, batch 3", .batch = 3, .kv_type = "f32"},
         {.name = "float32 cache, EAGLE-3 mixed trees, batch 3",
          .topk = 4,
          .batch = 3,
          .order_seed = 19,
          .eagle = true,
          .kv_type = "f32"}},
        true, 3);
}
