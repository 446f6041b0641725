#include <doctest/doctest.h>

#include <algorithm>
#include <vector>

#include "support/acceptance.h"
#include "support/engine_runs.h"

// models/README.md says how many of the draft model's tokens the target accepts, as its trainer
// measured it: a drafter that feeds a wrong position, KV or token falls far below.

using namespace specdec;
using namespace specdec::testing;

TEST_CASE("a chain of five is accepted as often as the draft model's own figures say") {
  if (real_target_path().empty()) {
    MESSAGE("skipped: no target model (SPECDEC_TEST_TARGET), or a sanitizer build");
    return;
  }
  Config config;
  config.target.model = real_target_path();
  config.draft.model = draft_model_path();
  config.draft.method = "draft_model";
  config.draft.length.num_speculative_tokens = 5;
  Engine engine = Engine::load(config);
  const bool full = full_tests();
  const std::vector<std::string> prompts =
      development_prompts(engine.tokenizer(), 480, full ? 1 : 12);
  REQUIRE(prompts.size() >= (full ? 200U : 16U));
  const std::vector<StepLengths> answers =
      decode_lengths(engine, prompts, full ? 512 : 128);
  for (const int tokens : full ? std::vector{64, 128, 256, 512} : std::vector{64, 128})
    MESSAGE(prompts.size() << " prompts, first " << tokens << " tokens: "
                           << mean_acceptance_length(answers, tokens) << " tokens a step");
}
