#include "tools/cli/config_flags.h"

#include <CLI/CLI.hpp>
#include <algorithm>
#include <array>
#include <cstdio>
#include <filesystem>
#include <utility>

#include "specdec/error.h"
#include "specdec/version.h"

namespace specdec::cli {
namespace {

// Keys whose last part alone would mislead or collide.
constexpr std::array<std::pair<std::string_view, std::string_view>, 18> kOwnNames = {{
    {"target.model", "--target"},
    {"draft.method", "--draft-method"},
    {"draft.model", "--draft-model"},
    {"draft.vocabulary_list", "--draft-vocabulary-list"},
    {"draft.length.mode", "--draft-length-mode"},
    {"draft.length.schedule", "--draft-length-schedule"},
    {"draft.length.min_confidence", "--draft-min-confidence"},
    {"draft.tree.topk", "--draft-topk"},
    {"draft.tree.choices", "--draft-tree-choices"},
    {"verify.method", "--verify-method"},
    {"kv_cache.memory_mb", "--kv-cache-memory-mb"},
    {"kv_cache.block_size", "--kv-cache-block-size"},
    {"kv_cache.type", "--kv-cache-type"},
    {"grammar.cache_mb", "--grammar-cache-mb"},
    {"grammar.cache_entries", "--grammar-cache-entries"},
    {"log.level", "--log-level"},
    {"sampling.stop", "--stop"},
    {"sampling.logprobs", "--logprobs"},
}};

}  // namespace

std::string flag_name(std::string_view key) {
  for (const auto& [name, flag] : kOwnNames)
    if (name == key) return std::string(flag);
  std::string flag = "--" + std::string(key.substr(key.rfind('.') + 1));
  std::replace(flag.begin(), flag.end(), '_', '-');
  return flag;
}

void ConfigFlags::add_to(CLI::App& app) {
  app.add_option("--config", file_, "Configuration file (default: specdec.toml, when it is here)")
      ->type_name("FILE")
      ->take_last();
  for (const std::string& key : Config::keys()) {
    Flag& flag = flags_.emplace_back(Flag{key, {}, nullptr});
    flag.option = app.add_option(flag_name(key), flag.value, "Configuration key " + key)
                      ->type_name("VALUE")
                      ->group("Configuration")
                      ->take_last();
  }
}

Config ConfigFlags::load() const {
  Config config;
  if (!file_.empty())
    config = Config::from_file(file_);
  else if (std::filesystem::exists("specdec.toml"))
    config = Config::from_file("specdec.toml");
  config.apply_environment();
  for (const Flag& flag : flags_)
    if (flag.option->count() > 0) config.set(flag.key, flag.value, flag_name(flag.key));
  return config;
}

std::optional<int> parse_arguments(CLI::App& app, int argc, char** argv) {
  try {
    app.parse(argc, argv);
  } catch (const CLI::CallForHelp&) {
    std::fputs(app.help().c_str(), stdout);
    return 0;
  } catch (const CLI::CallForVersion&) {
    std::printf("%s %s\n", app.get_name().c_str(), SPECDEC_VERSION);
    return 0;
  } catch (const CLI::ParseError& error) {
    std::string message = error.what();
    std::replace(message.begin(), message.end(), '\n', ' ');
    print_error(app.get_name(), message + "; --help lists the flags");
    return 2;
  }
  return std::nullopt;
}

int exit_code(const std::exception& error) noexcept {
  const auto* ours = dynamic_cast<const Error*>(&error);
  if (ours == nullptr) return 1;
  return ours->code() == ErrorCode::invalid_config || ours->code() == ErrorCode::invalid_argument
             ? 2
             : 1;
}

void print_error(std::string_view program, std::string_view message) {
  std::fprintf(stderr, "%.*s: %.*s\n", static_cast<int>(program.size()), program.data(),
               static_cast<int>(message.size()), message.data());
}

}  // namespace specdec::cli
