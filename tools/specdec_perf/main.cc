// Times single parts of the engine on command, for scripts that set them against another engine's:
// one JSON object per line in, one out. Through the public API alone, so what is timed is what a
// user gets: a whole step, sampling and bookkeeping included.
//
//   {"op": "decode", "context": 512, "steps": 32}              one row a step
//   {"op": "verify", "context": 512, "rows": 6, "steps": 16}   a draft of rows - 1 tokens a step
//   {"op": "prefill", "tokens": 512}
//   {"op": "render", "prompt": "..."}                          chat template, then token ids
//   {"op": "generate", "tokens": [...], "method": "ngram", "max_tokens": 512}    greedy
//   {"op": "memory"}                                           peak, in bytes
//
// The first line out, unasked, is the load: its time and the machine.

#include <CLI/CLI.hpp>
#include <algorithm>
#include <chrono>
#include <cstdint>
#include <exception>
#include <iostream>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "specdec/specdec.h"
#include "tools/cli/config_flags.h"
#include "tools/cli/machine.h"

namespace {

using nlohmann::json;
using specdec::TokenId;
using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

// Drafts a chain of the full length that costs nothing to make and is hardly ever right: what a
// step with that many rows costs, whatever is accepted.
class ChainDrafter final : public specdec::Drafter {
 public:
  explicit ChainDrafter(int vocab_size) : vocab_size_(static_cast<std::uint64_t>(vocab_size)) {}
  std::string_view name() const noexcept override { return "perf-chain"; }
  void propose(std::span<const specdec::DraftContext> contexts,
               std::span<specdec::DraftProposal> proposals) override {
    for (std::size_t i = 0; i < contexts.size(); ++i)
      for (int depth = 0; depth < contexts[i].max_depth; ++depth)
        proposals[i].append(static_cast<TokenId>(
            (contexts[i].tokens.size() * 7919u + static_cast<std::uint64_t>(depth) * 104729u) %
            vocab_size_));
  }

 private:
  std::uint64_t vocab_size_;
};

class Perf {
 public:
  explicit Perf(specdec::Engine& engine) : engine_(engine) {}

  json run(const json& command) {
    const std::string op = command.at("op");
    if (op == "decode") return steps(command.at("context"), 1, command.at("steps"));
    if (op == "verify")
      return steps(command.at("context"), command.at("rows"), command.at("steps"));
    if (op == "prefill") return prefill(command.at("tokens"));
    if (op == "generate") return generate(command);
    if (op == "render") {
      const std::vector<specdec::ChatMessage> messages = {{"user", command.at("prompt")}};
      const std::string text = engine_.tokenizer().apply_chat_template(messages, true);
      return {{"tokens", engine_.tokenizer().encode(text)}};
    }
    if (op == "memory") return {{"peak_bytes", specdec::cli::peak_memory()}};
    throw specdec::Error(specdec::ErrorCode::invalid_argument, "unknown op \"" + op + '"');
  }

 private:
  // Text tokens in an order without meaning, the same for the same salt.
  std::vector<TokenId> prompt(int length, std::uint64_t salt) const {
    std::vector<TokenId> tokens;
    std::uint64_t state = salt * 0x9E3779B97F4A7C15u + 1;
    while (static_cast<int>(tokens.size()) < length) {
      state = state * 6364136223846793005u + 1442695040888963407u;
      const auto token = static_cast<TokenId>(
          (state >> 33) % static_cast<std::uint64_t>(engine_.tokenizer().vocab_size()));
      if (!engine_.tokenizer().is_special(token)) tokens.push_back(token);
    }
    return tokens;
  }

  json steps(int context, int rows, int count) {
    specdec::Request request;
    // Repeated commands on one context find it in the prefix cache: only the steps are timed.
    request.prompt_tokens = prompt(context, 1);
    request.cache_salt = "steps";
    request.sampling.temperature = 0;
    request.sampling.ignore_eos = true;
    request.sampling.max_tokens = (count + 3) * rows;  // were all drafts right
    request.speculation.enabled = rows > 1;
    if (rows > 1) {
      request.speculation.method = "perf-chain";
      request.speculation.num_speculative_tokens = rows - 1;
    }
    const specdec::RequestId id = engine_.submit(std::move(request));
    std::vector<double> seconds;
    bool decoding = false;
    bool more = true;
    while (more) {
      const Clock::time_point start = Clock::now();
      more = engine_.step();
      const double spent = seconds_since(start);
      for (const specdec::Output& output : engine_.take_outputs()) {
        if (output.error) throw *output.error;
        if (output.tokens.empty()) continue;
        // The first step that gives a token ends the prefill, the next one warms up.
        if (decoding) seconds.push_back(spent);
        decoding = true;
      }
      if (static_cast<int>(seconds.size()) == count + 1) engine_.cancel(id);
    }
    engine_.take_outputs();
    if (!seconds.empty()) seconds.erase(seconds.begin());
    seconds.resize(std::min(seconds.size(), static_cast<std::size_t>(count)));
    return {{"seconds_per_step", seconds}};
  }

  json prefill(int length) {
    specdec::Request request;
    request.prompt_tokens = prompt(length, 1000u + static_cast<std::uint64_t>(num_prefills_));
    request.cache_salt = "prefill-" + std::to_string(num_prefills_++);
    request.sampling.max_tokens = 1;
    request.speculation.enabled = false;
    const Clock::time_point start = Clock::now();
    engine_.submit(std::move(request));
    while (engine_.step()) {
    }
    const double seconds = seconds_since(start);
    engine_.take_outputs();
    engine_.clear_prefix_cache();
    return {{"seconds", seconds}};
  }

  json generate(const json& command) {
    specdec::Request request;
    request.prompt_tokens = command.at("tokens").get<std::vector<TokenId>>();
    request.cache_salt = "generate-" + std::to_string(num_generated_++);
    request.sampling.max_tokens = command.at("max_tokens");
    const std::string method = command.at("method");
    request.speculation.enabled = method != "none";
    request.speculation.method = method;
    if (command.contains("num_speculative_tokens"))
      request.speculation.num_speculative_tokens = command.at("num_speculative_tokens").get<int>();
    else
      request.speculation.num_speculative_tokens = engine_length_;
    std::vector<TokenId> tokens;
    specdec::RequestStats stats;
    const Clock::time_point start = Clock::now();
    engine_.submit(std::move(request));
    while (engine_.step()) {
      for (const specdec::Output& output : engine_.take_outputs()) {
        if (output.error) throw *output.error;
        for (const specdec::OutputToken& token : output.tokens) tokens.push_back(token.token);
        stats = output.stats;
      }
    }
    for (const specdec::Output& output : engine_.take_outputs())
      for (const specdec::OutputToken& token : output.tokens) tokens.push_back(token.token);
    const double seconds = seconds_since(start);
    engine_.clear_prefix_cache();
    return {{"tokens", tokens},
            {"seconds", seconds},
            {"time_to_first_token", stats.time_to_first_token},
            {"mean_acceptance_length", stats.speculation.mean_acceptance_length()}};
  }

 public:
  /// What generate drafts when the command does not say.
  void set_default_length(int length) { engine_length_ = length; }

 private:
  specdec::Engine& engine_;
  int num_prefills_ = 0;
  int num_generated_ = 0;
  int engine_length_ = 5;
};

int run(const specdec::cli::ConfigFlags& flags) {
  specdec::Config config = flags.load();
  const int length = config.draft.length.num_speculative_tokens;
  // Verification is timed up to 64 rows.
  config.set("draft.length.num_speculative_tokens", "64", "specdec-perf");
  config.validate();
  const Clock::time_point start = Clock::now();
  specdec::Engine engine = specdec::Engine::load(config);
  const double load = seconds_since(start);
  engine.add_drafter(std::make_unique<ChainDrafter>(engine.tokenizer().vocab_size()));
  std::cout << json{{"load_seconds", load},
                    {"peak_bytes", specdec::cli::peak_memory()},
                    {"machine", specdec::cli::machine_description()},
                    {"methods", engine.draft_methods()}}
                   .dump()
            << std::endl;
  Perf perf(engine);
  perf.set_default_length(length);
  std::string line;
  while (std::getline(std::cin, line)) {
    json answer;
    try {
      answer = perf.run(json::parse(line));
    } catch (const std::exception& error) {
      answer = {{"error", error.what()}};
    }
    std::cout << answer.dump() << std::endl;
  }
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  CLI::App app("Times parts of the engine: JSON commands on standard input, one a line.",
               "specdec-perf");
  app.set_version_flag("--version", SPECDEC_VERSION);
  specdec::cli::ConfigFlags flags;
  flags.add_to(app);
  if (const std::optional<int> code = specdec::cli::parse_arguments(app, argc, argv)) return *code;
  try {
    return run(flags);
  } catch (const std::exception& error) {
    specdec::cli::print_error("specdec-perf", error.what());
    return specdec::cli::exit_code(error);
  }
}
