// Finds out how to draft for a target, on one's own machine and prompts.

#include <unistd.h>

#include <CLI/CLI.hpp>
#include <chrono>
#include <cstdio>
#include <ctime>
#include <exception>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "specdec/specdec.h"
#include "tools/cli/config_flags.h"
#include "tools/cli/machine.h"
#include "tools/cli/progress.h"
#include "tools/cli/terminal.h"
#include "tools/specdec_bench/prompts.h"
#include "tools/specdec_tune/config_editor.h"
#include "tools/specdec_tune/report.h"
#include "tools/specdec_tune/search.h"
#include "tools/specdec_tune/vocabulary.h"

namespace {

namespace fs = std::filesystem;
using specdec::Error;
using specdec::ErrorCode;
using specdec::tune::Context;
using specdec::tune::SearchResult;

constexpr const char* kProgram = "specdec-tune";

struct Options {
  std::string config = "specdec.toml";
  std::string prompts;
  std::vector<std::string> models;
  std::vector<int> batches = {1};
  double minutes = 4;
  bool grid = false;
  bool write = false;
  bool json = false;
  std::string html;
  std::string vocabulary_list;
  int vocabulary_size = 8192;
};

std::string today() {
  const std::time_t now = std::chrono::system_clock::to_time_t(std::chrono::system_clock::now());
  std::tm time{};
  gmtime_r(&now, &time);
  char text[16];
  std::strftime(text, sizeof text, "%Y-%m-%d", &time);
  return text;
}

std::string read_text(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  std::string text{std::istreambuf_iterator<char>(file), {}};
  if (!file.is_open() || file.bad()) throw Error(ErrorCode::io, "cannot read " + path);
  return text;
}

/// A path as the configuration file at `config` would name it: those are relative to it.
std::string seen_from(const std::string& config, const std::string& path) {
  std::error_code error;
  const fs::path folder = fs::absolute(config, error).parent_path();
  const fs::path relative = fs::absolute(path, error).lexically_proximate(folder);
  return relative.empty() || *relative.begin() == ".." ? path : relative.string();
}

void write_config(const Options& options, const SearchResult& result, const Context& context) {
  auto list = specdec::tune::assignments(result.best(), result, context);
  for (specdec::tune::Assignment& assignment : list)
    if (assignment.key == "draft.model")
      assignment.value =
          specdec::tune::toml_string(seen_from(options.config, result.best()->setting.draft_model));
  const std::string edited =
      specdec::tune::edit_config(read_text(options.config), list, options.config);
  specdec::Config::from_string(edited, options.config);  // must be what the library reads
  specdec::tune::replace_file(options.config, edited);
}

int list_vocabulary(const Options& options, const specdec::Config& config) {
  const auto prompts = specdec::bench::read_prompts_file(options.prompts);
  const auto start = std::chrono::steady_clock::now();
  const specdec::cli::InterruptGuard guard;
  specdec::tune::Vocabulary vocabulary;
  {
    std::optional<specdec::cli::ProgressBar> bar;
    vocabulary =
        specdec::tune::make_vocabulary(config, prompts, options.vocabulary_size, [&](double done) {
          if (!bar) bar.emplace(prompts.size());
          bar->update(static_cast<std::size_t>(done * static_cast<double>(prompts.size())));
          const std::chrono::duration<double> spent = std::chrono::steady_clock::now() - start;
          return spent.count() > 60 * options.minutes ||
                 specdec::cli::InterruptGuard::interrupted();
        });
  }
  specdec::tune::replace_file(options.vocabulary_list,
                              specdec::tune::vocabulary_text(vocabulary, options.prompts));
  std::printf("%zu tokens in %s, %zu of them seen in %zu prompts and their answers\n",
              vocabulary.tokens.size(), options.vocabulary_list.c_str(), vocabulary.num_seen,
              vocabulary.num_prompts);
  if (vocabulary.coverage > 0)
    std::printf("made without every fourth prompt, it would hold %.2f %% of those answers\n",
                100 * vocabulary.coverage);
  return 0;
}

int run(const Options& options) {
  specdec::Config config = specdec::Config::from_file(options.config);
  config.apply_environment();
  config.validate();
  if (!options.vocabulary_list.empty()) return list_vocabulary(options, config);
  if (!config.draft.tree.choices.empty())
    throw Error(ErrorCode::invalid_config,
                options.config +
                    ": draft.tree.choices is set, and the trees that are compared here "
                    "grow by confidence: take it out first");
  std::vector<std::string> models = options.models;
  if (models.empty() && !config.draft.model.empty()) models.push_back(config.draft.model);
  const auto prompts = specdec::bench::read_prompts_file(options.prompts);
  if (options.write && access(options.config.c_str(), W_OK) != 0)
    throw Error(ErrorCode::io, "cannot write " + options.config);

  const Context context{.prompts = options.prompts,
                        .models = models,
                        .max_tokens = config.sampling.max_tokens,
                        .temperature = config.sampling.temperature,
                        .date = today()};
  const specdec::cli::InterruptGuard guard;
  SearchResult result;
  {
    std::optional<specdec::cli::ProgressBar> bar;
    const specdec::tune::SearchOptions how{
        .batches = options.batches,
        .minutes = options.minutes,
        .progress = [&](double spent, const std::string& what) {
          constexpr double kSteps = 1000;
          if (!bar) bar.emplace(static_cast<std::size_t>(kSteps));
          bar->update(static_cast<std::size_t>(spent * kSteps) + 1, what);
          return specdec::cli::InterruptGuard::interrupted();
        }};
    result = options.grid ? full_grid(config, models, prompts, how)
                          : search(config, models, prompts, how);
  }
  if (result.trials.empty()) {
    specdec::cli::print_error(kProgram, "stopped before anything was measured");
    return 130;
  }

  const auto* const best = result.best();
  if (options.json) {
    nlohmann::ordered_json document = to_json(result, context);
    document["machine"] = specdec::cli::machine_description();
    document["version"] = SPECDEC_VERSION;
    std::printf("%s\n", document.dump(2).c_str());
  } else {
    const specdec::cli::Painter paint(specdec::cli::wants_colour(STDOUT_FILENO));
    std::fputs(table_text(result, context, 16, paint).c_str(), stdout);
    for (std::size_t at = 0; at < options.batches.size(); ++at) {
      std::printf("\nbatch %d: ", options.batches[at]);
      std::fputs(plot_text(curves(result, at), specdec::cli::terminal_width(), paint).c_str(),
                 stdout);
    }
    std::printf("\n%s\n", best == nullptr
                              ? "nothing was faster than plain decoding: method = \"none\""
                              : ("best: " + best->setting.label()).c_str());
    if (result.ran_out)
      std::printf("the prompts ran out before the time: more of them make it surer\n");
  }
  for (const specdec::tune::Trial& trial : result.trials)
    if (trial.setting.verify == "coupled" && trial.num_identical != trial.num_answers)
      specdec::cli::print_error(
          kProgram, trial.setting.label() + " gave other tokens than plain decoding: report this");
  if (!options.html.empty()) specdec::tune::replace_file(options.html, to_html(result, context));
  if (options.write) {
    write_config(options, result, context);
    if (!options.json) std::printf("written to %s\n", options.config.c_str());
  }
  return result.stopped ? 130 : 0;
}

}  // namespace

int main(int argc, char** argv) {
  CLI::App app(
      "Measures how to draft on your prompts: method, length, tree and acceptance rule, and writes "
      "what is fastest into the configuration. Ctrl-C keeps the best so far.",
      kProgram);
  app.set_version_flag("--version", SPECDEC_VERSION);
  Options options;
  app.add_option("--config", options.config, "Configuration to tune")
      ->type_name("FILE")
      ->take_last()
      ->capture_default_str();
  app.add_option("--prompts", options.prompts,
                 "JSON lines with \"category\" and \"turns\", or with \"prompt\"")
      ->type_name("FILE")
      ->take_last()
      ->required();
  app.add_option("--draft-models", options.models,
                 "Draft models and heads to try (default: draft.model of the configuration)")
      ->type_name("PATH,...")
      ->delimiter(',');
  app.add_option("--batch", options.batches, "Prompts at once; several: the mean speed-up counts")
      ->type_name("N,...")
      ->delimiter(',')
      ->check(CLI::Range(1, 1024))
      ->capture_default_str();
  app.add_option("--minutes", options.minutes, "About how long to measure")
      ->check(CLI::Range(0.01, 1440.0))
      ->take_last()
      ->capture_default_str();
  app.add_flag("--grid", options.grid, "Every setting on the same prompts, in place of a search");
  app.add_flag("--write", options.write, "Write the best setting into the configuration");
  app.add_flag("--json", options.json, "Print everything as JSON");
  app.add_option("--vocabulary-list", options.vocabulary_list,
                 "In place of a search: list the tokens most frequent in the prompts and the "
                 "target's answers, for draft.vocabulary_list")
      ->type_name("OUT")
      ->take_last();
  app.add_option("--vocabulary-size", options.vocabulary_size, "Tokens of that list")
      ->check(CLI::Range(1, 1 << 20))
      ->take_last()
      ->capture_default_str();
  app.add_option("--html", options.html, "Write a report with plots")
      ->type_name("OUT")
      ->take_last();
  if (const std::optional<int> code = specdec::cli::parse_arguments(app, argc, argv)) return *code;
  try {
    return run(options);
  } catch (const std::exception& error) {
    specdec::cli::print_error(kProgram, error.what());
    return specdec::cli::exit_code(error);
  }
}
