// specdec-tune itself, on a tiny random target and draft.

#include <doctest/doctest.h>

#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "specdec/config.h"
#include "specdec/engine.h"
#include "support/model_writer.h"
#include "tests/examples/run_program.h"
#include "tools/specdec_tune/vocabulary.h"

namespace {

namespace fs = std::filesystem;
using namespace specdec::testing;
using specdec::test::ProgramResult;
using specdec::test::run_program;
using specdec::test::TerminalProgram;

const std::string kProgram = SPECDEC_TUNE_PROGRAM;

std::string slurp(const fs::path& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

// A folder with a target, a draft, prompts and a configuration.
class Workshop {
 public:
  Workshop() : folder_(fs::temp_directory_path() / ("specdec-tune-" + std::to_string(getpid()))) {
    fs::remove_all(folder_);
    fs::create_directory(folder_);
    const RandomModel target = random_model(micro_model_config(), 1);
    write_gguf(folder_ / "target.gguf", target);
    write_gguf(folder_ / "draft.gguf", perturbed_model(target, 0.05f, 2));
    write("prompts.jsonl", "{\"prompt\": \"a\"}\n{\"prompt\": \"bc\"}\n{\"prompt\": \"abab\"}\n");
    write("specdec.toml",
          "# mine\n[target]\nmodel = \"target.gguf\"  # small\n[draft]\nmodel = \"draft.gguf\"\n"
          "[kv_cache]\nmemory_mb = 4\n[backend]\ndevice = \"cpu\"\nthreads = 2\n"
          "[sampling]\ntemperature = 0.0\nmax_tokens = 12\n");
  }
  ~Workshop() { fs::remove_all(folder_); }

  void write(const char* name, const std::string& text) const {
    std::ofstream(folder_ / name, std::ios::binary) << text;
  }
  std::string operator/(const char* name) const { return (folder_ / name).string(); }
  std::vector<std::string> flags(std::vector<std::string> more = {}) const {
    std::vector<std::string> all = {"--config",  *this / "specdec.toml",
                                    "--prompts", *this / "prompts.jsonl",
                                    "--minutes", "0.03"};
    all.insert(all.end(), more.begin(), more.end());
    return all;
  }

 private:
  fs::path folder_;
};

}  // namespace

TEST_CASE("a session measures, reports and writes a configuration that loads") {
  const Workshop shop;
  const ProgramResult ran = run_program(
      kProgram, shop.flags({"--write", "--batch", "1,2", "--html", shop / "report.html"}));
  CAPTURE(ran.err);
  REQUIRE(ran.exit_code == 0);
  CHECK(ran.err.empty());
  CHECK(ran.out.find("a pass of the draft model") != std::string::npos);
  CHECK(ran.out.find("batch 2: speed-up over the draft's length") != std::string::npos);
  CHECK(ran.out.find("written to ") != std::string::npos);
  const std::string config = slurp(shop / "specdec.toml");
  CHECK(config.starts_with("# mine\n[target]\nmodel = \"target.gguf\"  # small\n"));
  CHECK(config.find("# tuned: 20") != std::string::npos);
  CHECK_NOTHROW(specdec::Config::from_file(shop / "specdec.toml").validate());
  CHECK(slurp(shop / "report.html").find("</html>") != std::string::npos);
}

TEST_CASE("JSON holds what was measured, and nothing is written unasked") {
  const Workshop shop;
  const std::string before = slurp(shop / "specdec.toml");
  const ProgramResult ran = run_program(kProgram, shop.flags({"--json", "--grid"}));
  CAPTURE(ran.err);
  REQUIRE(ran.exit_code == 0);
  const auto document = nlohmann::json::parse(ran.out);
  CHECK(document.at("trials").size() > 20);
  for (const auto& trial : document.at("trials")) {
    CAPTURE(trial.dump());
    CHECK(trial.at("num_answers").get<int>() > 0);
    CHECK(trial.at("num_identical") == trial.at("num_answers"));
    CHECK(trial.at("speedup").get<double>() > 0);
  }
  CHECK(slurp(shop / "specdec.toml") == before);
}

TEST_CASE("Ctrl-C keeps the best so far") {
  const Workshop shop;
  std::string prompts;
  for (int i = 0; i < 400; ++i) prompts += "{\"prompt\": \"" + std::to_string(i) + "\"}\n";
  shop.write("prompts.jsonl", prompts);
  std::vector<std::string> flags = shop.flags({"--write"});
  flags[5] = "0.2";  // minutes
  TerminalProgram program(kProgram, flags);
  REQUIRE(program.wait_for("round 2"));
  program.type("\x03");
  CHECK(program.wait_for("written to"));
  CHECK(program.wait_for_exit() == 130);
  CHECK_NOTHROW(specdec::Config::from_file(shop / "specdec.toml").validate());
}

TEST_CASE("bad input is one line and an exit code") {
  const Workshop shop;
  shop.write("broken.toml", "[target\n");
  shop.write("unknown.toml", "[target]\nmodle = 'x'\n");
  shop.write("missing.toml", "[target]\nmodel = 'no.gguf'\n");
  shop.write("empty.jsonl", "\n");
  shop.write("bad.jsonl", "{\"prompt\": 3}\n");
  const auto with = [&](std::size_t index, const std::string& value) {
    std::vector<std::string> flags = shop.flags();
    flags[index] = value;
    return run_program(kProgram, flags);
  };
  struct Case {
    std::size_t flag;
    std::string value;
    int code;
    const char* message;
  };
  for (const Case& bad : std::vector<Case>{
           {1, shop / "no.toml", 1, "no.toml"},
           {1, shop / "broken.toml", 2, "broken.toml"},
           {1, shop / "unknown.toml", 2, "modle"},
           {1, shop / "missing.toml", 1, "no.gguf"},
           {3, shop / "no.jsonl", 1, "no.jsonl"},
           {3, shop / "empty.jsonl", 2, "no prompts"},
           {3, shop / "bad.jsonl", 2, "bad.jsonl:1"},
           {5, "0", 2, "--minutes"},
           {5, "soon", 2, "--minutes"},
       }) {
    CAPTURE(bad.value);
    const ProgramResult ran = with(bad.flag, bad.value);
    CAPTURE(ran.err);
    CHECK(ran.exit_code == bad.code);
    CHECK(ran.err.starts_with("specdec-tune: "));
    CHECK(ran.err.find(bad.message) != std::string::npos);
    CHECK(std::count(ran.err.begin(), ran.err.end(), '\n') == 1);
  }
  CHECK(run_program(kProgram, shop.flags({"--batch", "0"})).exit_code == 2);
  CHECK(run_program(kProgram, shop.flags({"--draft-models", shop / "no.gguf"})).exit_code == 1);
  CHECK(run_program(kProgram, {}).exit_code == 2);
  CHECK(run_program(kProgram, {"--help"}).exit_code == 0);
}

TEST_CASE("a list of frequent tokens is made, and is one that an engine takes") {
  const Workshop shop;
  const std::string list = shop / "tokens.txt";
  const ProgramResult result =
      run_program(kProgram, shop.flags({"--vocabulary-list", list, "--vocabulary-size", "100"}));
  CHECK(result.exit_code == 0);
  CHECK(result.out.find("100 tokens in ") != std::string::npos);
  specdec::Config config = specdec::Config::from_file(shop / "specdec.toml");
  config.draft.vocabulary_list = list;
  specdec::Engine::load(config);
}

TEST_CASE("frequent tokens: what must be there, then by count, then by number") {
  const std::vector<std::vector<specdec::TokenId>> texts = {{5, 7, 7, 9}, {9, 7}};
  const std::vector<specdec::TokenId> ends = {3};
  using specdec::tune::frequent_tokens;
  CHECK(frequent_tokens(texts, ends, 6, 12) == std::vector<specdec::TokenId>{3, 7, 9, 5, 0, 1});
  CHECK(frequent_tokens(texts, {}, 2, 12) == std::vector<specdec::TokenId>{7, 9});
  CHECK(frequent_tokens({}, {}, 99, 4) == std::vector<specdec::TokenId>{0, 1, 2, 3});
}
