// specdec-tune: what is tried, and what is said about it.

#include "tools/specdec_tune/report.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>
#include <set>
#include <string>
#include <vector>

#include "tools/specdec_tune/setting.h"

namespace {

using namespace specdec;
using namespace specdec::tune;

Trial trial(const Setting& setting, double seconds, int rounds) {
  Trial made{.setting = setting};
  made.batches = {
      {.batch = 1, .seconds = seconds, .plain_seconds = 3, .tokens = 30, .plain_tokens = 30},
      {.batch = 4, .seconds = 2 * seconds, .plain_seconds = 3, .tokens = 60, .plain_tokens = 60}};
  made.num_prompts = 5;
  made.rounds = rounds;
  made.steps = 10;
  made.step_tokens = 25;
  made.drafts = 8;
  made.accepted_at_depth = {6, 2};
  return made;
}

const Setting kChain = {.draft_model = "m", .method = "eagle3", .length = 3};
const Setting kAdaptive = {
    .draft_model = "m", .method = "suffix+eagle3", .mode = "adaptive", .length = 8, .topk = 2};
const Context kContext = {.prompts = "<p>.jsonl",
                          .models = {"m"},
                          .max_tokens = 64,
                          .temperature = 0,
                          .date = "2026-01-31"};

SearchResult result() {
  SearchResult made;
  made.trials = {trial(kAdaptive, 1, 2), trial(kChain, 1.5, 2)};
  made.costs = {{.verify = {{1, 0.003}, {8, 0.005}}, .draft = {{1, 0.001}}}};
  return made;
}

}  // namespace

TEST_CASE("every setting is tried once, and is one that the configuration can say") {
  const std::vector<std::string> methods = {"none", "eagle3", "ngram", "suffix", "lookahead"};
  for (const bool sampled : {false, true}) {
    const std::vector<Setting> space = search_space(methods, "m", sampled);
    std::set<std::string> labels;
    for (const Setting& setting : space) {
      CAPTURE(setting.label());
      Config config;
      config.target.model = "t";
      CHECK_NOTHROW(setting.applied_to(config).validate());
      CHECK(labels.insert(setting.label() + setting.mode).second);
      CHECK(setting.verify != "typical");
      CHECK((sampled || setting.verify == "coupled"));
    }
    for (const char* method : {"eagle3", "ngram", "suffix", "ngram+eagle3", "suffix+eagle3"})
      CHECK(std::ranges::any_of(space, [&](const Setting& s) { return s.method == method; }));
    CHECK(std::ranges::count_if(space, [](const Setting& s) { return s.method == "lookahead"; }) ==
          2);
    CHECK(std::ranges::none_of(space,
                               [](const Setting& s) { return s.method == "lookahead+eagle3"; }));
  }
  // A drafter that nobody listed copies text.
  const std::vector<Setting> own =
      search_space(std::vector<std::string>{"none", "mine"}, "", false);
  REQUIRE_FALSE(own.empty());
  for (const Setting& setting : own) CHECK(setting.topk == 1);
  CHECK(search_space(std::vector<std::string>{"none"}, "", true).empty());
  CHECK(drafts_with_model("suffix+eagle3"));
  CHECK_FALSE(drafts_with_model("suffix+ngram"));
}

TEST_CASE("exit layers around the one that is asked for, if one is") {
  CHECK(exit_layers(0) == std::vector<int>{0});
  CHECK(exit_layers(1) == std::vector<int>{1, 2});
  CHECK(exit_layers(8) == std::vector<int>{8, 4, 6, 10, 12});
  Config config;
  config.target.model = "t";
  config.draft.early_exit.exit_layer = 8;
  const Setting four{.exit_layer = 4, .method = "early_exit", .length = 3};
  CHECK(four.label() == "early_exit at 4, 3");
  CHECK(four.applied_to(config).draft.early_exit.exit_layer == 4);
  CHECK_NOTHROW(four.applied_to(config).validate());
  Setting eight = four;
  eight.exit_layer = 8;
  CHECK_FALSE(four.shares_engine(eight));
  const auto written = assignments(nullptr, result(), kContext);
  CHECK(written.size() == 1);
  Trial best = trial(four, 1.5, 2);
  const auto list = assignments(&best, result(), kContext);
  CHECK(std::ranges::any_of(list, [](const Assignment& assignment) {
    return assignment.key == "draft.early_exit.exit_layer" && assignment.value == "4";
  }));
}

TEST_CASE("a trial's speed-up is the geometric mean over batch sizes, of rates") {
  const Trial one = trial(kChain, 1.5, 1);
  CHECK(one.batches[0].speedup() == doctest::Approx(2));
  CHECK(one.batches[1].speedup() == doctest::Approx(1));
  CHECK(one.speedup() == doctest::Approx(std::sqrt(2.0)));
  CHECK(one.tokens_per_step() == doctest::Approx(2.5));
  CHECK(Trial{.setting = kChain, .batches = {{.batch = 1}}}.speedup() == 0);
}

TEST_CASE("nothing is best where nothing beats plain decoding") {
  SearchResult slow = result();
  REQUIRE(slow.best() == &slow.trials[0]);
  slow.trials = {trial(kChain, 4, 1)};
  CHECK(slow.best() == nullptr);
  CHECK(SearchResult().best() == nullptr);
}

TEST_CASE("what goes into the file is the setting, with what was measured") {
  const SearchResult made = result();
  const std::vector<Assignment> list = assignments(made.best(), made, kContext);
  Config config = Config::from_string(edit_config("[target]\nmodel = 't'\n", list, "a"));
  CHECK(config.draft.method == "suffix+eagle3");
  CHECK(config.draft.length.mode == "adaptive");
  CHECK(config.draft.length.num_speculative_tokens == 8);
  CHECK(config.draft.tree.topk == 2);
  CHECK(list[0].comment ==
        "2026-01-31, greedy, answers of 64 tokens, 5 prompts: 3.00x plain at "
        "batch 1, 1.50x plain at batch 4");
  const auto mode = std::ranges::find(list, "draft.length.mode", &Assignment::key);
  REQUIRE(mode != list.end());
  CHECK(mode->comment == "the runners-up: eagle3, 3 1.41x");

  const std::vector<Assignment> plain = assignments(nullptr, made, kContext);
  REQUIRE(plain.size() == 1);
  CHECK(plain[0].value == "\"none\"");
}

TEST_CASE("the plot shows each method's points, adaptive ones and plain decoding's line") {
  const cli::Painter plain(false);
  const std::vector<Curve> lines = curves(result(), 0);
  REQUIRE(lines.size() == 2);
  CHECK(lines[0].adaptive == doctest::Approx(3));
  CHECK(lines[1].points == std::vector<std::pair<int, double>>{{3, 2.0}});
  for (const int width : {0, 40, 300}) {
    const std::string text = plot_text(lines, width, plain);
    CHECK(text.find("3.00x |") != std::string::npos);
    CHECK(text.find('A') != std::string::npos);
    CHECK(text.find('b') != std::string::npos);
    CHECK(text.find("-----") != std::string::npos);
    CHECK(text.find('\x1b') == std::string::npos);
  }
  CHECK_NOTHROW(plot_text({}, 80, plain));
  const std::string table = table_text(result(), kContext, 1, plain);
  CHECK(table.find("suffix+eagle3, up to 8, tree 2x16   3.00x   1.50x   2.12x") !=
        std::string::npos);
  CHECK(table.find("0.75 0.25") != std::string::npos);
  CHECK(table.find("and 1 that were slower") != std::string::npos);
}

TEST_CASE("the page needs nothing from elsewhere and escapes what it shows") {
  const std::string page = to_html(result(), kContext);
  CHECK(page.find("&lt;p&gt;.jsonl") != std::string::npos);
  CHECK(page.find("<p>.jsonl") == std::string::npos);
  for (const char* outside : {"http", "src=", "href=", "@import", "url(", "<script"})
    CHECK(page.find(outside) == std::string::npos);
  CHECK(page.find("<svg") != std::string::npos);
  CHECK(page.find("nan") == std::string::npos);
  CHECK_NOTHROW(to_html(SearchResult(), kContext));
}

TEST_CASE("the JSON has every trial") {
  const nlohmann::ordered_json document = to_json(result(), kContext);
  CHECK(document["best"] == "suffix+eagle3, up to 8, tree 2x16");
  REQUIRE(document["trials"].size() == 2);
  CHECK(document["trials"][1]["batches"][0]["speedup"] == doctest::Approx(2));
  CHECK(document["costs"][0]["verify"][1][0] == 8);
}
