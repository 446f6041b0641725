#include <doctest/doctest.h>

#include <atomic>
#include <cmath>
#include <string_view>
#include <thread>

#include "support/acceptance.h"
#include "support/engine_runs.h"

// Steps that follow each other on a GPU without the host: the same tokens and log-probabilities as
// single steps of plain decoding, and the host is heard all the same.

using namespace specdec;
using namespace specdec::testing;

namespace {

bool no_gpu() { return test_device() != "cuda" || device_missing() || real_target_path().empty(); }

struct Setting {
  const char* name = "";
  const char* method = "none";
  int length = 5;
  int topk = 1;
  int num_draft_tokens = 16;
  int batch = 1;
  int memory_mb = 512;
  bool device_loop = true;
  const char* mode = "fixed";
  bool device_sampling = true;
  bool step_graphs = true;
};

Config config_for(const Setting& setting) {
  Config config;
  config.target.model = real_target_path();
  config.draft.model = std::string_view(setting.method) == "eagle3" ? SPECDEC_SOURCE_DIR
                           "/models/smollm2-135m-eagle3"
                                                                    : draft_model_path();
  config.draft.method = setting.method;
  config.draft.length.num_speculative_tokens = setting.length;
  config.draft.length.mode = setting.mode;
  config.draft.length.schedule = {{1, 5}, {3, 0}, {5, 2}};
  config.draft.length.cost_cache = "off";
  config.draft.tree.topk = setting.topk;
  config.draft.tree.num_draft_tokens = setting.num_draft_tokens;
  config.scheduler.max_num_batched_tokens = 1024;
  config.backend.device = "cuda";
  config.backend.device_loop = setting.device_loop;
  config.backend.device_sampling = setting.device_sampling;
  config.backend.step_graphs = setting.step_graphs;
  config.kv_cache.memory_mb = setting.memory_mb;
  return config;
}

// Every kind of sampling, in turn: greedy, nucleus, top-k and min-p, penalties, bias and bans.
std::vector<Request> mixed_requests(Engine& engine, std::size_t count, int max_tokens) {
  const std::vector<std::string> prompts = development_prompts(engine.tokenizer(), 400, 2);
  std::vector<Request> requests;
  for (std::size_t i = 0; i < count; ++i) {
    Request request;
    request.prompt = prompts[i % prompts.size()];
    SamplingOptions& options = request.sampling;
    options.max_tokens = max_tokens - static_cast<int>(i % 7);
    options.seed = 100 + i;
    options.logprobs = static_cast<int>(i % 4) - 1;
    switch (i % 5) {
      case 1:
        options.temperature = 0.8f;
        options.top_p = 0.9f;
        break;
      case 2:
        options.temperature = 1.0f;
        options.top_k = 50;
        options.min_p = 0.02f;
        break;
      case 3:
        options.temperature = 0.7f;
        options.repetition_penalty = 1.2f;
        options.frequency_penalty = 0.1f;
        break;
      case 4:
        options.logit_bias = {{260, -5.0f}, {284, 1.0f}};
        options.min_tokens = 20;
        options.stop = {".\n\n"};
        break;
      default:
        break;
    }
    requests.push_back(std::move(request));
  }
  return requests;
}

}  // namespace

TEST_CASE("steps on the device change no token and no logprob of single steps" *
          doctest::skip(no_gpu())) {
  const bool full = full_tests();
  const std::size_t count = full ? 60 : 20;
  const int max_tokens = full ? 200 : 96;
  Engine reference = Engine::load(config_for(
      {.name = "plain", .device_loop = false, .device_sampling = false, .step_graphs = false}));
  const std::vector<Request> requests = mixed_requests(reference, count, max_tokens);
  const std::vector<RunResult> expected = run_requests(reference, requests, 1);
  CHECK(reference.stats().num_device_steps == 0);

  double eagle_chain = 0;  // tokens a step
  for (const Setting& setting : {
           Setting{.name = "ngram, adaptive, batch 7",
          .method = "ngram",
          .length = 8,
          .batch = 7,
          .mode = "adaptive"},
           Setting{.name = "chain, adaptive", .method = "draft_model", .mode = "adaptive"},
           Setting{.name = "tree, adaptive, batch 32",
           .method = "draft_model",
           .length = 4,
           .topk = 3,
           .num_draft_tokens = 12,
           .batch = 32,
           .mode = "adaptive"},
           Setting{.name = "EAGLE-3 chain, adaptive, batch 3",
           .method = "eagle3",
           .length = 7,
           .batch = 3,
           .mode = "adaptive"},
           // Batches that shrink stop drafting and begin again: KV and features that lag.
           Setting{.name = "chain, scheduled, batch 6",
           .method = "draft_model",
           .batch = 6,
           .mode = "schedule"},
           Setting{.name = "EAGLE-3 chain, scheduled, batch 6",
           .method = "eagle3",
           .batch = 6,
           .mode = "schedule"},
           Setting{.name = "EAGLE-3 tree, scheduled, batch 8, preempted",
           .method = "eagle3",
           .topk = 3,
           .num_draft_tokens = 12,
           .batch = 8,
           .memory_mb = 24,
           .mode = "schedule"},
           Setting{.name = "plain"},
           Setting{.name = "plain, batch 32", .batch = 32},
           Setting{.name = "ngram", .method = "ngram", .length = 8},
           Setting{.name = "ngram, batch 7", .method = "ngram", .batch = 7},
           Setting{.name = "chain", .method = "draft_model"},
           Setting{.name = "chain, batch 32", .method = "draft_model", .length = 3, .batch = 32},
           Setting{.name = "tree", .method = "draft_model", .length = 4, .topk = 4},
           Setting{.name = "tree, batch 5",
           .method = "draft_model",
           .length = 3,
           .topk = 3,
           .num_draft_tokens = 12,
           .batch = 5},
           Setting{.name = "chain, batch 8, preempted",
           .method = "draft_model",
           .batch = 8,
           .memory_mb = 24},
           Setting{.name = "chain, single steps", .method = "draft_model", .device_loop = false},
           Setting{.name = "EAGLE-3 chain", .method = "eagle3"},
           Setting{.name = "EAGLE-3 chain, single steps", .method = "eagle3", .device_loop = false},
           Setting{.name = "EAGLE-3 chain, batch 32", .method = "eagle3", .length = 3, .batch = 32},
           Setting{.name = "EAGLE-3 tree, batch 5",
           .method = "eagle3",
           .length = 4,
           .topk = 4,
           .num_draft_tokens = 12,
           .batch = 5},
           Setting{.name = "EAGLE-3 chain, batch 8, preempted",
           .method = "eagle3",
           .batch = 8,
           .memory_mb = 24},
       }) {
    INFO(std::string(setting.name));
    Engine engine = Engine::load(config_for(setting));
    const std::vector<RunResult> actual =
        run_requests(engine, requests, setting.batch, setting.batch > 1 ? 7 : 0);
    for (std::size_t i = 0; i < expected.size(); ++i) {
      INFO("request " << i << ": " << describe_difference(expected[i], actual[i]));
      CHECK(same_output(expected[i], actual[i]));
    }
    const EngineStats stats = engine.stats();
    MESSAGE(std::string(setting.name)
            << ": " << stats.num_device_steps << " of " << stats.num_steps
            << " steps on the device, " << stats.speculation.mean_acceptance_length()
            << " tokens a step, " << stats.num_preemptions << " preemptions");
    CHECK((stats.num_device_steps > 0) == setting.device_loop);
    CHECK(stats.kv_blocks_held == 0);
    if (setting.memory_mb == 24) CHECK(stats.num_preemptions > 0);
    // The head finds the same features, positions and KV in a run as in single steps.
    const double mean = stats.speculation.mean_acceptance_length();
    if (std::string_view(setting.name) == "EAGLE-3 chain") eagle_chain = mean;
    if (std::string_view(setting.name) == "EAGLE-3 chain, single steps")
      CHECK(std::abs(mean - eagle_chain) < 0.05);
  }
}

// Here the draft decides which of the right tokens comes out: what the device drafts, and draws,
// must be what the host does.
TEST_CASE("steps on the device judge drafts by the sampled rules as single steps do" *
          doctest::skip(no_gpu())) {
  for (const char* rule : {"rejection", "block", "traversal"}) {
    CAPTURE(rule);
    std::vector<RunResult> expected;
    for (const bool device_loop : {false, true}) {
      CAPTURE(device_loop);
      Config config = config_for({.method = "ngram", .length = 6, .device_loop = device_loop});
      config.verify.method = rule;
      Engine engine = Engine::load(config);
      std::vector<Request> requests = mixed_requests(engine, 10, 64);
      // A prompt that repeats itself has something to look up.
      for (Request& request : requests) request.prompt += " " + request.prompt;
      const std::vector<RunResult> actual = run_requests(engine, requests, 3);
      if (device_loop) {
        CHECK(engine.stats().num_device_steps > 0);
        CHECK(engine.stats().speculation.mean_acceptance_length() > 1.05);
      } else {
        expected = actual;
      }
      for (std::size_t i = 0; i < expected.size(); ++i) {
        INFO("request " << i << ": " << describe_difference(expected[i], actual[i]));
        CHECK(same_output(expected[i], actual[i]));
      }
    }
  }
}

TEST_CASE("a run of device steps hears callbacks, cancellations and new requests" *
          doctest::skip(no_gpu())) {
  Engine engine = Engine::load(config_for({.name = "chain", .method = "draft_model"}));
  Request request;
  request.prompt = "The history of the river Rhine begins";
  request.sampling.max_tokens = 400;
  request.sampling.ignore_eos = true;

  // A callback ends the request at its token, wherever the device is by then.
  int calls = 0;
  Request stopped = request;
  stopped.on_token = [&calls](const OutputToken&) { return ++calls == 23; };
  const RunResult short_one = run_requests(engine, {stopped}, 1).front();
  CHECK(short_one.finish_reason == FinishReason::callback);
  CHECK(short_one.tokens.size() == 23);
  const RunResult whole = run_requests(engine, {request}, 1).front();
  REQUIRE(whole.tokens.size() == 400);
  CHECK(std::equal(short_one.tokens.begin(), short_one.tokens.end(), whole.tokens.begin()));

  // A second request is let in while the first one runs, and a third is cancelled.
  const RequestId first = engine.submit(request);
  Request watched = request;
  std::atomic<bool> begun{false};
  watched.on_token = [&begun](const OutputToken&) {
    begun = true;
    return false;
  };
  const RequestId third = engine.submit(watched);
  std::thread other([&] {
    while (!begun) std::this_thread::yield();
    engine.cancel(third);
  });
  std::size_t first_tokens = 0;
  bool cancelled = false;
  while (engine.step())
    for (const Output& output : engine.take_outputs()) {
      if (output.id == first) first_tokens += output.tokens.size();
      if (output.id == third && output.finished())
        cancelled = output.finish_reason == FinishReason::cancelled;
    }
  other.join();
  CHECK(cancelled);
  CHECK(first_tokens == 400);
  CHECK(engine.stats().kv_blocks_held == 0);
}

TEST_CASE("two engines of one process run their loops side by side" * doctest::skip(no_gpu())) {
  Engine a = Engine::load(config_for({.name = "chain", .method = "draft_model"}));
  Engine b = Engine::load(config_for({.name = "ngram", .method = "ngram"}));
  const std::vector<Request> requests = mixed_requests(a, 6, 64);
  std::vector<RunResult> of_b;
  std::thread other([&] { of_b = run_requests(b, requests, 3); });
  const std::vector<RunResult> of_a = run_requests(a, requests, 2);
  other.join();
  for (std::size_t i = 0; i < requests.size(); ++i) {
    INFO("request " << i << ": " << describe_difference(of_a[i], of_b[i]));
    CHECK(same_output(of_a[i], of_b[i]));
  }
}
