#include "specdec/config.h"

#include <doctest/doctest.h>
#include <stdlib.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <filesystem>
#include <fstream>
#include <limits>
#include <random>
#include <set>
#include <string>

#include "engine/config/config_keys.h"
#include "engine/config/config_text.h"
#include "specdec/error.h"

using namespace specdec;

namespace {

/// Sets an environment variable for a scope.
class ScopedVariable {
 public:
  ScopedVariable(std::string name, const std::string& value) : name_(std::move(name)) {
    setenv(name_.c_str(), value.c_str(), 1);
  }
  ~ScopedVariable() { unsetenv(name_.c_str()); }
  ScopedVariable(const ScopedVariable&) = delete;
  ScopedVariable& operator=(const ScopedVariable&) = delete;

 private:
  std::string name_;
};

class TemporaryFolder {
 public:
  TemporaryFolder() {
    std::string pattern = (std::filesystem::temp_directory_path() / "specdec-XXXXXX").string();
    REQUIRE(mkdtemp(pattern.data()) != nullptr);
    path_ = pattern;
  }
  ~TemporaryFolder() { std::filesystem::remove_all(path_); }
  TemporaryFolder(const TemporaryFolder&) = delete;
  TemporaryFolder& operator=(const TemporaryFolder&) = delete;
  const std::filesystem::path& path() const { return path_; }

 private:
  std::filesystem::path path_;
};

/// A random valid value for every key, by the key's type and bounds.
struct Randomise {
  const ConfigKey& key;
  std::mt19937_64& random;

  int below(int n) const { return static_cast<int>(random() % static_cast<unsigned>(n)); }
  std::string text() const {
    static const std::vector<std::string> kParts = {
        "a", "model", "\"",   "\\",   "\n",           "\t",
        "#", "'",     "\x01", "\x7f", "\xc3\xa9",     "\xf0\x9f\x98\x80",
        "]", "= 3",   "\r\n", " ",    "\xef\xbf\xbd", "\xe2\x80\xa8"};
    std::string result;
    for (int i = below(6); i >= 0; --i) result += kParts[static_cast<std::size_t>(below(18))];
    return result;
  }
  std::string choice() const {
    std::vector<std::string> choices(1);
    for (char c : key.choices) {
      if (c == '|')
        choices.emplace_back();
      else
        choices.back() += c;
    }
    return choices[static_cast<std::size_t>(below(static_cast<int>(choices.size())))];
  }
  float number() const {
    for (;;) {
      const auto bits = static_cast<std::uint32_t>(random());
      const float any = std::bit_cast<float>(bits);
      const float inside = static_cast<float>(key.low + (std::min(key.high, 1e6) - key.low) *
                                                            std::ldexp(random() >> 11, -53));
      const float value = below(2) == 0 ? any : inside;
      if (value_problem(key, value).empty()) return value;
    }
  }

  void operator()(std::string* v) const { *v = key.choices.empty() ? text() : choice(); }
  void operator()(int* v) const {
    const double span = key.high - key.low;
    *v = key.choices.empty()
             ? static_cast<int>(key.low + std::floor(span * std::ldexp(random() >> 11, -53)))
             : std::stoi(choice());
  }
  void operator()(float* v) const { *v = number(); }
  void operator()(bool* v) const { *v = below(2) == 0; }
  void operator()(std::optional<std::uint64_t>* v) const {
    *v = below(3) == 0 ? std::nullopt : std::optional(random() >> below(64));
  }
  void operator()(std::vector<std::string>* v) const {
    v->clear();
    for (int i = below(4); i > 0; --i) v->push_back(text());
  }
  void operator()(std::vector<TokenId>* v) const {
    v->clear();
    for (int i = below(4); i > 0; --i) v->push_back(below(1 << 20));
  }
  void operator()(std::unordered_map<TokenId, float>* v) const {
    v->clear();
    for (int i = below(4); i > 0; --i)
      v->emplace(below(1 << 20), below(4) == 0 ? -std::numeric_limits<float>::infinity()
                                               : 0.1f * static_cast<float>(below(100)));
  }
  void operator()(std::vector<std::pair<int, int>>* v) const {
    v->assign(1, {1, below(65)});
    for (int i = below(4); i > 0; --i) v->push_back({v->back().first + 1 + below(9), below(65)});
  }
};

Config random_config(std::mt19937_64& random) {
  Config config;
  for (const ConfigKey& key : config_keys()) std::visit(Randomise{key, random}, key.field(config));
  return config;
}

}  // namespace

TEST_CASE("what to_toml prints reads back as an equal config") {
  std::mt19937_64 random(1);
  for (int i = 0; i < 400; ++i) {
    const Config config = random_config(random);
    const std::string toml = config.to_toml();
    CAPTURE(toml);
    const Config again = Config::from_string(toml);
    REQUIRE(again == config);
    // All of it again, now that every key has an origin.
    REQUIRE(Config::from_string(again.to_toml()) == config);
  }
  CHECK(Config::from_string(Config().to_toml()) == Config());
}

TEST_CASE("every value that to_toml prints can be set as a flag") {
  std::mt19937_64 random(2);
  for (int i = 0; i < 100; ++i) {
    Config config = random_config(random);
    Config flags;
    for (const ConfigKey& key : config_keys()) {
      const FieldRef field = key.field(config);
      // Plain texts are taken as they are, everything else as TOML has it.
      if (const auto* text = std::get_if<std::string*>(&field))
        flags.set(key.name, **text, "--x");
      else
        flags.set(key.name, toml_text(field), "--x");
    }
    REQUIRE(flags == config);
  }
}

TEST_CASE("the table of keys is whole") {
  const std::vector<std::string> keys = Config::keys();
  CHECK(keys.size() == config_keys().size());
  std::set<std::string> names, variables, closed_sections;
  std::string section;
  for (const ConfigKey& key : config_keys()) {
    const std::string name(key.name);
    CAPTURE(name);
    CHECK(names.insert(name).second);
    CHECK(variables.insert(environment_name(name)).second);
    CHECK_FALSE(Config::describe(name).empty());
    CHECK_FALSE(is_config_section(name));
    CHECK(is_config_section(key.section()));
    // A section that is left does not come back: TOML takes each table once.
    if (key.section() != section) {
      section = key.section();
      CHECK(closed_sections.insert(section).second);
    }
    Config defaults;
    CHECK(std::visit([&](auto* value) { return value_problem(key, *value); },
                     key.field(defaults)) == "");
  }
  CHECK(Config::describe("no.such.key").empty());
}

TEST_CASE("environment wins over file, flag over environment; origins say so") {
  TemporaryFolder folder;
  const std::filesystem::path file = folder.path() / "specdec.toml";
  std::ofstream(file) << "[sampling]\ntemperature = 0.1\ntop_p = 0.2\n\nmin_p = 0.3\n";
  const ScopedVariable top_p("SPECDEC_SAMPLING_TOP_P", "0.5");
  const ScopedVariable min_p("SPECDEC_SAMPLING_MIN_P", "0.6");
  const ScopedVariable method("SPECDEC_DRAFT_METHOD", "ngram");
  const ScopedVariable ignored("SPECDEC_TEST_TARGET", "elsewhere");

  Config config = Config::from_file(file);
  CHECK(config.sampling.top_p == 0.2f);
  config.apply_environment();
  config.set("sampling.min_p", "0.9", "--min-p");
  CHECK(config.sampling.temperature == 0.1f);
  CHECK(config.sampling.top_p == 0.5f);
  CHECK(config.sampling.min_p == 0.9f);
  CHECK(config.draft.method == "ngram");
  CHECK(config.origins.size() == 4);
  CHECK(config.origins.at("sampling.temperature") == file.string() + ":2");
  CHECK(config.origins.at("sampling.top_p") == "SPECDEC_SAMPLING_TOP_P");
  CHECK(config.origins.at("sampling.min_p") == "--min-p");
  CHECK(config.origins.at("draft.method") == "SPECDEC_DRAFT_METHOD");

  const std::string toml = config.to_toml();
  CHECK(toml.find("min_p = 0.9  # --min-p\n") != std::string::npos);
  CHECK(toml.find("temperature = 0.1  # " + file.string() + ":2\n") != std::string::npos);
  CHECK(toml.find("max_tokens = 256  # default\n") != std::string::npos);
}

TEST_CASE("an unknown or bad variable is refused by its name") {
  const auto message = [] {
    try {
      Config().apply_environment();
    } catch (const Error& error) {
      return std::string(error.what());
    }
    return std::string();
  };
  {
    const ScopedVariable typo("SPECDEC_SAMPLING_TEMPRATURE", "1");
    CHECK(message().find("did you mean \"SPECDEC_SAMPLING_TEMPERATURE\"") != std::string::npos);
  }
  const ScopedVariable bad("SPECDEC_SAMPLING_TEMPERATURE", "hot");
  CHECK(message().starts_with("SPECDEC_SAMPLING_TEMPERATURE: sampling.temperature is \"hot\""));
}

TEST_CASE("relative model paths start at the file's folder") {
  TemporaryFolder folder;
  const std::filesystem::path file = folder.path() / "specdec.toml";
  std::ofstream(file) << "target.model = \"../models/t.gguf\"\ndraft.model = \"/abs/d.gguf\"\n";
  Config config = Config::from_file(file);
  CHECK(config.target.model == (folder.path().parent_path() / "models/t.gguf").string());
  CHECK(config.draft.model == "/abs/d.gguf");
  config.set("draft.model", "here.gguf", "--draft-model");
  CHECK(config.draft.model == "here.gguf");
  CHECK(Config::from_string("target.model = \"t.gguf\"").target.model == "t.gguf");
}

TEST_CASE("values take the forms that people write") {
  const Config file = Config::from_string(R"(
[draft]
method = ["ngram"]
[draft.length]
schedule = [[1, 4], [2, 0]]
[sampling]
temperature = 1
seed = "18446744073709551615"
stop = ["\n\n", "END"]
[sampling.logit_bias]
42 = -1.5
7 = -inf
)");
  CHECK(file.draft.method == "ngram");
  CHECK(file.draft.length.schedule == std::vector<std::pair<int, int>>{{1, 4}, {2, 0}});
  CHECK(file.sampling.temperature == 1.0f);
  CHECK(file.sampling.seed == std::numeric_limits<std::uint64_t>::max());
  CHECK(file.sampling.stop == std::vector<std::string>{"\n\n", "END"});
  CHECK(file.sampling.logit_bias.at(42) == -1.5f);
  CHECK(file.sampling.logit_bias.at(7) == -std::numeric_limits<float>::infinity());

  Config flags;
  flags.set("sampling.stop", "END", "--stop");
  CHECK(flags.sampling.stop == std::vector<std::string>{"END"});
  flags.set("sampling.stop", R"(["a", "b"])", "--stop");
  CHECK(flags.sampling.stop == std::vector<std::string>{"a", "b"});
  flags.set("sampling.stop_token_ids", "1, 2", "--stop-token-ids");
  CHECK(flags.sampling.stop_token_ids == std::vector<TokenId>{1, 2});
  flags.set("sampling.stop_token_ids", "[]", "--stop-token-ids");
  CHECK(flags.sampling.stop_token_ids.empty());
  flags.set("sampling.logit_bias", "42 = -1.5", "--logit-bias");
  CHECK(flags.sampling.logit_bias.at(42) == -1.5f);
  flags.set("draft.length.schedule", "[1, 3], [4, 0]", "--draft-length-schedule");
  CHECK(flags.draft.length.schedule == std::vector<std::pair<int, int>>{{1, 3}, {4, 0}});
  flags.set("sampling.seed", "7", "--seed");
  CHECK(flags.sampling.seed == 7u);
  flags.set("sampling.seed", "random", "--seed");
  CHECK_FALSE(flags.sampling.seed.has_value());
  flags.set("sampling.ignore_eos", "on", "--ignore-eos");
  CHECK(flags.sampling.ignore_eos);
  flags.set("sampling.temperature", "1e-1", "--temperature");
  CHECK(flags.sampling.temperature == 0.1f);
}

TEST_CASE("the shipped specdec.toml is valid") {
  const Config config = Config::from_file(SPECDEC_SOURCE_DIR "/specdec.toml");
  CHECK_NOTHROW(config.validate());
  CHECK(std::filesystem::exists(config.draft.model));
  CHECK(config.target.model.starts_with(SPECDEC_SOURCE_DIR));
}
