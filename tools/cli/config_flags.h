#pragma once

#include <deque>
#include <exception>
#include <optional>
#include <string>
#include <string_view>

#include "specdec/config.h"

namespace CLI {
class App;
class Option;
}  // namespace CLI

namespace specdec::cli {

/// The flag of one configuration key: "sampling.max_tokens" -> "--max-tokens". The section is
/// dropped, '_' becomes '-'; keys whose last part says too little alone ("model", "method") have
/// a name of their own.
std::string flag_name(std::string_view key);

/// A flag for every key of Config::keys(), so that a new key needs no code here.
class ConfigFlags {
 public:
  /// Adds the flags and --config to `app`, which must not outlive this object.
  void add_to(CLI::App& app);
  /// defaults < file < environment < flags. Without --config, `specdec.toml` in the working folder
  /// is read when it is there. Throws Error(invalid_config), Error(io).
  Config load() const;

 private:
  std::string file_;
  struct Flag {
    std::string key;
    std::string value;                    // filled by CLI11
    const CLI::Option* option = nullptr;  // knows whether the flag was given: --stop "" is a value
  };
  std::deque<Flag> flags_;  // a deque: CLI11 keeps pointers to the values
};

/// What a program's main does around its work: parses `arguments` with `app`, answers --help and
/// --version. Returns an exit code when the program is to end here, nothing when it goes on; a
/// wrong flag is one line on standard error and exit code 2.
std::optional<int> parse_arguments(CLI::App& app, int argc, char** argv);

/// The exit code that goes with an error: 2 for what the user wrote (flags, configuration), else 1.
int exit_code(const std::exception& error) noexcept;
/// One line on standard error: "program: message".
void print_error(std::string_view program, std::string_view message);

}  // namespace specdec::cli
