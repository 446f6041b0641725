#include <doctest/doctest.h>

#include "engine/backend/backend.h"
#include "engine/draft_source.h"
#include "engine/feature_store.h"
#include "engine/guessed_requests.h"
#include "engine/micro_models.h"
#include "support/engine_runs.h"

// An EAGLE head's KV is a function of the tokens, whoever made it: a prefill, a draft that was
// accepted, plain steps in between. So the drafts are the same, token by token, whatever the cache
// holds when a request begins. What is stale or guessed shows as another tree.

using namespace specdec;
using namespace specdec::testing;

namespace {

struct Trees {
  std::vector<std::vector<TokenId>> tokens;  // of each step
  std::int64_t accepted = 0;
  int cached = 0;

  bool operator==(const Trees& other) const { return tokens == other.tokens; }
};

Trees run(Engine& engine, const Request& request) {
  Trees trees;
  engine.record_trees(true);
  const RequestId id = engine.submit(request);
  while (engine.step()) {
    trees.tokens.push_back(engine.last_tree(id).tokens);
    for (const Output& output : engine.take_outputs()) {
      if (!output.finished()) continue;
      trees.accepted = output.stats.speculation.spec_decode_num_accepted_tokens;
      trees.cached = output.stats.num_cached_tokens;
    }
  }
  // Only the steps that drafted count: a prompt takes as many steps as the cache leaves it.
  std::erase_if(trees.tokens, [](const auto& tree) { return tree.size() < 2; });
  return trees;
}

std::vector<TokenId> answer(Engine& engine, const Request& request) {
  return run_requests(engine, {request}, 1).front().tokens;
}

}  // namespace

TEST_CASE("a head's weights: 4 bits where the configuration says so") {
  using kernels::DataType;
  const auto types = [](const std::string& weight_type) {
    Config config = micro_eagle_config();
    config.draft.weight_type = weight_type;
    const auto source = open_model(config.target.model);
    const auto tokenizer = source->load_tokenizer();
    const DraftSource draft = open_draft(config, source->config(), *tokenizer);
    return std::pair(draft.head->qkv.parts[0].type, draft.head->head.parts[0].type);
  };
  CHECK(types("q4_1") == std::pair(DataType::q8_0, DataType::q4_1));
  CHECK(types(Config().draft.weight_type) == std::pair(DataType::q8_0, DataType::q8_0));
  CHECK(types("file").second != DataType::q8_0);
}

TEST_CASE("EAGLE-3 drafts the same trees from a cold cache, a drafted one and a plain one") {
  std::vector<TokenId> prompt;
  for (int t = 0; t < 45; ++t) prompt.push_back((13 * t + 5) % 250);
  for (const int topk : {1, 4}) {
    CAPTURE(topk);
    Config config = micro_eagle_config();
    config.draft.tree.topk = topk;
    const Request first = guessed_request(prompt, 60);

    Engine drafted = Engine::load(config);
    std::vector<TokenId> longer = prompt;
    const std::vector<TokenId> output = answer(drafted, first);
    longer.insert(longer.end(), output.begin(), output.end());
    longer.push_back(9);
    const Request second = guessed_request(longer, 50);

    Engine cold = Engine::load(config);
    const Trees expected = run(cold, second);
    CHECK(expected.cached == 0);
    CHECK(expected.accepted > 2);  // else no guess could have stayed
    REQUIRE(expected.tokens.size() > 5);

    const Trees after_drafts = run(drafted, second);
    CHECK(after_drafts.cached > 64);
    CHECK(after_drafts == expected);

    // The first answer without a draft: entries pile up and are made in one go.
    Engine plain = Engine::load(config);
    Request slow = first;
    slow.speculation.num_speculative_tokens = 0;
    CHECK(answer(plain, slow) == output);
    const Trees after_plain = run(plain, second);
    // (In a device's loop a head that does not draft makes no entries: the hit is no use to it.)
    if (test_device() == "cuda")
      CHECK(after_plain.cached == 0);
    else
      CHECK(after_plain.cached > 64);
    CHECK(after_plain == expected);

    // Without the drafter the head's entries are missing: the hit is no use to it, and is not
    // taken.
    Engine without = Engine::load(config);
    slow.speculation.method = "none";
    CHECK(answer(without, slow) == output);
    const Trees after_none = run(without, second);
    CHECK(after_none.cached == 0);
    CHECK(after_none == expected);

    // A small step budget cuts the prompt into many chunks.
    config.scheduler.max_num_batched_tokens = 16;
    config.scheduler.max_num_seqs = 4;
    Engine chunked = Engine::load(config);
    const Trees after_chunks = run(chunked, second);
    if (topk == 1) CHECK(after_chunks == expected);  // the budget would cut a tree as well
    CHECK(after_chunks.accepted > 2);
  }
}

TEST_CASE("EAGLE-3 stops drafting at the head's own last position") {
  Config config = micro_eagle_config();
  Engine engine = Engine::load(config);
  std::vector<TokenId> prompt;
  for (int t = 0; t < 480; ++t) prompt.push_back((13 * t + 5) % 250);
  const Trees trees = run(engine, guessed_request(prompt, 100));
  CHECK(engine.stats().num_output_tokens > 0);
  CHECK_FALSE(trees.tokens.empty());
}

TEST_CASE("features that were given up reach up to no entry") {
  const auto backend = make_backend({.device = "cpu", .threads = 1});
  constexpr int kWidth = 4;
  FeatureStore store(*backend, 3, kWidth);
  const std::vector<float> source(3 * kWidth, 1.0f);
  const std::vector<std::int32_t> rows = {0, 1};
  FeatureRows features;
  store.append(features, 7, source.data(), rows, Stream{});
  CHECK(features.begin() == 7);
  CHECK(features.end() == 9);
  features.clear();  // a sequence of nine tokens would take what ends there for its own
  CHECK(features.size() == 0);
  CHECK(features.end() == 0);
  CHECK(store.num_free() == 3);
  // What goes before an entry leaves the rest in place.
  store.append(features, 9, source.data(), rows, Stream{});
  features.drop_before(10);
  CHECK(features.begin() == 10);
  CHECK(features.end() == 11);
  // No room: all are given up.
  const std::vector<std::int32_t> many = {0, 1, 2};
  store.append(features, 11, source.data(), many, Stream{});
  CHECK(features.end() == 0);
}
