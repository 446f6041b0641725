// What the programs share: flags for every key, text that is safe to show.

#include <doctest/doctest.h>

#include <CLI/CLI.hpp>
#include <cstdlib>
#include <set>
#include <string>
#include <vector>

#include "specdec/config.h"
#include "specdec/error.h"
#include "tools/cli/config_flags.h"
#include "tools/cli/machine.h"
#include "tools/cli/terminal.h"

namespace {

using namespace specdec;
using namespace specdec::cli;

// Config::load() with these flags.
Config load(std::vector<std::string> arguments) {
  CLI::App app("", "program");
  ConfigFlags flags;
  flags.add_to(app);
  arguments.insert(arguments.begin(), "program");
  std::vector<char*> pointers;
  for (std::string& argument : arguments) pointers.push_back(argument.data());
  REQUIRE_FALSE(parse_arguments(app, static_cast<int>(pointers.size()), pointers.data()));
  return flags.load();
}

}  // namespace

TEST_CASE("every configuration key has a flag of its own") {
  std::set<std::string> flags;
  for (const std::string& key : Config::keys()) {
    CAPTURE(key);
    const std::string flag = flag_name(key);
    CHECK(flag.starts_with("--"));
    CHECK(flag.find('_') == std::string::npos);
    CHECK(flag.find('.') == std::string::npos);
    CHECK_MESSAGE(flags.insert(flag).second, flag << " stands for two keys");
  }
  // The ones that users type.
  for (const char* flag :
       {"--target", "--draft-method", "--draft-model", "--num-speculative-tokens", "--draft-topk",
        "--num-draft-tokens", "--verify-method", "--temperature", "--top-p", "--seed",
        "--max-tokens", "--threads", "--isa", "--stop"})
    CHECK_MESSAGE(flags.contains(flag), flag);
  CHECK_FALSE(flags.contains("--method"));
  CHECK_FALSE(flags.contains("--model"));
}

TEST_CASE("flags go over the environment, and the last of two wins") {
  CHECK(load({"--temperature", "0.5"}).sampling.temperature == doctest::Approx(0.5));
  CHECK(load({"--max-tokens", "5", "--max-tokens", "7"}).sampling.max_tokens == 7);
  setenv("SPECDEC_SAMPLING_MAX_TOKENS", "9", 1);
  CHECK(load({}).sampling.max_tokens == 9);
  const Config config = load({"--max-tokens=11"});
  unsetenv("SPECDEC_SAMPLING_MAX_TOKENS");
  CHECK(config.sampling.max_tokens == 11);
  CHECK(config.origins.at("sampling.max_tokens") == "--max-tokens");
}

TEST_CASE("a wrong value or file is an error that names it") {
  CHECK_THROWS_WITH_AS(load({"--max-tokens", "many"}), doctest::Contains("--max-tokens"), Error);
  CHECK_THROWS_WITH_AS(load({"--config", "/nonexistent/x.toml"}),
                       doctest::Contains("/nonexistent/x.toml"), Error);
}

TEST_CASE("exit codes: 2 for what the user wrote, 1 for the rest") {
  CHECK(exit_code(Error(ErrorCode::invalid_config, "")) == 2);
  CHECK(exit_code(Error(ErrorCode::invalid_argument, "")) == 2);
  CHECK(exit_code(Error(ErrorCode::invalid_model, "")) == 1);
  CHECK(exit_code(Error(ErrorCode::io, "")) == 1);
  CHECK(exit_code(std::runtime_error("")) == 1);
}

TEST_CASE("text for the terminal holds no control sequences") {
  CHECK(printable("a\tb\nc") == "a\tb\nc");
  CHECK(printable("\x1b[31mred\x1b[0m\a\x7f\r") == "[31mred[0m");
  CHECK(printable("x\xC2\x9B"
                  "31my") == "x31my");  // CSI as one character
  CHECK(printable("grüße 日本 🙂") == "grüße 日本 🙂");
  CHECK(quoted("a\"\\\n\t") == R"("a\"\\\n\t")");
  CHECK(quoted("\xE6\x97") == R"("\xE6\x97")");
  CHECK(quoted("日\xFF\x1b") == R"("日\xFF\x1B")");
  CHECK(quoted("\xED\xA0\x80") == R"("\xED\xA0\x80")");  // a surrogate is no character
}

TEST_CASE("whole_utf8 leaves out an unfinished character alone") {
  CHECK(whole_utf8("") == 0);
  CHECK(whole_utf8("ab") == 2);
  CHECK(whole_utf8("a\xE6\x97") == 1);
  CHECK(whole_utf8("日") == 3);
  CHECK(whole_utf8("\xF0\x9F\x99") == 0);
  CHECK(whole_utf8("\xFF\xFE") == 2);  // can never become one: passed on
}

TEST_CASE("styles are escape sequences or nothing") {
  CHECK(Painter(false)(Style::red, "x") == "x");
  CHECK(Painter(true)(Style::red, "x") == "\x1b[31mx\x1b[0m");
  CHECK(Painter(true)(Style::plain, "x") == "x");
}

TEST_CASE("the process knows its peak memory") { CHECK(peak_memory() > 1 << 20); }
