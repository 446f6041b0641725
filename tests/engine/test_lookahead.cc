#include <doctest/doctest.h>

#include <map>
#include <random>
#include <stdexcept>
#include <string>

#include "engine/micro_models.h"
#include "support/check_outputs.h"
#include "support/engine_runs.h"

// Nodes that a drafter watches, and the drafter that lives on them.

using namespace specdec;
using namespace specdec::testing;

namespace {

/// Grows random trees and watches random nodes. What it is told is kept under the text that leads
/// to the node.
class Watcher final : public Drafter {
 public:
  struct Faults {
    bool bad_node = false;
    bool throws = false;
  };
  std::map<std::vector<TokenId>, TokenId>& answers;
  const Faults& faults;

  Watcher(std::map<std::vector<TokenId>, TokenId>& kept, const Faults& wanted)
      : answers(kept), faults(wanted) {}

  std::string_view name() const noexcept override { return "watcher"; }
  void propose(std::span<const DraftContext> contexts,
               std::span<DraftProposal> proposals) override {
    for (std::size_t i = 0; i < contexts.size(); ++i) {
      const DraftContext& context = contexts[i];
      std::vector<std::vector<TokenId>> texts;
      std::vector<int> depths;
      std::vector<std::vector<TokenId>>& watched = watched_[context.id];
      watched.clear();
      for (int node = 0; node < context.max_nodes; ++node) {
        const int parent = static_cast<int>(random_() % static_cast<unsigned>(node + 1)) - 1;
        const int depth = parent < 0 ? 1 : depths[static_cast<std::size_t>(parent)] + 1;
        if (depth > context.max_depth) break;
        std::vector<TokenId> text =
            parent < 0 ? std::vector<TokenId>(context.tokens.begin(), context.tokens.end())
                       : texts[static_cast<std::size_t>(parent)];
        // Tokens that differ from node to node: no two nodes become one.
        text.push_back(static_cast<TokenId>(30 + 7 * node));
        proposals[i].add(text.back(), parent, 0.2f);
        if (random_() % 2 == 0) {
          proposals[i].watch(node);
          watched.push_back(text);
        }
        texts.push_back(std::move(text));
        depths.push_back(depth);
      }
      if (faults.bad_node) proposals[i].watch(context.max_nodes);
    }
  }
  void watched(RequestId id, std::span<const TokenId> tokens) override {
    if (faults.throws) throw std::runtime_error("no idea");
    const std::vector<std::vector<TokenId>>& asked = watched_.at(id);
    REQUIRE(asked.size() == tokens.size());
    for (std::size_t i = 0; i < tokens.size(); ++i) answers[asked[i]] = tokens[i];
  }

 private:
  std::mt19937 random_{5};
  std::map<RequestId, std::vector<std::vector<TokenId>>> watched_;
};

/// Options that read the whole text alike, whichever part of it is the prompt.
Request request_of(std::vector<TokenId> tokens, int max_tokens, float temperature) {
  Request request;
  request.prompt_tokens = std::move(tokens);
  request.sampling.max_tokens = max_tokens;
  request.sampling.temperature = temperature;
  request.sampling.top_p = 0.9f;
  request.sampling.repetition_penalty = 1.2f;
  request.sampling.seed = 42;
  request.sampling.ignore_eos = true;
  return request;
}

std::vector<Request> varied_requests(std::size_t count) {
  std::mt19937 random(9);
  std::vector<Request> requests;
  for (std::size_t i = 0; i < count; ++i) {
    std::vector<TokenId> tokens(1 + random() % 30);
    for (TokenId& token : tokens) token = static_cast<TokenId>(random() % 250);
    requests.push_back(request_of(std::move(tokens), 1 + static_cast<int>(random() % 90),
                                  i % 3 == 0 ? 0.0f : 0.4f));
    requests.back().sampling.logprobs = 2;
    if (i % 4 == 1) requests.back().sampling.frequency_penalty = 0.4f;
    if (i % 5 == 1) requests.back().sampling.stop = {"e"};
  }
  return requests;
}

}  // namespace

TEST_CASE("a watched node's answer is what plain decoding would emit behind its text") {
  for (const std::string mode : {"fixed", "adaptive"})
    for (const float temperature : {0.0f, 0.8f}) {
      CAPTURE(mode);
      CAPTURE(temperature);
      std::map<std::vector<TokenId>, TokenId> answers;
      const Watcher::Faults none;
      Config config = micro_config();
      config.draft.length.mode = mode;
      config.draft.length.num_speculative_tokens = 8;
      Engine engine = Engine::load(config);
      engine.add_drafter(std::make_unique<Watcher>(answers, none));
      Request request = request_of({40, 41, 42}, 24, temperature);
      request.speculation.method = "watcher";
      run_requests(engine, {request, request_of({9, 8}, 12, temperature), request}, 2);

      std::vector<Request> plain;
      std::vector<TokenId> expected;
      for (const auto& [text, answer] : answers) {
        if (answer == Drafter::kNoAnswer) continue;  // left out: it did not pay
        plain.push_back(request_of(text, 1, temperature));
        plain.back().speculation.enabled = false;
        expected.push_back(answer);
      }
      CHECK(answers.size() > 30);
      if (mode == "fixed") CHECK(expected.size() == answers.size());
      const std::vector<RunResult> results = run_requests(engine, plain, 8);
      for (std::size_t i = 0; i < results.size(); ++i) {
        CAPTURE(i);
        CHECK(results[i].tokens == std::vector<TokenId>{expected[i]});
      }
    }
}

TEST_CASE("a drafter that watches wrongly costs its draft, not the answer") {
  std::map<std::vector<TokenId>, TokenId> answers;
  Watcher::Faults faults;
  Engine engine = Engine::load(micro_config());
  engine.add_drafter(std::make_unique<Watcher>(answers, faults));
  Request request = request_of({40, 41, 42}, 12, 0.8f);
  const RunResult plain = run_requests(engine, {request}, 1).front();
  request.speculation.method = "watcher";
  faults.bad_node = true;
  CHECK(same_output(run_requests(engine, {request}, 1).front(), plain));
  CHECK(answers.empty());
  faults = {.throws = true};
  CHECK(same_output(run_requests(engine, {request}, 1).front(), plain));
}

TEST_CASE("lookahead changes no token and learns what the target repeats") {
  const std::vector<Request> requests = varied_requests(30);
  Config config = micro_config();
  config.draft.model.clear();
  config.draft.method = "none";
  Engine reference = Engine::load(config);
  const std::vector<RunResult> expected = run_requests(reference, requests, 1);
  config.draft.method = "lookahead";
  config.draft.length.num_speculative_tokens = 8;
  for (const std::string mode : {"fixed", "adaptive"})
    for (const int window : {1, 5})
      for (const int batch : {1, 6}) {
        CAPTURE(mode);
        CAPTURE(window);
        CAPTURE(batch);
        config.draft.length.mode = mode;
        config.draft.lookahead.window_size = window;
        config.draft.lookahead.ngram_size = 3 + window / 3;
        config.kv_cache.memory_mb = batch > 1 ? 1 : 8;
        config.scheduler.max_num_batched_tokens = window == 1 ? 16 : 256;
        Engine engine = Engine::load(config);
        check_equal(expected, run_requests(engine, requests, batch, 3));
        CHECK(engine.stats().kv_blocks_held == 0);
        if (mode == "fixed")
          CHECK(engine.stats().speculation.spec_decode_num_accepted_tokens >
                (window == 1 ? 0 : 30));  // 45 on a GPU, whose logits differ
      }
}

TEST_CASE("every other rule takes lookahead's trees; block verification has none to take") {
  const std::vector<Request> requests = varied_requests(12);
  for (const char* rule : {"rejection", "traversal", "typical"}) {
    CAPTURE(rule);
    Config config = micro_config();
    config.draft.method = "lookahead+draft_model";
    config.verify.method = rule;
    Engine engine = Engine::load(config);
    for (const RunResult& result : run_requests(engine, requests, 4)) CHECK(result.error == "");
  }
  Config config = micro_config();
  config.verify.method = "block";
  Engine engine = Engine::load(config);
  Request request = requests.front();
  request.speculation.method = "lookahead";
  CHECK_THROWS_AS(engine.submit(request), Error);
}
