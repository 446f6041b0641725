#include <doctest/doctest.h>

#include <map>

#include "support/engine_runs.h"
#include "trap.h"

// A kernel of somebody's traps while requests run: the GPU is lost to this process. Every request
// ends with a typed error, and nothing waits for an answer that will not come.

using namespace specdec;
using namespace specdec::testing;

TEST_CASE("a GPU that fails ends every request with a typed error" *
          doctest::skip(test_device() != "cuda" || device_missing())) {
  Config config;
  config.target.model = draft_model_path();  // any model
  config.draft.method = "ngram";
  config.backend.device = "cuda";
  config.kv_cache.memory_mb = 64;
  config.scheduler.max_num_seqs = 2;  // of four requests, two wait
  config.log.level = "off";
  // Two engines, one that steps in the loop and one that steps singly: both lose the same GPU.
  Engine looped = Engine::load(config);
  config.backend.device_loop = false;
  Engine stepped = Engine::load(config);

  int emitted = 0;
  Request request;
  request.prompt = "The history of the river Rhine begins";
  request.sampling.max_tokens = 300;
  request.sampling.ignore_eos = true;
  Request breaking = request;
  breaking.on_token = [&emitted](const OutputToken&) {
    if (++emitted == 20) break_gpu();
    return false;
  };
  const auto submit_all = [&](Engine& engine) {
    for (int i = 0; i < 3; ++i) engine.submit(request);
  };
  looped.submit(breaking);
  submit_all(looped);
  submit_all(stepped);
  for (int i = 0; i < 3; ++i) stepped.step();  // in the midst of its requests

  const auto ends = [](Engine& engine, std::size_t count) {
    std::map<RequestId, Output> ended;
    int steps = 0;
    while (engine.step() && ++steps < 1000)
      for (Output& output : engine.take_outputs())
        if (output.finished()) ended[output.id] = std::move(output);
    for (Output& output : engine.take_outputs())
      if (output.finished()) ended[output.id] = std::move(output);
    CHECK(steps < 1000);
    CHECK(ended.size() == count);
    for (const auto& [id, output] : ended) {
      CAPTURE(id);
      CHECK(output.finish_reason == FinishReason::error);
      REQUIRE(output.error);
      CHECK(output.error->code() == ErrorCode::device);
    }
    CHECK(engine.stats().kv_blocks_held == 0);
  };
  ends(looped, 4);
  CHECK(emitted >= 20);
  ends(stepped, 3);
  // Requests that come later hear it as well, at once.
  for (Engine* engine : {&looped, &stepped}) {
    engine->submit(request);
    ends(*engine, 1);
  }
  CHECK_THROWS_AS(Engine::load(config), Error);
}
