// specdec-bench: reading prompts, adding up.

#include <doctest/doctest.h>

#include <nlohmann/json.hpp>
#include <sstream>
#include <string>
#include <vector>

#include "specdec/error.h"
#include "tools/specdec_bench/prompts.h"
#include "tools/specdec_bench/summary.h"

namespace {

using namespace specdec;
using namespace specdec::bench;

std::vector<Prompt> read(const std::string& text) {
  std::istringstream input(text);
  return read_prompts(input, "prompts.jsonl");
}

}  // namespace

TEST_CASE("prompts are read in both forms") {
  const std::vector<Prompt> prompts = read(
      "{\"category\": \"qa\", \"turns\": [\"a\", \"b\"], \"question_id\": 3}\n\n"
      "  {\"prompt\": \"c\"}\r\n");
  REQUIRE(prompts.size() == 2);
  CHECK(prompts[0].category == "qa");
  CHECK(prompts[0].turns == std::vector<std::string>{"a", "b"});
  CHECK(prompts[1].category == "all");
  CHECK(prompts[1].turns == std::vector<std::string>{"c"});
}

TEST_CASE("a prompt may bring a grammar") {
  using Kind = GrammarSource::Kind;
  const std::vector<Prompt> prompts = read(
      "{\"prompt\": \"a\", \"json_schema\": {\"type\": \"object\", \"required\": [\"z\", \"b\"]}}\n"
      "{\"prompt\": \"a\", \"grammar\": {\"json_schema\": true, \"whitespace\": \"none\", "
      "\"schema_order\": true}}\n"
      "{\"prompt\": \"a\", \"grammar\": {\"regex\": \"a+\"}}\n"
      "{\"prompt\": \"a\", \"grammar\": {\"choice\": [\"yes\", \"no\"]}}\n"
      "{\"prompt\": \"a\", \"grammar\": {\"json\": true}}\n{\"prompt\": \"a\"}\n");
  REQUIRE(prompts.size() == 6);
  REQUIRE(prompts[0].grammar);
  CHECK(prompts[0].grammar->kind == Kind::json_schema);
  CHECK(prompts[0].grammar->text == R"({"type":"object","required":["z","b"]})");
  CHECK(prompts[0].grammar->options.whitespace == JsonOptions::Whitespace::any);
  CHECK(prompts[1].grammar->text == "true");
  CHECK(prompts[1].grammar->options.whitespace == JsonOptions::Whitespace::none);
  CHECK(prompts[1].grammar->options.schema_order);
  CHECK(prompts[2].grammar->kind == Kind::regex);
  CHECK(prompts[2].grammar->text == "a+");
  CHECK(prompts[3].grammar->text == "yes\nno");
  CHECK(prompts[4].grammar->kind == Kind::json);
  CHECK_FALSE(prompts[5].grammar);
}

TEST_CASE("a malformed line is named by its number") {
  const std::string good = "{\"prompt\": \"a\"}\n";
  for (const char* bad :
       {"{\"prompt\": \"a\"", "[1]", "{\"prompt\": 1}", "{\"turns\": []}", "{\"turns\": [1]}",
        "{\"turns\": \"a\"}", "{\"category\": \"qa\"}", "{\"category\": 1, \"prompt\": \"a\"}",
        "nonsense", "{\"prompt\": \"a\", \"grammar\": 1}", "{\"prompt\": \"a\", \"grammar\": {}}",
        "{\"prompt\": \"a\", \"grammar\": {\"json\": false}}",
        "{\"prompt\": \"a\", \"grammar\": {\"choice\": []}}",
        "{\"prompt\": \"a\", \"grammar\": {\"json\": true, \"regex\": \"a\"}}",
        "{\"prompt\": \"a\", \"grammar\": {\"regex\": \"a\", \"whitespace\": 1}}"}) {
    CAPTURE(bad);
    CHECK_THROWS_WITH_AS(read(good + "\n" + bad + "\n"), doctest::Contains("prompts.jsonl:3: "),
                         Error);
  }
  CHECK_THROWS_WITH_AS(read("\n"), doctest::Contains("no prompts"), Error);
  CHECK_THROWS_WITH_AS(read_prompts_file("/nonexistent.jsonl"),
                       doctest::Contains("/nonexistent.jsonl"), Error);
}

TEST_CASE("a limit spreads over the file") {
  std::vector<Prompt> prompts(10);
  for (std::size_t i = 0; i < 10; ++i) prompts[i].category = std::to_string(i);
  const std::vector<Prompt> some = spread(prompts, 3);
  REQUIRE(some.size() == 3);
  CHECK(some[0].category == "0");
  CHECK(some[1].category == "3");
  CHECK(some[2].category == "6");
  CHECK(spread(prompts, 0).size() == 10);
  CHECK(spread(prompts, 99).size() == 10);
}

TEST_CASE("the development prompts of the repository are readable") {
  const std::vector<Prompt> prompts =
      read_prompts_file(std::string(SPECDEC_SOURCE_DIR) + "/bench/prompts/spec_bench_dev.jsonl");
  CHECK(prompts.size() == 320);
}

TEST_CASE("quantiles interpolate") {
  CHECK(quantile({}, 0.5) == 0);
  CHECK(quantile({3}, 0.9) == 3);
  CHECK(quantile({4, 1, 3, 2}, 0.5) == doctest::Approx(2.5));
  CHECK(quantile({1, 2, 3, 4, 5}, 0.25) == doctest::Approx(2));
}

TEST_CASE("a summary adds up tokens, times and steps, and compares with none") {
  const auto run = [](const char* category, std::vector<TokenId> tokens, double time) {
    Run made;
    made.category = category;
    made.decode_tokens = static_cast<std::int64_t>(tokens.size()) - 1;
    made.tokens = std::move(tokens);
    made.total_time = time;
    made.decode_time = time / 2;
    made.time_to_first_token = time / 2;
    made.num_spec_steps = 2;
    made.num_step_tokens = 4;
    made.num_draft_tokens = 10;
    made.num_accepted_tokens = 2;
    return made;
  };
  const std::vector<Run> none = {run("a", {1, 2, 3, 4}, 4), run("b", {1, 2}, 2)};
  const std::vector<Run> fast = {run("a", {1, 2, 3, 4}, 1), run("b", {1, 3}, 1)};

  const Summary all = summarise(fast, &none, "");
  CHECK(all.num_prompts == 2);
  CHECK(all.num_tokens == 6);
  CHECK(all.tok_per_s == doctest::Approx(3));           // 6 tokens in 2 s
  CHECK(all.decode_tok_per_s == doctest::Approx(4));    // 4 tokens in 1 s
  CHECK(all.ratio_to_none == doctest::Approx(3));       // none: 6 tokens in 6 s
  CHECK(all.ratio_quartiles[1] == doctest::Approx(3));  // of 4 and 2
  CHECK(all.mean_acceptance_length == doctest::Approx(2));
  CHECK(all.draft_acceptance_rate == doctest::Approx(0.2));
  CHECK(all.num_identical == 1);
  CHECK_FALSE(all.identical());

  const Summary part = summarise(fast, &none, "a");
  CHECK(part.num_prompts == 1);
  CHECK(part.ratio_to_none == doctest::Approx(4));
  CHECK(part.identical());

  const nlohmann::ordered_json alone = to_json(summarise(fast, nullptr, ""));
  CHECK(alone.at("ratio_to_none").is_null());
  CHECK(alone.at("identical").is_null());
  const nlohmann::ordered_json both = to_json(all);
  CHECK(both.at("ratio_to_none") == doctest::Approx(3));
  CHECK(both.at("identical") == false);
}
