#include <doctest/doctest.h>

#include <random>

#include "engine/micro_models.h"
#include "support/engine_runs.h"

// Constrained decoding on micro models: every answer is a text of its grammar, and the exactness
// law holds under it.

using namespace specdec;
using namespace specdec::testing;

namespace {

std::vector<Grammar> grammars() {
  const std::vector<std::string> choices{"red", "green", "a rather long answer, forced from its r",
                                         "reddish"};
  return {
      Grammar::regex("(yes|no|maybe)(,(yes|no|maybe)){0,6}"),
      Grammar::regex("[a-f]{3,12}-\\d{2,4}"),
      Grammar::choice(choices),
      Grammar::gbnf("root ::= sum\nsum ::= item (\"+\" item)*\n"
                    "item ::= [0-9]{1,3} | \"(\" sum \")\""),
      Grammar::json_schema(R"({"type":"object","properties":{"name":{"type":"string","maxLength":6},
        "kind":{"enum":["one","two"]},"size":{"type":"integer","minimum":0,"maximum":99}},
        "required":["name","kind","size"],"additionalProperties":false})",
                           {.whitespace = JsonOptions::Whitespace::none}),
      Grammar::json_schema(
          R"({"type":"array","items":{"type":"boolean"},"minItems":2,"maxItems":9})"),
  };
}

std::vector<Request> constrained_requests(const std::vector<Grammar>& all, std::uint32_t seed) {
  std::mt19937 random(seed);
  std::vector<Request> requests(8 * all.size());
  for (std::size_t i = 0; i < requests.size(); ++i) {
    Request& request = requests[i];
    request.grammar = all[i % all.size()];
    const std::size_t length = 1 + random() % 30;
    for (std::size_t t = 0; t < length; ++t)
      request.prompt_tokens.push_back(static_cast<TokenId>(random() % 250));
    SamplingOptions& options = request.sampling;
    options.max_tokens = i % 5 == 0 ? 1 + static_cast<int>(random() % 12) : 80;
    options.seed = random();
    options.logprobs = static_cast<int>(random() % 3) - 1;
    if (i % 3 != 0) options.temperature = 0.5f + 0.25f * static_cast<float>(random() % 4);
    if (random() % 2 == 0) options.top_p = 0.9f;
    if (random() % 2 == 0) options.repetition_penalty = 1.2f;
    if (random() % 3 == 0) options.ignore_eos = true;
  }
  return requests;
}

std::vector<RunResult> run(Config config, std::vector<Request> requests, const char* method,
                           int batch) {
  for (Request& request : requests) request.speculation.method = method;
  Engine engine = Engine::load(config);
  return run_requests(engine, requests, batch, static_cast<std::uint32_t>(batch));
}

}  // namespace

TEST_CASE("constrained answers are texts of their grammar, the same with and without speculation") {
  const std::vector<Request> requests = constrained_requests(grammars(), 1);
  const std::vector<RunResult> plain = run(micro_config(), requests, "none", 1);
  int complete = 0;
  for (std::size_t i = 0; i < requests.size(); ++i) {
    CAPTURE(i);
    CAPTURE(plain[i].text);
    CAPTURE(plain[i].error);
    const auto refusal = requests[i].grammar->check(plain[i].text);
    if (plain[i].finish_reason == FinishReason::length) {
      if (refusal) CHECK(refusal->offset == plain[i].text.size());  // cut off, not wrong
      continue;
    }
    ++complete;
    const bool ended = plain[i].finish_reason == FinishReason::grammar ||
                       plain[i].finish_reason == FinishReason::eos;
    CHECK(ended);
    CHECK(!refusal);
  }
  CHECK(complete > static_cast<int>(requests.size()) / 2);

  for (const char* method : {"draft_model", "ngram"})
    for (const int topk : {1, 3})
      for (const int batch : {1, 6}) {
        INFO(method << ", topk " << topk << ", batch " << batch);
        Config config = micro_config();
        config.draft.tree.topk = topk;
        config.draft.length.num_speculative_tokens = 2 + 3 * topk;
        const std::vector<RunResult> drafted = run(config, requests, method, batch);
        for (std::size_t i = 0; i < requests.size(); ++i) {
          INFO("request " << i << ": " << describe_difference(plain[i], drafted[i]));
          CHECK(same_output(plain[i], drafted[i]));
        }
      }
}

TEST_CASE("the sampled rules keep to the grammar, too") {
  const std::vector<Request> requests = constrained_requests(grammars(), 2);
  for (const char* rule : {"rejection", "block", "traversal", "typical"})
    for (const char* method : {"draft_model", "ngram"}) {
      INFO(rule << ", " << method);
      Config config = micro_config();
      config.verify.method = rule;
      config.draft.tree.topk = std::string(rule) == "block" ? 1 : 2;
      const std::vector<RunResult> results = run(config, requests, method, 4);
      for (std::size_t i = 0; i < requests.size(); ++i) {
        INFO("request " << i << ": " << results[i].text << results[i].error);
        const auto refusal = requests[i].grammar->check(results[i].text);
        CHECK(results[i].error.empty());
        if (refusal) CHECK(refusal->offset == results[i].text.size());
        if (refusal) CHECK(results[i].finish_reason == FinishReason::length);
      }
    }
}

TEST_CASE("text that the grammar forces is drafted without a drafter's help") {
  Request request;
  request.prompt_tokens = {1, 2, 3};
  request.grammar = Grammar::regex("abcdefgh ijklmnop qrstuvwx yz(0|1)");
  request.sampling.max_tokens = 60;
  request.sampling.seed = 1;
  Config config = micro_config();
  config.draft.length.num_speculative_tokens = 8;
  const std::vector<RunResult> plain = run(config, {request}, "none", 1);
  const std::vector<RunResult> drafted = run(config, {request}, "ngram", 1);
  CHECK(same_output(plain[0], drafted[0]));
  CHECK(plain[0].finish_reason == FinishReason::grammar);
  CHECK(drafted[0].stats.speculation.acceptance_histogram.size() > 2);
}

TEST_CASE("requests whose grammar cannot begin are refused at once") {
  Engine engine = Engine::load(micro_config());
  Request request;
  request.prompt_tokens = {1};
  CHECK_THROWS_AS(Grammar::gbnf("root ::= root \"a\""), Error);
  CHECK_THROWS_AS(Grammar::regex("(a"), Error);
  CHECK_THROWS_AS(Grammar::json_schema("{\"type\": 12}"), Error);
  request.grammar = Grammar::regex("");  // the empty answer: an end token alone
  engine.submit(request);
  while (engine.step()) {
  }
  const std::vector<Output> outputs = engine.take_outputs();
  REQUIRE(!outputs.empty());
  CHECK(outputs.back().text.empty());
  CHECK(outputs.back().finish_reason == FinishReason::eos);
}
