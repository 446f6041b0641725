// The programs themselves, as scripts and as people run them.

#include <doctest/doctest.h>

#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <nlohmann/json.hpp>
#include <sstream>
#include <string>
#include <vector>

#include "support/engine_runs.h"
#include "tests/examples/run_program.h"

namespace {

using nlohmann::json;
using specdec::test::ProgramResult;
using specdec::test::run_program;
using specdec::test::TerminalProgram;

const std::string kChat = SPECDEC_CHAT_PROGRAM;
const std::string kSource = SPECDEC_SOURCE_DIR;
const std::string kDraft = specdec::testing::draft_model_path();

std::string slurp(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

// A file in the temporary folder, gone with the object.
class TemporaryFile {
 public:
  explicit TemporaryFile(const std::string& text, const std::string& suffix = "")
      : path_((std::filesystem::temp_directory_path() / "specdec-file-XXXXXX").string() + suffix) {
    const int file = mkstemps(path_.data(), static_cast<int>(suffix.size()));
    REQUIRE(file >= 0);
    close(file);
    std::ofstream(path_, std::ios::binary) << text;
  }
  ~TemporaryFile() { std::filesystem::remove(path_); }
  const std::string& path() const { return path_; }

 private:
  std::string path_;
};

std::vector<std::string> chat_flags(const std::string& target) {
  return {"--target",      target, "--draft-model", kDraft, "--draft-method", "draft_model",
          "--temperature", "0",    "--threads",     "2"};
}

std::vector<std::string> operator+(std::vector<std::string> a, const std::vector<std::string>& b) {
  a.insert(a.end(), b.begin(), b.end());
  return a;
}

std::vector<json> lines_of(const std::string& text) {
  std::vector<json> lines;
  std::istringstream input(text);
  for (std::string line; std::getline(input, line);) lines.push_back(json::parse(line));
  return lines;
}

bool one_line(const std::string& text) {
  return std::count(text.begin(), text.end(), '\n') == 1 && text.ends_with('\n');
}

}  // namespace

TEST_CASE("the README's program is examples/embed_minimal, which is compiled") {
  const std::string readme = slurp(kSource + "/README.md");
  const std::string program = slurp(kSource + "/examples/embed_minimal/embed_minimal.cc");
  const std::size_t begin = readme.find("```cpp\n");
  REQUIRE(begin != std::string::npos);
  const std::size_t end = readme.find("```\n", begin + 7);
  REQUIRE(end != std::string::npos);
  CHECK(readme.substr(begin + 7, end - begin - 7) == program);
}

TEST_CASE("help and version go to standard output") {
  const ProgramResult help = run_program(kChat, {"--help"});
  CHECK(help.exit_code == 0);
  CHECK(help.out.find("--num-speculative-tokens") != std::string::npos);
  CHECK(help.err.empty());
  const ProgramResult version = run_program(kChat, {"--version"});
  CHECK(version.exit_code == 0);
  CHECK(version.out.starts_with("speculative_chat "));
  CHECK(run_program(SPECDEC_BENCH_PROGRAM, {"--help"}).exit_code == 0);
}

TEST_CASE("what the user wrote wrongly is one line and exit code 2") {
  const TemporaryFile broken("[draft]\nmethdo = \"ngram\"\n", ".toml");
  const std::vector<std::vector<std::string>> wrong = {
      {"--no-such-flag"},
      {"--temperature", "warm", "--prompt", "x"},
      {"--config", broken.path(), "--prompt", "x"},
      {"--config", "/nonexistent/specdec.toml", "--prompt", "x"},
      {"--prompt"},
  };
  for (const auto& arguments : wrong) {
    const ProgramResult result = run_program(kChat, arguments);
    CAPTURE(arguments.front());
    CAPTURE(result.err);
    CHECK((result.exit_code == 2 || arguments[1].starts_with("/nonexistent")));
    CHECK(result.exit_code != 0);
    CHECK(result.out.empty());
    CHECK(one_line(result.err));
  }
  const ProgramResult config = run_program(kChat, {"--config", broken.path(), "--prompt", "x"});
  CHECK(config.err.find("methdo") != std::string::npos);
  CHECK(config.err.find("method") != std::string::npos);  // the nearest known key
  CHECK(config.err.find(":2") != std::string::npos);      // the line
}

TEST_CASE("a model that is not there is one line and exit code 1") {
  const ProgramResult result =
      run_program(kChat, {"--target", "/nonexistent/model.gguf", "--prompt", "x"});
  CHECK(result.exit_code == 1);
  CHECK(one_line(result.err));
  CHECK(result.err.find("/nonexistent/model.gguf") != std::string::npos);
}

TEST_CASE("standard input without a prompt in it is a usage error") {
  const ProgramResult result = run_program(kChat, {"--target", "model.gguf"}, " \n");
  CHECK(result.exit_code == 2);
  CHECK(result.err.find("--prompt") != std::string::npos);
}

TEST_CASE("--print-config shows flags with their origin, and can be read back") {
  const ProgramResult result =
      run_program(kChat, {"--target", "model.gguf", "--seed", "7", "--print-config"});
  REQUIRE(result.exit_code == 0);
  CHECK(result.out.find("--seed") != std::string::npos);
  const TemporaryFile file(result.out, ".toml");
  const ProgramResult again = run_program(kChat, {"--config", file.path(), "--print-config"});
  CHECK(again.exit_code == 0);
  CHECK(again.out.find("seed = 7") != std::string::npos);
}

TEST_CASE(
    "answers as JSON: the same tokens with and without speculation, turns share their prefix") {
  const std::string target = specdec::testing::real_target_path();
  if (target.empty()) {
    MESSAGE("the target model is not here: skipped");
    return;
  }
  const std::vector<std::string> prompts = {
      "--json", "--max-tokens", "24", "--prompt", "Name two rivers.", "--prompt", "And two lakes."};
  const ProgramResult drafted = run_program(kChat, chat_flags(target) + prompts);
  const ProgramResult plain = run_program(
      kChat, chat_flags(target) + prompts + std::vector<std::string>{"--draft-method", "none"});
  CAPTURE(drafted.err);
  REQUIRE(drafted.exit_code == 0);
  REQUIRE(plain.exit_code == 0);
  const std::vector<json> a = lines_of(drafted.out);
  const std::vector<json> b = lines_of(plain.out);
  REQUIRE(a.size() == 2);
  REQUIRE(b.size() == 2);
  for (std::size_t i = 0; i < 2; ++i) {
    CHECK_FALSE(a[i].at("tokens").empty());
    CHECK(a[i].at("tokens") == b[i].at("tokens"));
    CHECK(a[i].at("text") == b[i].at("text"));
    CHECK(a[i].at("finish_reason") == b[i].at("finish_reason"));
    CHECK(a[i].at("stats").at("spec_decode_num_drafts") > 0);
    CHECK(b[i].at("stats").at("spec_decode_num_drafts") == 0);
  }
  CHECK(a[1].at("stats").at("num_cached_tokens") > 0);
  CHECK(drafted.err.empty());
}

TEST_CASE("a document piped in is one prompt, and its answer is text alone") {
  const std::string target = specdec::testing::real_target_path();
  if (target.empty()) {
    MESSAGE("the target model is not here: skipped");
    return;
  }
  const ProgramResult result =
      run_program(kChat, chat_flags(target) + std::vector<std::string>{"--max-tokens", "8"},
                  "Say hello.\nPlease.\n");
  CHECK(result.exit_code == 0);
  CHECK_FALSE(result.out.empty());
  CHECK(result.out.find('\x1b') == std::string::npos);
  CHECK(result.err.empty());
}

TEST_CASE("in a terminal: commands, Ctrl-C stops the answer and not the program") {
  const std::string target = specdec::testing::real_target_path();
  if (target.empty()) {
    MESSAGE("the target model is not here: skipped");
    return;
  }
  TerminalProgram chat(kChat,
                       chat_flags(target) + std::vector<std::string>{"--max-tokens", "4000"});
  REQUIRE(chat.wait_for(">>> "));
  chat.type("/help\n");
  CHECK(chat.wait_for("/compare"));
  chat.type("/tree\n");
  CHECK(chat.wait_for("no answer yet"));
  chat.type("/nonsense\n");
  CHECK(chat.wait_for("no command \"/nonsense\""));
  chat.type("/set ignore_eos true\n");
  chat.type("Count from one to a thousand.\n");
  REQUIRE(chat.wait_for("thousand."));
  REQUIRE(chat.wait_for("\n"));
  REQUIRE(chat.wait_for("2"));
  chat.type("\x03");
  CHECK(chat.wait_for("stopped"));
  CHECK(chat.wait_for("first token"));
  REQUIRE(chat.wait_for(">>> "));
  chat.type("/tree\n");
  CHECK(chat.wait_for("root "));
  CHECK(chat.wait_for("drafted"));
  chat.type("/accept\n");
  CHECK(chat.wait_for("[accepted draft tokens]: "));
  chat.type("/set ignore_eos false\n/set max_tokens 16\n/compare Say hello.\n");
  CHECK(chat.wait_for("the tokens are equal"));
  chat.type("/set temperature 5000\n");
  CHECK(chat.wait_for("temperature"));
  const TemporaryFile saved("", ".json");
  chat.type("/save " + saved.path() + "\n");
  CHECK(chat.wait_for("saved 2 messages"));
  CHECK(json::parse(slurp(saved.path())).at("messages").at(0).at("content") ==
        "Count from one to a thousand.");
  chat.type("/clear\n/regen\n");
  CHECK(chat.wait_for("no answer yet"));
  chat.type("/spec sideways\n");
  CHECK(chat.wait_for("no draft method \"sideways\""));
  chat.type("a line to drop\x03");
  CHECK(chat.wait_for("Ctrl-D"));
  chat.type("/bye\n");
  CHECK(chat.wait_for_exit() == 0);
}

TEST_CASE("specdec-bench compares methods and writes JSON") {
  const std::string target = specdec::testing::real_target_path();
  if (target.empty()) {
    MESSAGE("the target model is not here: skipped");
    return;
  }
  const TemporaryFile prompts(
      "{\"category\": \"a\", \"turns\": [\"Name a river.\"]}\n{\"prompt\": \"Name a lake.\"}\n",
      ".jsonl");
  const TemporaryFile out("", ".json");
  const ProgramResult result = run_program(
      SPECDEC_BENCH_PROGRAM,
      chat_flags(target) + std::vector<std::string>{"--prompts", prompts.path(), "--methods",
                                                    "none,ngram,draft_model", "--max-tokens", "12",
                                                    "--json", out.path()});
  CAPTURE(result.err);
  REQUIRE(result.exit_code == 0);
  const json report = json::parse(slurp(out.path()));
  REQUIRE(report.at("methods").size() == 3);
  for (const json& method : report.at("methods")) {
    CHECK(method.at("identical") == true);
    CHECK(method.at("tok_per_s") > 0);
    CHECK(method.at("ratio_to_none") > 0);
    CHECK(method.at("categories").size() == 2);
  }
  CHECK(report.at("methods").at(0).at("ratio_to_none") == doctest::Approx(1));
  const ProgramResult unknown =
      run_program(SPECDEC_BENCH_PROGRAM,
                  chat_flags(target) +
                      std::vector<std::string>{"--prompts", prompts.path(), "--methods", "magic"});
  CHECK(unknown.exit_code == 2);
  CHECK(unknown.err.find("magic") != std::string::npos);
}

TEST_CASE("a drafter of the user's own runs under its name") {
  const std::string target = specdec::testing::real_target_path();
  if (target.empty()) {
    MESSAGE("the target model is not here: skipped");
    return;
  }
  const TemporaryFile config("[target]\nmodel = \"" + target + "\"\n[sampling]\nmax_tokens = 24\n",
                             ".toml");
  const TemporaryFile corpus("1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18");
  const ProgramResult result = run_program(
      SPECDEC_DRAFTER_PROGRAM, {config.path(), corpus.path(), "Count from 1 to 20: 1, 2, 3,"});
  CAPTURE(result.err);
  CHECK(result.exit_code == 0);
  CHECK(result.out.find("draft tokens") != std::string::npos);
}
