#include <doctest/doctest.h>

#include "engine/micro_models.h"
#include "support/engine_runs.h"

// A draft model that is the target itself is always right: every draft token must be accepted.
// Anything stale, shifted or missing in the draft's cache, positions, noise or penalties shows as a
// rejection.

using namespace specdec;
using namespace specdec::testing;

namespace {

std::vector<Request> requests(bool sampled) {
  std::vector<Request> all;
  for (int i = 0; i < 6; ++i) {
    Request request;
    for (int t = 0; t < 5 + 9 * i; ++t) request.prompt_tokens.push_back((7 * t + 31 * i) % 250);
    request.sampling.max_tokens = 61;  // one from the prompt, then 60 in whole steps
    request.sampling.ignore_eos = true;
    request.sampling.seed = 100U + static_cast<std::uint64_t>(i);
    if (sampled) {
      request.sampling.temperature = 1.0f;
      request.sampling.top_p = 0.95f;
      request.sampling.repetition_penalty = 1.2f;
      request.sampling.frequency_penalty = 0.3f;
      request.sampling.min_tokens = 20;
      request.sampling.stop_token_ids = {299};
    }
    all.push_back(request);
  }
  return all;
}

}  // namespace

TEST_CASE("the target as its own draft is accepted to the last token") {
  for (const bool sampled : {false, true})
    // A tree of two levels expands every child of the root, so that the target's path is always in
    // it.
    for (const auto& [topk, length] : {std::pair{1, 5}, std::pair{3, 2}})
      for (const int batch : {1, 4}) {
        CAPTURE(sampled);
        CAPTURE(topk);
        CAPTURE(batch);
        Config config = micro_config();
        config.draft.model = config.target.model;
        config.draft.length.num_speculative_tokens = length;
        config.draft.tree.topk = topk;
        config.draft.tree.num_draft_tokens =
            64;  // nothing is cut: the best path is always in the tree
        Engine engine = Engine::load(config);
        for (const RunResult& result : run_requests(engine, requests(sampled), batch)) {
          if (result.finish_reason != FinishReason::length) continue;
          const SpeculationStats& stats = result.stats.speculation;
          CHECK(stats.num_output_tokens == 60);
          CHECK(stats.num_spec_steps == 60 / (1 + length));
          CHECK(stats.spec_decode_num_accepted_tokens == 60 / (1 + length) * length);
        }
        CHECK(engine.stats().speculation.num_spec_steps > 0);
      }
}

TEST_CASE("acceptance survives plain steps between drafts: the drafter catches up") {
  Config config = micro_config();
  config.draft.model = config.target.model;
  config.draft.length.mode = "schedule";
  config.draft.length.schedule = {{1, 5},
                                  {2, 0}};  // a second request turns drafting off while it runs
  config.backend.device_loop = false;       // steps are counted
  Engine engine = Engine::load(config);
  Request longer = requests(false).front();
  longer.sampling.max_tokens = 100;
  const RequestId id = engine.submit(longer);
  for (int i = 0; i < 4; ++i) engine.step();
  Request shorter = requests(false).back();
  shorter.sampling.max_tokens = 12;
  engine.submit(shorter);
  while (engine.step()) {
  }
  for (const Output& output : engine.take_outputs()) {
    if (output.id != id || !output.finished()) continue;
    const SpeculationStats& stats = output.stats.speculation;
    CHECK(stats.spec_decode_num_accepted_tokens == stats.spec_decode_num_draft_tokens);
    CHECK(stats.num_spec_steps > stats.spec_decode_num_drafts);
  }
}
