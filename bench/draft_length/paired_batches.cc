// Plain decoding against a draft method in batches, step by step in turns: two engines get the same
// requests, and the one that has used less time so far makes the next step. A machine whose speed
// wanders from second to second slows both alike, which whole batches one after the other do not
// ensure.
//
//   paired_batches --config specdec.toml --prompts FILE.jsonl --limit 40 --batches 8,16,32
//       --draft-method suffix+eagle3 --draft-model DIR --draft-length-mode adaptive [--json OUT]
//
// With --last-tokens the last request of each batch goes on when the others are done: what a draft
// method makes of the end of a burst.

#include <CLI/CLI.hpp>
#include <algorithm>
#include <array>
#include <chrono>
#include <cstdio>
#include <exception>
#include <fstream>
#include <map>
#include <nlohmann/json.hpp>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "specdec/specdec.h"
#include "tools/cli/config_flags.h"
#include "tools/cli/machine.h"
#include "tools/specdec_bench/prompts.h"

namespace {

using namespace specdec;
using nlohmann::ordered_json;

/// One engine with the requests of a batch.
class Side {
 public:
  Side(const Config& config, std::string method)
      : engine_(Engine::load(config)), sampling_(config.sampling), method_(std::move(method)) {
    if (!sampling_.seed) sampling_.seed = 1;
  }

  /// `last_tokens`: most tokens of the last one; 0: as many as of the others.
  void submit(std::span<const bench::Prompt> prompts, int last_tokens) {
    seconds_ = tail_begin_ = 0;
    num_finished_ = 0;
    running_ = true;
    requests_.clear();
    answers_.assign(prompts.size(), {});
    for (std::size_t i = 0; i < prompts.size(); ++i) {
      Request request;
      request.messages = {{"user", prompts[i].turns.front()}};
      request.sampling = sampling_;
      if (last_tokens > 0 && i + 1 == prompts.size()) request.sampling.max_tokens = last_tokens;
      request.speculation.method = method_;
      request.cache_salt = std::to_string(num_requests_++);  // nothing is known from earlier ones
      requests_[engine_.submit(std::move(request))] = i;
    }
  }
  void step() {
    const auto begin = std::chrono::steady_clock::now();
    running_ = engine_.step();
    seconds_ += std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
    for (const Output& output : engine_.take_outputs()) {
      if (output.error) throw *output.error;
      std::vector<TokenId>& answer = answers_[requests_.at(output.id)];
      for (const OutputToken& token : output.tokens) answer.push_back(token.token);
      if (output.finished() && ++num_finished_ + 1 == answers_.size()) tail_begin_ = seconds_;
    }
    if (!running_) engine_.clear_prefix_cache();
  }

  bool running() const { return running_; }
  double seconds() const { return seconds_; }
  /// Of them, those after all requests but one were done.
  double tail_seconds() const { return seconds_ - tail_begin_; }
  const std::vector<std::vector<TokenId>>& answers() const { return answers_; }
  EngineStats stats() const { return engine_.stats(); }

 private:
  Engine engine_;
  SamplingOptions sampling_;
  std::string method_;
  std::map<RequestId, std::size_t> requests_;
  std::vector<std::vector<TokenId>> answers_;
  int num_requests_ = 0;
  std::size_t num_finished_ = 0;
  double seconds_ = 0;
  double tail_begin_ = 0;
  bool running_ = false;
};

/// Runs all prompts in batches of `size` and returns the figures.
ordered_json measure(std::array<Side, 2>& sides, std::span<const bench::Prompt> prompts, int size,
                     int last_tokens) {
  Side& plain = sides[0];
  Side& drafting = sides[1];
  const EngineStats before = drafting.stats();
  std::array<double, 2> seconds = {0, 0};
  std::vector<double> ratios;
  std::vector<double> tail_ratios;
  std::int64_t tokens = 0;
  bool identical = true;
  const auto width = static_cast<std::size_t>(size);
  for (std::size_t begin = 0; begin < prompts.size(); begin += width) {
    const auto batch = prompts.subspan(begin, std::min(width, prompts.size() - begin));
    for (Side& side : sides) side.submit(batch, last_tokens);
    while (plain.running() || drafting.running()) {
      const bool plain_next =
          plain.running() && (!drafting.running() || plain.seconds() <= drafting.seconds());
      (plain_next ? plain : drafting).step();
    }
    identical = identical && plain.answers() == drafting.answers();
    for (const auto& answer : plain.answers()) tokens += static_cast<std::int64_t>(answer.size());
    ratios.push_back(plain.seconds() / drafting.seconds());
    tail_ratios.push_back(plain.tail_seconds() / drafting.tail_seconds());
    for (std::size_t i = 0; i < sides.size(); ++i) seconds[i] += sides[i].seconds();
  }
  const EngineStats after = drafting.stats();
  const SpeculationStats& now = after.speculation;
  const SpeculationStats& then = before.speculation;
  const double speedup = seconds[0] / seconds[1];
  std::printf("batch %2d  plain %7.1f tok/s  drafting %.3fx  %s\n", size,
              static_cast<double>(tokens) / seconds[0], speedup,
              identical ? "same tokens" : "OTHER TOKENS");
  std::fflush(stdout);
  return {
      {"batch", size},
      {"num_prompts", prompts.size()},
      {"num_tokens", tokens},
      {"identical", identical},
      {"plain_tok_per_s", static_cast<double>(tokens) / seconds[0]},
      {"speedup", speedup},
      {"speedup_of_each_batch", ratios},
      {"last_tokens", last_tokens},
      {"speedup_of_each_tail", tail_ratios},
      {"num_returned_tokens", after.num_returned_tokens - before.num_returned_tokens},
      {"draft_time", after.draft_time - before.draft_time},
      {"num_drafts", now.spec_decode_num_drafts - then.spec_decode_num_drafts},
      {"num_draft_tokens", now.spec_decode_num_draft_tokens - then.spec_decode_num_draft_tokens},
      {"num_accepted_tokens",
       now.spec_decode_num_accepted_tokens - then.spec_decode_num_accepted_tokens}};
}

}  // namespace

int main(int argc, char** argv) {
  CLI::App app("Plain decoding and a draft method in batches, step by step in turns.",
               "paired_batches");
  std::string prompts_file;
  std::string json_file;
  std::size_t limit = 0;
  std::vector<int> batches = {8, 16, 32};
  int last_tokens = 0;
  app.add_option("--prompts", prompts_file, "JSON lines; first turns are run")->required();
  app.add_option("--limit", limit, "This many prompts, spread evenly over the file; 0 = all");
  app.add_option("--batches", batches, "Requests at once")->delimiter(',')->capture_default_str();
  app.add_option("--last-tokens", last_tokens, "Most tokens of each batch's last request");
  app.add_option("--json", json_file, "Write the figures to this file");
  cli::ConfigFlags flags;
  flags.add_to(app);
  if (const std::optional<int> code = cli::parse_arguments(app, argc, argv)) return *code;
  std::string command = "paired_batches";
  for (int i = 1; i < argc; ++i) command += " " + std::string(argv[i]);
  try {
    const Config config = flags.load();
    config.validate();
    const std::vector<bench::Prompt> prompts =
        bench::spread(bench::read_prompts_file(prompts_file), limit);
    std::array<Side, 2> sides = {Side(config, "none"), Side(config, config.draft.method)};
    ordered_json list = ordered_json::array();
    for (const int size : batches)
      list.push_back(measure(sides, prompts, std::max(1, size), last_tokens));
    if (!json_file.empty())
      std::ofstream(json_file) << ordered_json{{"batches", list},
                                               {"command", command},
                                               {"machine", cli::machine_description()},
                                               {"version", SPECDEC_VERSION},
                                               {"config", config.to_toml()}}
                                      .dump(2)
                               << '\n';
    return 0;
  } catch (const std::exception& error) {
    cli::print_error("paired_batches", error.what());
    return cli::exit_code(error);
  }
}
