#include <doctest/doctest.h>

#include <fstream>
#include <nlohmann/json.hpp>

#include "support/engine_runs.h"

// Under a JSON Schema, too, the real model's answers are those of plain decoding, bit for bit, and
// texts of the schema. SPECDEC_TEST_FULL=1 runs all 24 extraction prompts.

using namespace specdec;
using namespace specdec::testing;

namespace {

std::vector<Request> extraction_requests(bool sampled) {
  std::ifstream file(SPECDEC_SOURCE_DIR "/bench/prompts/json_extraction.jsonl");
  std::vector<Request> requests;
  std::size_t number = 0;
  for (std::string line; std::getline(file, line); ++number) {
    if (!full_tests() && number % 8 != 0) continue;
    const auto prompt = nlohmann::ordered_json::parse(line);
    Request request;
    request.messages = {{"user", prompt.at("prompt").get<std::string>()}};
    JsonOptions options;
    options.whitespace = JsonOptions::Whitespace::none;
    options.schema_order = number % 16 == 0;
    request.grammar = Grammar::json_schema(prompt.at("grammar").at("json_schema").dump(), options);
    request.sampling.max_tokens = 100;
    request.sampling.logprobs = 2;
    request.sampling.seed = 1 + number;
    if (sampled) request.sampling.temperature = 1.0f;
    if (sampled) request.sampling.repetition_penalty = 1.1f;
    requests.push_back(std::move(request));
  }
  return requests;
}

std::vector<RunResult> run(std::vector<Request> requests, const char* method, int topk, int batch) {
  Config config;
  config.target.model = real_target_path();
  config.draft.model = draft_model_path();
  config.draft.tree.topk = topk;
  config.draft.length.num_speculative_tokens = 6;
  config.backend.device = test_device();
  config.backend.device_sampling = std::string(method) != "none";  // that is the host's, then
  config.backend.step_graphs = config.backend.device_sampling;
  for (Request& request : requests) request.speculation.method = method;
  Engine engine = Engine::load(config);
  return run_requests(engine, requests, batch);
}

}  // namespace

TEST_CASE("under a schema speculation changes no token and no logprob of the real model" *
          doctest::skip(device_missing())) {
  if (real_target_path().empty()) {
    MESSAGE("skipped: no target model (SPECDEC_TEST_TARGET), or a sanitizer build");
    return;
  }
  for (const bool sampled : {false, true}) {
    CAPTURE(sampled);
    const std::vector<Request> requests = extraction_requests(sampled);
    REQUIRE(requests.size() == (full_tests() ? 24U : 3U));
    const std::vector<RunResult> plain = run(requests, "none", 1, 1);
    std::size_t complete = 0;
    for (std::size_t i = 0; i < requests.size(); ++i) {
      INFO(plain[i].text << plain[i].error);
      const auto refusal = requests[i].grammar->check(plain[i].text);
      if (plain[i].finish_reason == FinishReason::length) {
        if (refusal) CHECK(refusal->offset == plain[i].text.size());
        continue;
      }
      CHECK(!refusal);
      ++complete;
    }
    CHECK(complete > 0);
    struct Setting {
      const char* method;
      int topk;
      int batch;
    };
    for (const Setting& setting :
         {Setting{"suffix", 1, 1}, {"draft_model", 1, 3}, {"suffix+draft_model", 3, 2}}) {
      INFO(setting.method << ", topk " << setting.topk << ", batch " << setting.batch);
      const std::vector<RunResult> drafted =
          run(requests, setting.method, setting.topk, setting.batch);
      for (std::size_t i = 0; i < requests.size(); ++i) {
        INFO("prompt " << i << ": " << describe_difference(plain[i], drafted[i]));
        CHECK(same_output(plain[i], drafted[i]));
        CHECK(drafted[i].stats.speculation.num_spec_steps < std::ssize(plain[i].tokens));
      }
    }
  }
}
