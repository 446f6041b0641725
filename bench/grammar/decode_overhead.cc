// What a schema costs while decoding: each prompt is answered twice without speculation, under its
// grammar and freely, for as many tokens; which of the two comes first alternates. A step's time is
// Engine::step() as a whole; the first one, which holds the prompt's pass, is left out.

#include <CLI/CLI.hpp>
#include <algorithm>
#include <chrono>
#include <fstream>
#include <iostream>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "specdec/specdec.h"
#include "tools/cli/machine.h"
#include "tools/specdec_bench/prompts.h"

namespace {

using namespace specdec;
using Clock = std::chrono::steady_clock;

/// The times of the steps of one answer behind its first, in microseconds.
std::vector<double> time_answer(Engine& engine, Request request, int& num_tokens) {
  std::vector<double> steps;
  num_tokens = 0;
  engine.submit(std::move(request));
  for (bool first = true, more = true; more; first = false) {
    const Clock::time_point begin = Clock::now();
    more = engine.step();
    const double us = std::chrono::duration<double, std::micro>(Clock::now() - begin).count();
    std::size_t emitted = 0;
    for (const Output& output : engine.take_outputs()) {
      if (output.error) throw *output.error;
      emitted += output.tokens.size();
    }
    num_tokens += static_cast<int>(emitted);
    if (!first && emitted > 0) steps.push_back(us);
  }
  return steps;
}

double median(std::vector<double> values) {
  if (values.empty()) return 0.0;
  const auto middle = values.begin() + std::ssize(values) / 2;
  std::nth_element(values.begin(), middle, values.end());
  return *middle;
}

}  // namespace

int main(int argc, char** argv) {
  CLI::App app("Times decoding steps with and without a grammar.", "bench_grammar_overhead");
  std::string config_path = "specdec.toml", prompts_path, json_path;
  int rounds = 3, max_tokens = 120;
  std::size_t limit = 0;
  float temperature = 0.0f;
  app.add_option("prompts", prompts_path, "Prompts with grammars, JSON lines")->required();
  app.add_option("--config", config_path, "specdec.toml");
  app.add_option("--limit", limit, "Prompts; 0: all");
  app.add_option("--rounds", rounds, "Over all prompts");
  app.add_option("--max-tokens", max_tokens, "Of an answer");
  app.add_option("--temperature", temperature, "0: greedy");
  app.add_option("--json", json_path, "Where the figures go; standard output otherwise");
  CLI11_PARSE(app, argc, argv);

  try {
    Engine engine = Engine::load(Config::from_file(config_path));
    const auto prompts = bench::spread(bench::read_prompts_file(prompts_path), limit);
    std::vector<double> constrained, free;  // [steps]
    std::vector<double> ratios;             // [rounds]
    for (int round = 0; round < rounds; ++round) {
      const std::size_t constrained_before = constrained.size(), free_before = free.size();
      for (std::size_t i = 0; i < prompts.size(); ++i) {
        Request request;
        request.messages = {{"user", prompts[i].turns.at(0)}};
        request.speculation.method = "none";
        request.sampling.temperature = temperature;
        request.sampling.seed = i + 1;
        request.sampling.max_tokens = max_tokens;
        Request bound = request;
        bound.grammar = engine.grammar(prompts[i].grammar.value());
        int num_tokens = 0;
        const auto take = [](std::vector<double>& all, const std::vector<double>& more) {
          all.insert(all.end(), more.begin(), more.end());
        };
        // How long the answer gets, and its prompt's blocks in the cache for both.
        time_answer(engine, bound, num_tokens);
        request.sampling.ignore_eos = true;
        request.sampling.max_tokens = num_tokens;
        const bool free_first = (i + static_cast<std::size_t>(round)) % 2 == 0;
        if (free_first) take(free, time_answer(engine, request, num_tokens));
        take(constrained, time_answer(engine, bound, num_tokens));
        if (!free_first) take(free, time_answer(engine, request, num_tokens));
      }
      const auto of_round = [](const std::vector<double>& all, std::size_t begin) {
        return median({all.begin() + static_cast<std::ptrdiff_t>(begin), all.end()});
      };
      ratios.push_back(of_round(constrained, constrained_before) / of_round(free, free_before));
    }
    const nlohmann::ordered_json report = {
        {"what",
         "median time of a decoding step under a schema and without one, the same number "
         "of steps, alternating prompt by prompt, no speculation"},
        {"machine", cli::machine_description()},
        {"prompts", prompts.size()},
        {"temperature", temperature},
        {"constrained_steps", constrained.size()},
        {"free_steps", free.size()},
        {"constrained_us", median(constrained)},
        {"free_us", median(free)},
        {"ratio", median(constrained) / median(free)},
        {"ratio_by_round", ratios}};
    if (json_path.empty())
      std::cout << report.dump(2) << '\n';
    else
      std::ofstream(json_path) << report.dump(2) << '\n';
  } catch (const std::exception& error) {
    std::cerr << "bench_grammar_overhead: " << error.what() << '\n';
    return 1;
  }
}
