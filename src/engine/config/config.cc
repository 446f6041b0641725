#include "specdec/config.h"

#include <unistd.h>

#include <algorithm>
#include <fstream>
#include <limits>

#include "engine/config/config_keys.h"
#include "engine/config/config_reader.h"
#include "engine/config/config_text.h"
#include "specdec/error.h"

extern char** environ;  // POSIX

namespace specdec {
namespace {

constexpr std::size_t kMaxFileSize = 1 << 20;
constexpr std::string_view kEnvironmentPrefix = "SPECDEC_";
constexpr std::string_view kTestPrefix = "SPECDEC_TEST_";  // the test suite's own variables

[[noreturn]] void fail(const std::string& what) { throw Error(ErrorCode::invalid_config, what); }

std::string read_file(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  std::string text(kMaxFileSize + 1, '\0');
  if (!file || std::filesystem::is_directory(path))
    throw Error(ErrorCode::io,
                path.string() + ": cannot be opened; give the path of a specdec.toml");
  file.read(text.data(), static_cast<std::streamsize>(text.size()));
  if (file.bad()) throw Error(ErrorCode::io, path.string() + ": cannot be read");
  text.resize(static_cast<std::size_t>(file.gcount()));
  if (text.size() > kMaxFileSize)
    fail(path.string() + ": larger than 1 MiB; this is no configuration file");
  return text;
}

/// "target.model (specdec.toml:3)": a key and who set it.
std::string named(const Config& config, std::string_view key) {
  const auto origin = config.origins.find(key);
  return std::string(key) +
         (origin == config.origins.end() ? "" : " (set by " + origin->second + ")");
}

void check_ranges(const Config& config) {
  Config copy = config;  // fields are reached through a mutable Config
  for (const ConfigKey& key : config_keys()) {
    const std::string problem =
        std::visit([&](const auto* value) { return value_problem(key, *value); }, key.field(copy));
    if (!problem.empty())
      fail(named(config, key.name) + " " + problem + "; expected " + expectation(key));
  }
}

}  // namespace

Config Config::from_file(const std::filesystem::path& path) {
  Config config;
  read_toml(read_file(path), path.string(), path.parent_path(), config);
  return config;
}

Config Config::from_string(std::string_view toml, std::string_view name) {
  Config config;
  read_toml(toml, name, {}, config);
  return config;
}

void Config::set(std::string_view key, std::string_view value, std::string_view origin) {
  const ConfigKey* known = find_config_key(key);
  if (known == nullptr)
    fail(std::string(origin) + ": unknown key " + quote(key) + "; did you mean " +
         quote(nearest_config_name(key)) + "?");
  read_text(*known, value, origin, *this);
}

void Config::apply_environment() {
  for (char** entry = environ; entry != nullptr && *entry != nullptr; ++entry) {
    const std::string_view variable(*entry);
    if (!variable.starts_with(kEnvironmentPrefix) || variable.starts_with(kTestPrefix)) continue;
    const std::size_t equals = variable.find('=');
    if (equals == std::string_view::npos) continue;
    const std::string name(variable.substr(0, equals));
    const auto known = std::ranges::find_if(
        config_keys(), [&](const ConfigKey& key) { return environment_name(key.name) == name; });
    if (known == config_keys().end()) {
      std::string nearest;
      std::size_t best = std::numeric_limits<std::size_t>::max();
      for (const ConfigKey& key : config_keys()) {
        const std::size_t distance = edit_distance(name, environment_name(key.name));
        if (distance >= best) continue;
        best = distance;
        nearest = environment_name(key.name);
      }
      fail("environment: unknown variable " + quote(name) + "; did you mean " + quote(nearest) +
           "?");
    }
    read_text(*known, variable.substr(equals + 1), name, *this);
  }
}

void Config::validate() const {
  check_ranges(*this);
  const auto require = [](bool condition, const std::string& what) {
    if (!condition) fail(what);
  };
  require(!target.model.empty(),
          "target.model is not set; name a GGUF file or a Hugging Face folder under [target] in "
          "specdec.toml, or with --target");
  const auto drafts_with = [&](const std::string& name) {
    return ("+" + draft.method + "+").find("+" + name + "+") != std::string::npos;
  };
  require((!drafts_with("draft_model") && !drafts_with("eagle3") && !drafts_with("medusa")) ||
              !draft.model.empty(),
          named(*this, "draft.method") + " is \"" + draft.method +
              "\" and draft.model is not set; name the draft model under [draft], "
              "or take draft.method = \"ngram\", which needs none");
  require(!drafts_with("early_exit") || draft.early_exit.exit_layer > 0,
          named(*this, "draft.method") + " is \"" + draft.method +
              "\" and draft.early_exit.exit_layer is 0; say under [draft.early_exit] with how many "
              "of its first layers the target drafts");
  require(draft.early_exit.exit_layer == 0 || draft.model.empty(),
          named(*this, "draft.early_exit.exit_layer") + " is " +
              std::to_string(draft.early_exit.exit_layer) + " and " + named(*this, "draft.model") +
              " is set; an engine has one draft model: take one of them away");
  require(draft.vocabulary_list.empty() || !draft.model.empty(),
          named(*this, "draft.vocabulary_list") +
              " is set and draft.model is not: it cuts down a draft model's head");
  require(verify.method != "block" || draft.method.find('+') == std::string::npos,
          named(*this, "verify.method") + " is \"block\", which verifies chains, and " +
              named(*this, "draft.method") +
              " mixes drafters, which makes trees; take verify.method = \"coupled\"");
  require(verify.method != "block" || !drafts_with("lookahead"),
          named(*this, "verify.method") + " is \"block\", which verifies chains, and " +
              named(*this, "draft.method") +
              " is \"lookahead\", whose window is a tree; take verify.method = \"coupled\"");
  require(verify.method != "block" || draft.tree.topk == 1,
          named(*this, "verify.method") + " is \"block\", which verifies chains, and " +
              named(*this, "draft.tree.topk") + " is " + std::to_string(draft.tree.topk) +
              "; set draft.tree.topk = 1, or take verify.method = \"traversal\", which verifies "
              "trees");
  require(verify.method != "block" || draft.tree.choices.empty(),
          named(*this, "verify.method") + " is \"block\", which verifies chains, and " +
              named(*this, "draft.tree.choices") +
              " is a tree; leave it out, or take verify.method = \"traversal\"");
  require(draft.ngram.prompt_lookup_min <= draft.ngram.prompt_lookup_max,
          named(*this, "draft.ngram.prompt_lookup_min") + " is " +
              std::to_string(draft.ngram.prompt_lookup_min) + ", more than " +
              named(*this, "draft.ngram.prompt_lookup_max") + ", " +
              std::to_string(draft.ngram.prompt_lookup_max) + "; raise the maximum");
  require(scheduler.max_num_batched_tokens >= scheduler.max_num_seqs,
          named(*this, "scheduler.max_num_batched_tokens") + " is " +
              std::to_string(scheduler.max_num_batched_tokens) + ", less than " +
              named(*this, "scheduler.max_num_seqs") + ", " +
              std::to_string(scheduler.max_num_seqs) +
              ": each running sequence needs a row in each step; raise it or lower max_num_seqs");
  require(sampling.min_tokens <= sampling.max_tokens,
          named(*this, "sampling.min_tokens") + " is " + std::to_string(sampling.min_tokens) +
              ", more than " + named(*this, "sampling.max_tokens") + ", " +
              std::to_string(sampling.max_tokens) + "; raise max_tokens");
}

std::string Config::to_toml() const {
  Config copy = *this;
  std::string text;
  std::string_view section;
  for (const ConfigKey& key : config_keys()) {
    if (key.section() != section) {
      section = key.section();
      text += text.empty() ? "[" : "\n[";
      text += section;
      text += "]\n";
    }
    const auto origin = origins.find(key.name);
    std::string from("default");
    if (origin != origins.end()) from = origin->second;
    // A comment ends with its line and holds no control characters.
    std::ranges::replace_if(
        from, [](char c) { return static_cast<unsigned char>(c) < 0x20 || c == 0x7f; }, '?');
    if (!is_valid_utf8(from)) from.clear();
    text += std::string(key.leaf()) + " = " + toml_text(key.field(copy)) + "  # " + from + "\n";
  }
  return text;
}

std::vector<std::string> Config::keys() {
  std::vector<std::string> names;
  for (const ConfigKey& key : config_keys()) names.emplace_back(key.name);
  return names;
}

std::string_view Config::describe(std::string_view key) {
  const ConfigKey* known = find_config_key(key);
  return known == nullptr ? std::string_view() : known->doc;
}

bool Config::operator==(const Config& other) const {
  return target == other.target && draft == other.draft && verify == other.verify &&
         kv_cache == other.kv_cache && scheduler == other.scheduler && backend == other.backend &&
         grammar == other.grammar && log == other.log && sampling == other.sampling;
}

}  // namespace specdec
