// Measures draft methods against each other and against plain decoding on a file of prompts.

#include <CLI/CLI.hpp>
#include <algorithm>
#include <charconv>
#include <cstdio>
#include <exception>
#include <fstream>
#include <iostream>
#include <nlohmann/json.hpp>
#include <optional>
#include <set>
#include <sstream>
#include <string>
#include <vector>

#include "specdec/specdec.h"
#include "tools/cli/config_flags.h"
#include "tools/cli/machine.h"
#include "tools/cli/progress.h"
#include "tools/cli/terminal.h"
#include "tools/specdec_bench/prompts.h"
#include "tools/specdec_bench/runner.h"
#include "tools/specdec_bench/summary.h"

namespace {

using nlohmann::ordered_json;
using specdec::bench::Run;
using specdec::bench::Summary;

constexpr const char* kProgram = "specdec-bench";

struct Options {
  std::string prompts;
  std::vector<std::string> methods;  // empty: see default_methods()
  std::size_t limit = 0;
  int batch = 1;
  std::string turns = "first";
  std::string json;
};

void print_row(const std::string& method, const std::string& category, const Summary& summary) {
  std::printf("%-18s %-16s %5zu %8.1f %8.1f", method.c_str(), category.c_str(), summary.num_prompts,
              summary.tok_per_s, summary.decode_tok_per_s);
  if (summary.has_baseline)
    std::printf(" %6.2fx %5.2f-%4.2f", summary.ratio_to_none, summary.ratio_quartiles[0],
                summary.ratio_quartiles[2]);
  else
    std::printf(" %7s %10s", "-", "-");
  std::printf(" %9.2f %8.0f", summary.mean_acceptance_length, summary.ttft_median * 1e3);
  if (summary.has_baseline)
    std::printf("  %s\n", summary.identical() ? "yes"
                                              : (std::to_string(summary.num_identical) + " of " +
                                                 std::to_string(summary.num_prompts))
                                                    .c_str());
  else
    std::printf("  -\n");
}

ordered_json report(const std::vector<std::string>& methods,
                    const std::vector<std::vector<Run>>& runs) {
  const auto none = std::find(methods.begin(), methods.end(), "none");
  const std::vector<Run>* const baseline =
      none == methods.end() ? nullptr : &runs[static_cast<std::size_t>(none - methods.begin())];
  std::vector<std::string> categories;  // in the order of the file
  for (const Run& run : runs.front())
    if (std::find(categories.begin(), categories.end(), run.category) == categories.end())
      categories.push_back(run.category);

  std::printf("%-18s %-16s %5s %8s %8s %7s %10s %9s %8s  %s\n", "method", "category", "n", "tok/s",
              "decode", "/none", "quartiles", "accepted", "ttft ms", "identical");
  ordered_json list = ordered_json::array();
  for (std::size_t method = 0; method < methods.size(); ++method) {
    const Summary overall = summarise(runs[method], baseline, "");
    ordered_json object = {{"method", methods[method]}};
    object.update(to_json(overall));
    if (methods.back() == specdec::bench::kFree) {
      const Summary beside = summarise(runs[method], &runs.back(), "");
      object["ratio_to_free"] = beside.ratio_to_none;
      object["decode_ratio_to_free"] = beside.decode_ratio_to_none;
    }
    object["categories"] = ordered_json::object();
    for (const std::string& category : categories) {
      const Summary part = summarise(runs[method], baseline, category);
      object["categories"][category] = to_json(part);
      if (categories.size() > 1) print_row(methods[method], category, part);
    }
    print_row(methods[method], "overall", overall);
    list.push_back(object);
  }
  if (methods.back() == specdec::bench::kFree)
    for (const ordered_json& object : list)
      if (object["method"] != specdec::bench::kFree)
        std::printf("%-12s with grammars: %.3fx of plain decoding without (decode %.3fx)\n",
                    object["method"].get<std::string>().c_str(),
                    object["ratio_to_free"].get<double>(),
                    object["decode_ratio_to_free"].get<double>());
  return list;
}

/// The lengths of "METHOD:N"; `fallback` for a method without one.
std::vector<int> take_lengths(std::vector<std::string>& methods, int fallback) {
  std::vector<int> lengths;
  for (std::string& method : methods) {
    const std::size_t colon = method.find(':');
    int length = fallback;
    if (colon != std::string::npos) {
      const char* const end = method.data() + method.size();
      const auto parsed = std::from_chars(method.data() + colon + 1, end, length);
      if (parsed.ec != std::errc() || parsed.ptr != end || length < 1 || length > 64)
        throw specdec::Error(specdec::ErrorCode::invalid_argument,
                             "--methods: \"" + method + "\": a length is 1 to 64");
      method.resize(colon);
    }
    lengths.push_back(length);
  }
  return lengths;
}

void check_methods(const specdec::Engine& engine, const std::vector<std::string>& methods) {
  const std::vector<std::string> known = engine.draft_methods();
  std::string names;
  for (const std::string& name : known) names += (names.empty() ? "" : ", ") + name;
  for (const std::string& method : methods) {
    std::istringstream parts(method);  // a mixture is its parts' names with '+' between them
    for (std::string part; std::getline(parts, part, '+');)
      if (std::find(known.begin(), known.end(), part) == known.end())
        throw specdec::Error(specdec::ErrorCode::invalid_argument,
                             "--methods: no draft method \"" + part + "\"; loaded are " + names);
  }
}

std::vector<std::string> default_methods(const specdec::Config& config) {
  std::vector<std::string> methods = {"none", "ngram"};
  if (std::find(methods.begin(), methods.end(), config.draft.method) == methods.end())
    methods.push_back(config.draft.method);
  return methods;
}

int run(const Options& options, const specdec::cli::ConfigFlags& flags,
        const std::string& command) {
  const specdec::Config config = flags.load();
  config.validate();
  specdec::bench::Plan plan;
  std::set<std::string> seen;
  std::vector<std::string> names =
      options.methods.empty() ? default_methods(config) : options.methods;
  for (const std::string& method : names)
    if (!seen.insert(method).second)
      throw specdec::Error(specdec::ErrorCode::invalid_argument,
                           "--methods names \"" + method + "\" twice");
  plan.methods = names;
  plan.lengths = take_lengths(plan.methods, config.draft.length.num_speculative_tokens);
  plan.sampling = config.sampling;
  if (!plan.sampling.seed) plan.sampling.seed = 1;
  plan.all_turns = options.turns == "all";
  plan.batch = options.batch;
  const std::vector<specdec::bench::Prompt> prompts =
      spread(specdec::bench::read_prompts_file(options.prompts), options.limit);

  specdec::Engine engine = specdec::Engine::load(config);
  check_methods(engine, plan.methods);
  const bool constrained = std::any_of(prompts.begin(), prompts.end(),
                                       [](const auto& prompt) { return prompt.grammar; });
  const bool has_none =
      std::find(plan.methods.begin(), plan.methods.end(), "none") != plan.methods.end();
  const std::size_t num_methods = names.size();  // without kFree
  if (constrained && has_none && !plan.all_turns) {
    names.emplace_back(specdec::bench::kFree);
    plan.methods.emplace_back(specdec::bench::kFree);
    plan.lengths.push_back(1);
  }
  {
    // One unmeasured answer per method: page faults and lazy set-up belong to nobody.
    specdec::bench::Plan warm_up = plan;
    warm_up.methods.resize(num_methods);
    warm_up.lengths.resize(num_methods);
    warm_up.sampling.max_tokens = 8;
    warm_up.batch = 1;
    run_all(engine, {{"warm-up", {"Hello!"}}}, warm_up, [](std::size_t) { return false; });
  }
  const specdec::cli::InterruptGuard guard;
  std::vector<std::vector<Run>> runs;
  {
    specdec::cli::ProgressBar bar(prompts.size() * plan.methods.size());
    runs = run_all(engine, prompts, plan, [&](std::size_t done) {
      bar.update(done);
      return specdec::cli::InterruptGuard::interrupted();
    });
  }
  const bool stopped = specdec::cli::InterruptGuard::interrupted();
  if (stopped) {
    // Keep the prompts that every method has run.
    std::size_t whole = runs.front().size();
    for (const auto& method : runs) whole = std::min(whole, method.size());
    for (auto& method : runs) method.resize(whole);
    std::fprintf(stderr, "stopped after %zu of %zu prompts\n", whole, prompts.size());
    if (whole == 0) return 130;
  }

  const ordered_json methods = report(names, runs);
  if (!options.json.empty()) {
    const ordered_json document = {
        {"methods", methods},
        {"num_prompts", runs.front().size()},
        {"max_tokens", plan.sampling.max_tokens},
        {"temperature", plan.sampling.temperature},
        {"seed", *plan.sampling.seed},
        {"turns", options.turns},
        {"batch", options.batch},
        {"prefix_cache", "a salt per run: no run reuses another's prefix"},
        {"command", command},
        {"machine", specdec::cli::machine_description()},
        {"version", SPECDEC_VERSION},
        {"config", config.to_toml()},
    };
    std::ofstream file(options.json);
    file << document.dump(2) << '\n';
    file.close();
    if (!file) throw specdec::Error(specdec::ErrorCode::io, "cannot write " + options.json);
  }
  return stopped ? 130 : 0;
}

}  // namespace

int main(int argc, char** argv) {
  CLI::App app("Measures draft methods on a file of prompts, interleaved prompt by prompt.",
               kProgram);
  app.set_version_flag("--version", SPECDEC_VERSION);
  Options options;
  app.add_option("--prompts", options.prompts,
                 "JSON lines with \"category\" and \"turns\", or with \"prompt\"; "
                 "\"json_schema\" or \"grammar\" constrains the answers")
      ->type_name("FILE")
      ->take_last()
      ->required();
  app.add_option(
         "--methods", options.methods,
         "Draft methods; \"none\" is what ratios refer to, METHOD:N drafts N tokens at most "
         "(default: none, ngram and the configuration's)")
      ->type_name("A,B,...")
      ->delimiter(',');
  app.add_option("--limit", options.limit,
                 "This many prompts, spread evenly over the file; 0 = all")
      ->take_last();
  app.add_option("--batch", options.batch, "Prompts at once")
      ->check(CLI::Range(1, 1024))
      ->take_last();
  app.add_option("--turns", options.turns, "Which turns of a conversation to run")
      ->check(CLI::IsMember({"first", "all"}))
      ->take_last();
  app.add_option("--json", options.json, "Write the figures to this file")
      ->type_name("OUT")
      ->take_last();
  specdec::cli::ConfigFlags flags;
  flags.add_to(app);
  if (const std::optional<int> code = specdec::cli::parse_arguments(app, argc, argv)) return *code;
  std::string command = kProgram;
  for (int i = 1; i < argc; ++i) command += " " + std::string(argv[i]);
  try {
    return run(options, flags, command);
  } catch (const std::exception& error) {
    specdec::cli::print_error(kProgram, error.what());
    return specdec::cli::exit_code(error);
  }
}
