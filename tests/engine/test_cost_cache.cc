#include <doctest/doctest.h>

#include <unistd.h>

#include <chrono>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <string>

#include "engine/cost_cache.h"
#include "engine/micro_models.h"
#include "specdec/engine.h"
#include "support/engine_runs.h"

// Costs kept between starts: what is in the file comes back, and whatever else is in it does no
// harm.

using namespace specdec;
namespace fs = std::filesystem;

namespace {

class Folder {
 public:
  Folder() : path_(fs::temp_directory_path() / ("specdec-costs-" + std::to_string(getpid()))) {
    fs::remove_all(path_);
    fs::create_directory(path_);
  }
  ~Folder() {
    fs::permissions(path_, fs::perms::owner_all);
    fs::remove_all(path_);
  }
  std::string operator/(const char* name) const { return (path_ / name).string(); }

 private:
  fs::path path_;
};

const MeasuredCosts kCosts = {
    .verify = {{1, 0.003}, {8, 0.005}},
    .draft = {{1, 0.0003}},
    .verify_context = {.context = 128, .per_token = 4e-7, .per_row_token = 3e-7},
    .draft_context = {.context = 64, .per_token = 1e-8, .per_row_token = 0},
    .draft_cold = 1e-4,
    .first_layers = {{1, 0.001}, {8, 0.002}},
    .first_layers_context = {.context = 128, .per_token = 1e-7, .per_row_token = 2e-7},
    .returns = {{1, 0.003}, {64, 0.04}}};

void write(const std::string& path, const std::string& text) {
  std::ofstream(path, std::ios::binary) << text;
}

}  // namespace

TEST_CASE("costs come back under their key and no other") {
  const Folder folder;
  const CostCache cache(folder / "deep/er/costs.json");
  CHECK_FALSE(cache.find("a"));
  cache.store("a", kCosts);
  MeasuredCosts without_draft = kCosts;
  without_draft.draft.clear();
  cache.store("b", without_draft);
  const auto found = CostCache(folder / "deep/er/costs.json").find("a");
  REQUIRE(found);
  CHECK(found->verify == kCosts.verify);
  CHECK(found->draft == kCosts.draft);
  CHECK(found->verify_context == kCosts.verify_context);
  CHECK(found->draft_context == kCosts.draft_context);
  CHECK(found->draft_cold == kCosts.draft_cold);
  CHECK(found->first_layers == kCosts.first_layers);
  CHECK(found->first_layers_context == kCosts.first_layers_context);
  CHECK(found->returns == kCosts.returns);
  REQUIRE(cache.find("b"));
  CHECK(cache.find("b")->draft.empty());
  CHECK_FALSE(cache.find("c"));
  // Nothing but the file is left.
  CHECK(std::distance(fs::directory_iterator(fs::path(folder / "deep/er")), {}) == 1);
}

TEST_CASE("costs of turns are kept under their depths, and measured where they are not known") {
  const Folder folder;
  const CostCache cache(folder / "costs.json");
  const TurnCosts turns = {{0, {{1, 0.001}, {32, 0.002}}}, {4, {{1, 0.003}}}};
  int measured = 0;
  const auto measure = [&] {
    ++measured;
    return MeasuredCosts{.turns = turns};
  };
  CHECK(cache.find_or_measure("a", measure).turns == turns);
  CHECK(cache.find_or_measure("a", measure).turns == turns);
  CHECK(measured == 1);
  REQUIRE(cache.find("a"));
  CHECK(cache.find("a")->verify.empty());
}

TEST_CASE("a file that is no cache is ignored, and replaced when costs are kept") {
  const Folder folder;
  const std::string path = folder / "costs.json";
  const CostCache cache(path);
  for (const char* text :
       {"", "{", "[]", "3", "\"a\"", "\xff\xfe\x00", "{\"a\": 3}", "{\"a\": []}", "{\"a\": {}}",
        "{\"a\": {\"time\": \"now\", \"verify\": [[1, 1]], \"draft\": []}}"}) {
    CAPTURE(text);
    write(path, text);
    CHECK_FALSE(cache.find("a"));
    cache.store("a", kCosts);
    CHECK(cache.find("a"));
  }
}

TEST_CASE("entries that make no sense or are old are ignored") {
  const Folder folder;
  const std::string path = folder / "costs.json";
  const CostCache cache(path);
  cache.store("a", kCosts);
  const auto good = [&] {
    std::ifstream file(path);
    return nlohmann::json::parse(file);
  }();
  const auto with = [&](const char* field, const nlohmann::json& value) {
    nlohmann::json document = good;
    document["a"][field] = value;
    write(path, document.dump());
    return cache.find("a").has_value();
  };
  CHECK(with("time", good["a"]["time"]));
  CHECK_FALSE(with("time", 0));
  CHECK_FALSE(with("time", good["a"]["time"].get<std::int64_t>() + 100000));  // of the future
  CHECK(with("turns", {{0, {{1, 1.0}}}}));
  for (const char* turns :
       {"3", "[3]", "[[0, []]]", "[[-1, [[1, 1.0]]]]", "[[0, [[2, 1], [1, 1]]]]"}) {
    CAPTURE(turns);
    CHECK_FALSE(with("turns", nlohmann::json::parse(turns)));
  }
  for (const char* points :
       {"[]", "3", "[[1]]", "[[1, \"x\"]]", "[[0, 1]]", "[[-1, 1]]", "[[2, 1], [1, 1]]",
        "[[1, 1], [1, 2]]", "[[1, 0]]", "[[1, -1]]", "[[1, 1e9]]", "[[1.5, 1]]",
        "[[99999999999, 1]]", "[[1, null]]", "{\"1\": 1}"}) {
    CAPTURE(points);
    CHECK_FALSE(with("verify", nlohmann::json::parse(points)));
    if (std::string(points) == "[]") continue;  // most drafts have no use for these
    CHECK_FALSE(with("first_layers", nlohmann::json::parse(points)));
    CHECK_FALSE(with("returns", nlohmann::json::parse(points)));
  }
  CHECK(with("verify_context", {0, 0.0, 1e-6}));
  for (const char* context :
       {"[]", "3", "null", "[1, 2]", "[-1, 0, 0]", "[1.5, 0, 0]", "[99999999999, 0, 0]",
        "[1, -1, 0]", "[1, 0, 1e9]", "[1, 0, \"x\"]"}) {
    CAPTURE(context);
    CHECK_FALSE(with("verify_context", nlohmann::json::parse(context)));
    CHECK_FALSE(with("draft_context", nlohmann::json::parse(context)));
    CHECK_FALSE(with("first_layers_context", nlohmann::json::parse(context)));
  }
  for (const char* cold : {"-1", "1e9", "[]", "null"})
    CHECK_FALSE(with("draft_cold", nlohmann::json::parse(cold)));
}

TEST_CASE("what cannot be written is not there, and that is all") {
  const Folder folder;
  write(folder / "file", "x");
  const CostCache cache(folder / "file/costs.json");
  cache.store("a", kCosts);
  CHECK_FALSE(cache.find("a"));
  const CostCache off("off");
  off.store("a", kCosts);
  CHECK_FALSE(off.find("a"));
  CHECK_FALSE(fs::exists("off"));
}

TEST_CASE("only the latest 64 keys stay") {
  const Folder folder;
  const CostCache cache(folder / "costs.json");
  for (int i = 0; i < 70; ++i) cache.store("key " + std::to_string(i), kCosts);
  std::ifstream file(folder / "costs.json");
  CHECK(nlohmann::json::parse(file).size() == 64);
  CHECK(cache.find("key 69"));
}

TEST_CASE("the key follows the model's file, the device and the threads") {
  const Folder folder;
  Config config;
  config.target.model = folder / "model.gguf";
  write(config.target.model, "abc");
  const std::string key = cost_key(config, "cpu", 2);
  CHECK(cost_key(config, "cpu", 2) == key);
  CHECK(cost_key(config, "cpu", 4) != key);
  CHECK(cost_key(config, "cuda", 2) != key);
  write(config.target.model, "abcd");
  const std::string longer = cost_key(config, "cpu", 2);
  CHECK(longer != key);
  fs::last_write_time(config.target.model,
                      fs::last_write_time(config.target.model) + std::chrono::hours(1));
  CHECK(cost_key(config, "cpu", 2) != longer);
  // Graphs make a GPU's passes quicker; a CPU has none.
  const std::string on_gpu = cost_key(config, "cuda: a GPU", 2);
  const std::string on_cpu = cost_key(config, "cpu", 2);
  config.backend.step_graphs = false;
  CHECK(cost_key(config, "cuda: a GPU", 2) != on_gpu);
  CHECK(cost_key(config, "cpu", 2) == on_cpu);
  // So do its weights of float32 as f16.
  config.backend.step_graphs = true;
  config.backend.float32_weights = "tf32";
  const std::string tf32 = cost_key(config, "cuda: a GPU", 2);
  CHECK(tf32 != on_gpu);
  CHECK(cost_key(config, "cpu", 2) == on_cpu);
  config.backend.float32_weights = "f32";
  CHECK(cost_key(config, "cuda: a GPU", 2) != on_gpu);
  CHECK(cost_key(config, "cuda: a GPU", 2) != tf32);
  config.backend.float32_weights = "f16";
  config.backend.dequantise_mb = 0;
  CHECK(cost_key(config, "cuda: a GPU", 2) != on_gpu);
  CHECK(cost_key(config, "cpu", 2) == on_cpu);
}

TEST_CASE("an adaptive engine takes costs from its cache, and measures where there are none") {
  const Folder folder;
  Config config = testing::micro_config();
  config.draft.length.mode = "adaptive";
  config.draft.length.cost_cache = folder / "costs.json";
  const EngineStats measured = Engine::load(config).stats();
  REQUIRE_FALSE(measured.verify_costs.empty());
  REQUIRE_FALSE(measured.draft_costs.empty());
  CHECK(Engine::load(config).stats().verify_costs == measured.verify_costs);

  nlohmann::json document;
  std::ifstream(config.draft.length.cost_cache) >> document;
  // A device's loop has an entry of its own.
  const std::size_t num_entries = testing::test_device() == "cuda" ? 2 : 1;
  REQUIRE(document.size() == num_entries);
  for (auto& [key, entry] : document.items())
    if (key.find("; loop") == std::string::npos) entry["verify"] = {{1, 7.0}, {2, 9.0}};
  write(config.draft.length.cost_cache, document.dump());
  CHECK(Engine::load(config).stats().verify_costs == CostPoints{{1, 7.0}, {2, 9.0}});

  write(config.draft.length.cost_cache, "no JSON");
  CHECK(Engine::load(config).stats().verify_costs.size() == measured.verify_costs.size());
  config.draft.length.mode = "fixed";
  CHECK(Engine::load(config).stats().verify_costs.empty());
}

TEST_CASE("where no draft could pay in a batch so wide, its requests go without a head") {
  const Folder folder;
  Config config = testing::micro_eagle_config();
  config.backend.device_loop = false;  // which has costs of its own
  config.draft.length.mode = "adaptive";
  config.draft.length.cost_cache = folder / "costs.json";
  Engine::load(config);
  nlohmann::json document;
  std::ifstream(config.draft.length.cost_cache) >> document;
  // Three rows beside the first cost nothing, each one after them what a token does.
  document.begin().value()["verify"] = {{1, 1.0}, {4, 1.0}, {64, 61.0}};
  document.begin().value()["draft"] = {{1, 0.01}, {64, 0.02}};
  write(config.draft.length.cost_cache, document.dump());

  std::vector<Request> requests(8);
  for (std::size_t i = 0; i < requests.size(); ++i) {
    for (int t = 0; t < 40; ++t) requests[i].prompt_tokens.push_back((13 * t + 5) % 250);
    requests[i].cache_salt = std::to_string(i);
    requests[i].sampling.temperature = 0;
    requests[i].sampling.max_tokens = 12;
    requests[i].sampling.ignore_eos = true;
  }
  // Greedy answers are the same, prepared for a head or not.
  Engine engine = Engine::load(config);
  const auto wide = testing::run_requests(engine, requests, 8);
  // (Prompts that end apart may leave one alone for a step.)
  CHECK(engine.stats().speculation.spec_decode_num_drafts <= 1);
  const auto narrow = testing::run_requests(engine, requests, 1);
  CHECK(engine.stats().speculation.spec_decode_num_drafts > 0);
  for (std::size_t i = 0; i < wide.size(); ++i) CHECK(testing::same_output(wide[i], narrow[i]));
}
