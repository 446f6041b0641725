// Checks texts against grammars, and runs the JSON Schema suites.

#include <CLI/CLI.hpp>
#include <cstdio>
#include <exception>
#include <fstream>
#include <iostream>
#include <optional>
#include <string>
#include <vector>

#include "tools/specdec_grammar/check.h"
#include "tools/specdec_grammar/suites.h"

namespace {

using nlohmann::json;
using specdec::grammar_tool::SuiteOptions;
using specdec::grammar_tool::Vocabulary;

int write_report(const json& report, const std::string& path) {
  std::cout << report["summary"].dump(2) << '\n';
  if (path.empty()) return 0;
  std::ofstream file(path);
  file << report.dump(1) << '\n';
  if (file.flush()) return 0;
  std::cerr << "specdec-grammar: cannot write " << path << '\n';
  return 1;
}

}  // namespace

int main(int argc, char** argv) {
  CLI::App app("Checks texts against grammars; runs JSON Schema suites.", "specdec-grammar");
  app.require_subcommand(1);

  specdec::grammar_tool::CheckOptions check_options;
  CLI::App* check =
      app.add_subcommand("check", "Tell whether texts match a grammar, and where not");
  specdec::grammar_tool::SampleOptions sample_options;
  CLI::App* sample = app.add_subcommand("sample", "Print random texts of a grammar");
  const auto add_grammar_flags = [](CLI::App* command, specdec::grammar_tool::CheckOptions& to) {
    CLI::Option_group* kind = command->add_option_group("grammar");
    kind->add_option("--json-schema", to.json_schema, "File with a JSON Schema");
    kind->add_option("--gbnf", to.gbnf, "File with a GBNF grammar");
    kind->add_option("--regex", to.regex, "File with a regular expression");
    kind->require_option(1);
  };
  add_grammar_flags(check, check_options);
  add_grammar_flags(sample, sample_options.grammar);
  sample->add_option("--count", sample_options.count, "How many texts");
  sample->add_option("--seed", sample_options.seed, "Of the random numbers");
  check->add_option("instance", check_options.instances,
                    "Files with a text each; - is standard input");

  std::string input;
  std::string tokenizer;
  std::string report;
  SuiteOptions suite;
  const auto add_suite_flags = [&](CLI::App* command) {
    command->add_option("--json", report, "Write the report, with a row per schema, to this file");
    command->add_option("--time-limit", suite.limit_s, "Seconds for a schema, and for an instance");
    command->add_option("--limit", suite.most, "Run so many schemas only");
  };
  CLI::App* maskbench = app.add_subcommand("maskbench", "Run MaskBench (JSON lines)");
  maskbench->add_option("file", input, "The file; - is standard input")->required();
  maskbench->add_option("--tokenizer", tokenizer,
                        "The vocabulary for masks: a GGUF file, or a folder with tokenizer.json");
  add_suite_flags(maskbench);
  CLI::App* jsts = app.add_subcommand("jsts", "Run the JSON-Schema-Test-Suite");
  jsts->add_option("folder", input, "The suite's folder")->required();
  add_suite_flags(jsts);
  CLI11_PARSE(app, argc, argv);

  try {
    if (check->parsed()) return specdec::grammar_tool::run_check(check_options);
    if (sample->parsed()) return run_sample(sample_options);
    if (jsts->parsed()) return write_report(run_jsts(input, suite), report);
    std::optional<Vocabulary> vocabulary;
    if (!tokenizer.empty()) suite.vocabulary = &vocabulary.emplace(tokenizer);
    if (input == "-") return write_report(run_maskbench(std::cin, suite), report);
    std::ifstream file(input);
    if (!file) throw std::runtime_error("cannot read " + input);
    return write_report(run_maskbench(file, suite), report);
  } catch (const std::exception& error) {
    std::cerr << "specdec-grammar: " << error.what() << '\n';
    return 2;
  }
}
