#include <doctest/doctest.h>

#include <functional>
#include <limits>
#include <string>
#include <vector>

#include "specdec/error.h"
#include "specdec/request.h"
#include "specdec/sampling_options.h"
#include "specdec/stats.h"

using namespace specdec;

TEST_CASE("sampling options out of range are refused by field") {
  constexpr float kInf = std::numeric_limits<float>::infinity();
  constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
  struct Bad {
    std::string field;
    std::function<void(SamplingOptions&)> change;
  };
  const std::vector<Bad> bad = {
      {"temperature", [](auto& o) { o.temperature = -0.1f; }},
      {"temperature", [](auto& o) { o.temperature = 100.5f; }},
      {"temperature", [](auto& o) { o.temperature = kNan; }},
      {"top_k", [](auto& o) { o.top_k = -1; }},
      {"top_p", [](auto& o) { o.top_p = 0; }},
      {"top_p", [](auto& o) { o.top_p = 1.01f; }},
      {"top_p", [](auto& o) { o.top_p = kNan; }},
      {"min_p", [](auto& o) { o.min_p = -0.1f; }},
      {"min_p", [](auto& o) { o.min_p = 1.1f; }},
      {"repetition_penalty", [](auto& o) { o.repetition_penalty = 0; }},
      {"repetition_penalty", [](auto& o) { o.repetition_penalty = kInf; }},
      {"presence_penalty", [](auto& o) { o.presence_penalty = 2.1f; }},
      {"frequency_penalty", [](auto& o) { o.frequency_penalty = -2.1f; }},
      {"logit_bias", [](auto& o) { o.logit_bias[100] = 1; }},
      {"logit_bias", [](auto& o) { o.logit_bias[-1] = 1; }},
      {"logit_bias", [](auto& o) { o.logit_bias[5] = kInf; }},
      {"logit_bias", [](auto& o) { o.logit_bias[5] = kNan; }},
      {"min_tokens", [](auto& o) { o.min_tokens = -1; }},
      {"min_tokens", [](auto& o) { o.min_tokens = 257; }},
      {"max_tokens", [](auto& o) { o.max_tokens = 0; }},
      {"logprobs", [](auto& o) { o.logprobs = -2; }},
      {"logprobs", [](auto& o) { o.logprobs = 65; }},
      {"stop_token_ids",
       [](auto& o) {
         o.stop_token_ids = {1, 100};
       }},
      {"stop_token_ids", [](auto& o) { o.stop_token_ids = {-1}; }},
  };
  for (const Bad& it : bad) {
    SamplingOptions options;
    it.change(options);
    CAPTURE(it.field);
    try {
      validate(options, 100);
      FAIL_CHECK("accepted");
    } catch (const Error& error) {
      CHECK(error.code() == ErrorCode::invalid_argument);
      CHECK(std::string(error.what()).starts_with("sampling option " + it.field + " "));
    }
  }
  SamplingOptions edges;
  edges.temperature = 100;
  edges.min_p = 1;
  edges.presence_penalty = -2;
  edges.frequency_penalty = 2;
  edges.logit_bias = {{0, -kInf}, {99, 3.0f}};
  edges.min_tokens = edges.max_tokens = 1;
  edges.logprobs = 64;
  edges.stop_token_ids = {0, 99};
  CHECK_NOTHROW(validate(edges, 100));
  CHECK_NOTHROW(validate(SamplingOptions(), 1));
}

TEST_CASE("names of codes and reasons") {
  CHECK(std::string(to_string(ErrorCode::invalid_argument)) == "invalid_argument");
  CHECK(std::string(to_string(ErrorCode::internal)) == "internal");
  CHECK(std::string(to_string(FinishReason::none)) == "none");
  CHECK(std::string(to_string(FinishReason::stop_string)) == "stop_string");
  CHECK(std::string(to_string(FinishReason::error)) == "error");
}

TEST_CASE("counters of drafts") {
  SpeculationStats stats;
  CHECK(stats.draft_acceptance_rate() == 0.0);
  CHECK(stats.mean_acceptance_length() == 0.0);
  stats.record_draft(0, 0);  // plain decoding is no draft
  CHECK(stats.spec_decode_num_drafts == 0);
  stats.record_draft(5, 3);
  stats.record_draft(5, 0);
  stats.record_draft(4, 1);
  CHECK(stats.spec_decode_num_drafts == 3);
  CHECK(stats.spec_decode_num_draft_tokens == 14);
  CHECK(stats.spec_decode_num_accepted_tokens == 4);
  CHECK(stats.spec_decode_num_accepted_tokens_per_pos == std::vector<std::int64_t>{2, 1, 1});
  CHECK(stats.acceptance_histogram == std::vector<std::int64_t>{1, 1, 0, 1});
  CHECK(stats.draft_acceptance_rate() == doctest::Approx(4.0 / 14.0));

  SpeculationStats other;
  other.record_draft(6, 5);
  other.num_spec_steps = 2;
  other.num_output_tokens = 7;
  stats.num_spec_steps = 4;
  stats.num_output_tokens = 8;
  stats.merge(other);
  CHECK(stats.spec_decode_num_drafts == 4);
  CHECK(stats.spec_decode_num_draft_tokens == 20);
  CHECK(stats.spec_decode_num_accepted_tokens_per_pos == std::vector<std::int64_t>{3, 2, 2, 1, 1});
  CHECK(stats.acceptance_histogram == std::vector<std::int64_t>{1, 1, 0, 1, 0, 1});
  CHECK(stats.mean_acceptance_length() == doctest::Approx(2.5));
}
