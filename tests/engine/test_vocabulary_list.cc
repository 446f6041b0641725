#include <doctest/doctest.h>

#include <algorithm>
#include <limits>

#include "engine/micro_models.h"
#include "engine/model/token_list.h"
#include "specdec/error.h"
#include "support/engine_runs.h"

using namespace specdec;
using namespace specdec::testing;

namespace {

Request request_of(float temperature) {
  Request request;
  for (int t = 0; t < 30; ++t) request.prompt_tokens.push_back((13 * t + 5) % 250);
  request.sampling.temperature = temperature;
  request.sampling.seed = 3;
  request.sampling.max_tokens = 60;
  request.sampling.ignore_eos = true;
  return request;
}

std::vector<TreeSnapshot> trees_of(const Config& config, const Request& request) {
  Engine engine = Engine::load(config);
  engine.record_trees(true);
  const RequestId id = engine.submit(request);
  std::vector<TreeSnapshot> trees;
  while (engine.step()) trees.push_back(engine.last_tree(id));
  return trees;
}

}  // namespace

// The oracle bans what is not listed, for target and draft alike; a whole head under the ban drafts
// what the cut one drafts.
TEST_CASE("a head cut down to a list drafts what the whole head drafts without other tokens") {
  const int vocab_size = 300;
  const std::vector<TokenId> listed = read_token_list(micro_models().some_tokens, vocab_size);
  CHECK(listed.size() == 200);
  for (const int topk : {1, 3})
    for (const float temperature : {0.0f, 1.0f}) {
      CAPTURE(topk);
      CAPTURE(temperature);
      Config cut = micro_trimmed_config();
      cut.draft.tree.topk = topk;
      Config whole = micro_config();
      whole.draft.tree.topk = topk;
      Request request = request_of(temperature);
      for (TokenId token = 0; token < vocab_size; ++token)
        if (!std::ranges::binary_search(listed, token))
          request.sampling.logit_bias[token] = -std::numeric_limits<float>::infinity();
      const std::vector<TreeSnapshot> expected = trees_of(whole, request);
      const std::vector<TreeSnapshot> actual = trees_of(cut, request);
      REQUIRE(actual.size() == expected.size());
      std::size_t accepted = 0;
      for (std::size_t step = 0; step < actual.size(); ++step) {
        CHECK(actual[step].tokens == expected[step].tokens);
        CHECK(actual[step].parents == expected[step].parents);
        accepted += actual[step].accepted_path.size();
      }
      // The root counts in each; greedily these two seldom agree.
      if (temperature > 0) CHECK(accepted > actual.size());

      // Without the ban the target says what it likes, and drafts keep to the list.
      for (const TreeSnapshot& tree : trees_of(cut, request_of(temperature)))
        for (std::size_t node = 1; node < tree.tokens.size(); ++node)
          CHECK(std::ranges::binary_search(listed, tree.tokens[node]));
    }
}

TEST_CASE("a vocabulary list where it has no place is refused") {
  Config config = micro_eagle_config();
  config.draft.vocabulary_list = micro_models().some_tokens;
  CHECK(refusal(config).find("is for draft models") != std::string::npos);
  config = micro_early_exit_config();
  config.draft.vocabulary_list = micro_models().some_tokens;
  CHECK(refusal(config).find("draft.model is not") != std::string::npos);
}
