#include <doctest/doctest.h>

#include <stdexcept>
#include <string>
#include <thread>

#include "engine/micro_models.h"
#include "support/engine_runs.h"

// The life of a request: how it ends, who may end it, and what it leaves behind.

using namespace specdec;
using namespace specdec::testing;

namespace {

Request request_of(std::vector<TokenId> tokens, int max_tokens, float temperature = 1.0f) {
  Request request;
  request.prompt_tokens = std::move(tokens);
  request.sampling.max_tokens = max_tokens;
  request.sampling.temperature = temperature;
  request.sampling.seed = 42;
  request.sampling.ignore_eos = true;
  request.sampling.logprobs = 2;
  return request;
}

RunResult run_one(Engine& engine, const Request& request) {
  return run_requests(engine, {request}, 1).front();
}

std::vector<std::string> all_methods() { return {"none", "ngram", "draft_model"}; }

ErrorCode code_of(const auto& call) {
  try {
    call();
  } catch (const Error& error) {
    return error.code();
  }
  return ErrorCode::internal;
}

}  // namespace

TEST_CASE("max_tokens ends a request at that token, also inside an accepted run") {
  Engine engine = Engine::load(micro_config());
  const RunResult longest = run_one(engine, request_of({10, 11, 12}, 40));
  REQUIRE(longest.tokens.size() == 40);
  for (const std::string& method : all_methods())
    for (int limit = 1; limit <= 12; ++limit) {
      Request request = request_of({10, 11, 12}, limit);
      request.speculation.method = method;
      const RunResult result = run_one(engine, request);
      CHECK(result.finish_reason == FinishReason::length);
      CHECK(result.tokens ==
            std::vector<TokenId>(longest.tokens.begin(), longest.tokens.begin() + limit));
      CHECK(result.stats.num_output_tokens == limit);
    }
  CHECK(engine.stats().kv_blocks_held == 0);
}

TEST_CASE(
    "a stop token, a callback and a stop string end a request at the same token with every "
    "drafter") {
  Engine engine = Engine::load(micro_config());
  const RunResult longest = run_one(engine, request_of({20, 21}, 60));
  for (std::size_t at = 0; at < 20; ++at) {
    const TokenId stop = longest.tokens[at];
    const auto first = static_cast<std::size_t>(
        std::find(longest.tokens.begin(), longest.tokens.end(), stop) - longest.tokens.begin());
    for (const std::string& method : all_methods()) {
      Request request = request_of({20, 21}, 60);
      request.speculation.method = method;
      request.sampling.stop_token_ids = {stop};
      RunResult result = run_one(engine, request);
      CHECK(result.finish_reason == FinishReason::stop_token);
      CHECK(result.tokens.size() == first + 1);

      request.sampling.stop_token_ids.clear();
      std::size_t seen = 0;
      request.on_token = [&](const OutputToken& token) {
        CHECK(token.token == longest.tokens[seen]);
        return ++seen == at + 1;
      };
      result = run_one(engine, request);
      CHECK(result.finish_reason == FinishReason::callback);
      CHECK(result.tokens.size() == at + 1);
      CHECK(seen == at + 1);

      request.on_token = nullptr;
      if (longest.text.size() > at + 3) {
        request.sampling.stop = {longest.text.substr(at + 1, 2)};
        const std::string before =
            longest.text.substr(0, longest.text.find(request.sampling.stop[0]));
        result = run_one(engine, request);
        if (result.finish_reason == FinishReason::stop_string) CHECK(result.text == before);
      }
    }
  }
}

TEST_CASE("a stop string gives the same tokens and text with every drafter and length") {
  Engine engine = Engine::load(micro_config());
  const RunResult longest = run_one(engine, request_of({30, 31}, 60));
  REQUIRE(longest.text.size() > 8);
  for (const std::size_t length : {1U, 2U, 3U}) {
    Request request = request_of({30, 31}, 60);
    request.sampling.stop = {longest.text.substr(longest.text.size() / 2, length)};
    request.speculation.method = "none";
    const RunResult expected = run_one(engine, request);
    for (const std::string& method : all_methods())
      for (const int draft : {1, 3, 8}) {
        request.speculation.method = method;
        request.speculation.num_speculative_tokens = draft;
        const RunResult actual = run_one(engine, request);
        INFO(describe_difference(expected, actual));
        CHECK(same_output(expected, actual));
        CHECK(actual.text.find(request.sampling.stop[0]) == std::string::npos);
      }
  }
}

TEST_CASE("cancel works while waiting, in prefill and while decoding, and leaves nothing behind") {
  Config config = micro_config();
  config.scheduler.max_num_seqs = 1;
  config.scheduler.max_num_batched_tokens = 8;
  config.backend.device_loop = false;  // steps are counted
  Engine engine = Engine::load(config);
  std::vector<TokenId> long_prompt;
  for (int i = 0; i < 60; ++i) long_prompt.push_back(10 + i % 50);
  for (int steps = 0; steps < 16; ++steps) {
    const RequestId running = engine.submit(request_of(long_prompt, 50));
    const RequestId waiting = engine.submit(request_of({5, 6}, 3));
    for (int i = 0; i < steps; ++i) engine.step();
    CHECK(engine.cancel(running));
    if (steps % 2 == 0) CHECK(engine.cancel(waiting));
    int finished = 0;
    while (engine.step())
      for (const Output& output : engine.take_outputs()) {
        if (!output.finished()) continue;
        ++finished;
        if (output.id == running) CHECK(output.finish_reason == FinishReason::cancelled);
        if (output.id == waiting)
          CHECK(output.finish_reason ==
                (steps % 2 == 0 ? FinishReason::cancelled : FinishReason::length));
      }
    CHECK(finished == 2);
    CHECK_FALSE(engine.cancel(running));
    CHECK(engine.stats().kv_blocks_held == 0);
  }
  CHECK_FALSE(engine.cancel(123456));
}

TEST_CASE("what cannot run is refused at submit, with a code") {
  Config config = micro_config();
  config.scheduler.max_queue = 2;
  Engine engine = Engine::load(config);
  CHECK(code_of([&] { engine.submit({}); }) == ErrorCode::invalid_argument);
  CHECK(code_of([&] {
          Request both = request_of({1, 2}, 3);
          both.prompt = "x";
          engine.submit(both);
        }) == ErrorCode::invalid_argument);
  CHECK(code_of([&] {
          engine.submit(request_of({1, 1000000}, 3));
        }) == ErrorCode::invalid_argument);
  CHECK(code_of([&] { engine.submit(request_of({-1}, 3)); }) == ErrorCode::invalid_argument);
  CHECK(code_of([&] { engine.submit(request_of({1}, 0)); }) == ErrorCode::invalid_argument);
  CHECK(code_of([&] {
          engine.submit(request_of(
              std::vector<TokenId>(static_cast<std::size_t>(engine.max_context()), 9), 3));
        }) == ErrorCode::invalid_argument);
  CHECK(code_of([&] {
          Request unknown = request_of({1}, 3);
          unknown.speculation.method = "crystal_ball";
          engine.submit(unknown);
        }) == ErrorCode::invalid_argument);
  engine.submit(request_of({1}, 3));
  engine.submit(request_of({2}, 3));
  CHECK(code_of([&] { engine.submit(request_of({3}, 3)); }) == ErrorCode::queue_full);
  while (engine.step()) {
  }
  CHECK(engine.take_outputs().size() >= 2);
  CHECK_NOTHROW(engine.submit(request_of({3}, 3)));
}

TEST_CASE("the context's end finishes a request with length") {
  Engine engine = Engine::load(micro_config());
  const int max_context = engine.max_context();
  for (const std::string& method : all_methods()) {
    Request request =
        request_of(std::vector<TokenId>(static_cast<std::size_t>(max_context - 7), 9), 1000);
    request.speculation.method = method;
    const RunResult result = run_one(engine, request);
    CHECK(result.finish_reason == FinishReason::length);
    CHECK(result.tokens.size() == 7);
  }
}

TEST_CASE("a callback that throws fails its own request alone") {
  Engine engine = Engine::load(micro_config());
  const RunResult expected = run_one(engine, request_of({7, 8, 9}, 20));
  Request bad = request_of({3, 4}, 20);
  int calls = 0;
  bad.on_token = [&](const OutputToken&) -> bool {
    if (++calls == 4) throw std::runtime_error("the socket is gone");
    return false;
  };
  const std::vector<RunResult> results = run_requests(engine, {bad, request_of({7, 8, 9}, 20)}, 2);
  CHECK(results[0].finish_reason == FinishReason::error);
  CHECK(results[0].error.find("the socket is gone") != std::string::npos);
  CHECK(same_output(results[1], expected));
  CHECK(engine.stats().kv_blocks_held == 0);
}

namespace {

/// Proposes what it is told to, good or bad.
class ScriptedDrafter final : public Drafter {
 public:
  enum class Mode { good_tree, throws, bad_token, bad_parent, too_deep, too_many };
  explicit ScriptedDrafter(std::vector<TokenId> answer) : answer_(std::move(answer)) {}

  std::string_view name() const noexcept override { return "scripted"; }
  void propose(std::span<const DraftContext> contexts,
               std::span<DraftProposal> proposals) override {
    ++calls;
    for (std::size_t i = 0; i < contexts.size(); ++i) {
      const DraftContext& context = contexts[i];
      DraftProposal& proposal = proposals[i];
      const auto at = context.tokens.size() - static_cast<std::size_t>(context.num_prompt_tokens);
      if (mode == Mode::throws) throw std::runtime_error("no idea");
      if (mode == Mode::bad_token) proposal.append(1 << 30);
      if (mode == Mode::bad_parent) proposal.add(1, 5);
      if (mode == Mode::too_deep)
        for (int n = 0; n <= context.max_depth; ++n) proposal.append(1);
      if (mode == Mode::too_many)
        for (int n = 0; n <= context.max_nodes; ++n) proposal.add(1, DraftProposal::kRoot);
      if (mode != Mode::good_tree) continue;
      // A wrong branch first, then the right one.
      int parent = DraftProposal::kRoot;
      for (int depth = 0; depth < context.max_depth && 2 * (depth + 1) <= context.max_nodes;
           ++depth) {
        if (at + static_cast<std::size_t>(depth) >= answer_.size()) break;
        const TokenId right = answer_[at + static_cast<std::size_t>(depth)];
        proposal.add(right == 0 ? 1 : 0, parent);
        parent = proposal.add(right, parent);
      }
    }
  }
  void finished(RequestId) override { ++num_finished; }

  Mode mode = Mode::good_tree;
  int calls = 0;
  int num_finished = 0;

 private:
  std::vector<TokenId> answer_;
};

}  // namespace

TEST_CASE(
    "a drafter of the embedder's own speeds up when right and costs nothing but time when wrong") {
  Engine engine = Engine::load(micro_config());
  Request request = request_of({50, 51, 52}, 40);
  const RunResult expected = run_one(engine, request);
  auto owned = std::make_unique<ScriptedDrafter>(expected.tokens);
  ScriptedDrafter& drafter = *owned;
  engine.add_drafter(std::move(owned));
  CHECK(code_of([&] {
          engine.add_drafter(std::make_unique<ScriptedDrafter>(std::vector<TokenId>{}));
        }) == ErrorCode::invalid_argument);
  request.speculation.method = "scripted";
  request.speculation.num_speculative_tokens = 8;
  RunResult result = run_one(engine, request);
  INFO(describe_difference(expected, result));
  CHECK(same_output(expected, result));
  CHECK(result.stats.speculation.mean_acceptance_length() > 3.0);
  CHECK(drafter.num_finished == 1);
  using Mode = ScriptedDrafter::Mode;
  for (const Mode mode :
       {Mode::throws, Mode::bad_token, Mode::bad_parent, Mode::too_deep, Mode::too_many}) {
    drafter.mode = mode;
    drafter.calls = 0;
    result = run_one(engine, request);
    CHECK(same_output(expected, result));
    CHECK(drafter.calls > 0);
    CHECK(result.stats.speculation.spec_decode_num_drafts == 0);
  }
}

TEST_CASE("the tree snapshot shows the draft, the accepted path and the bonus token") {
  Config config = micro_config();
  config.draft.tree.topk = 3;
  Engine engine = Engine::load(config);
  engine.record_trees(true);
  Request request = request_of({1, 2, 3}, 30, 0.0f);
  request.speculation.method = "draft_model";
  const RequestId id = engine.submit(request);
  int trees = 0;
  std::vector<TokenId> tokens = {1, 2, 3};
  while (engine.step()) {
    const TreeSnapshot tree = engine.last_tree(id);
    for (const Output& output : engine.take_outputs()) {
      REQUIRE(!tree.tokens.empty());
      CHECK(tree.tokens.front() == tokens.back());
      REQUIRE(tree.parents.size() == tree.tokens.size());
      REQUIRE(!tree.accepted_path.empty());
      CHECK(tree.accepted_path.front() == 0);
      for (std::size_t i = 1; i < tree.accepted_path.size(); ++i) {
        const auto node = static_cast<std::size_t>(tree.accepted_path[i]);
        CHECK(tree.parents[node] == tree.accepted_path[i - 1]);
        CHECK(tree.tokens[node] == output.tokens[i - 1].token);
        CHECK(output.tokens[i - 1].drafted);
      }
      if (tree.bonus_token >= 0) CHECK(tree.bonus_token == output.tokens.back().token);
      for (const OutputToken& token : output.tokens) tokens.push_back(token.token);
      trees += tree.tokens.size() > 1 ? 1 : 0;
    }
  }
  CHECK(trees > 0);
  CHECK(engine.last_tree(999).tokens.empty());
}

TEST_CASE("submit and cancel from other threads while one thread steps") {
  Config config = micro_config();
  config.scheduler.max_queue = 4096;
  Engine engine = Engine::load(config);
  constexpr int kThreads = 3;
  constexpr int kPerThread = 25;
  std::atomic<bool> done{false};
  std::atomic<int> finished{0};
  std::thread stepping([&] {
    while (!done.load()) {
      engine.wait_for_work();
      while (engine.step()) {
      }
    }
  });
  std::vector<std::thread> clients;
  for (int t = 0; t < kThreads; ++t)
    clients.emplace_back([&, t] {
      for (int i = 0; i < kPerThread; ++i) {
        const RequestId id = engine.submit(request_of({t + 1, i + 1}, 4 + i % 5));
        if (i % 3 == 0) engine.cancel(id);
        for (const Output& output : engine.take_outputs())
          if (output.finished()) finished.fetch_add(1);
        (void)engine.stats();
      }
    });
  for (std::thread& client : clients) client.join();
  while (finished.load() < kThreads * kPerThread) {
    for (const Output& output : engine.take_outputs())
      if (output.finished()) finished.fetch_add(1);
    std::this_thread::yield();
  }
  done = true;
  engine.wake();
  stepping.join();
  CHECK(finished.load() == kThreads * kPerThread);
  CHECK(engine.stats().kv_blocks_held == 0);
  CHECK(engine.stats().num_requests_finished == kThreads * kPerThread);
}
