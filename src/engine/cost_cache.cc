#include "engine/cost_cache.h"

#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <fstream>
#include <limits>
#include <nlohmann/json.hpp>

#include "engine/log.h"
#include "specdec/version.h"

namespace specdec {

namespace {

namespace fs = std::filesystem;
using nlohmann::json;

constexpr std::size_t kMostKeys = 64;
constexpr std::int64_t kOldest = 30 * 24 * 3600;    // seconds
constexpr std::uintmax_t kLargestFile = 4U << 20U;  // bytes
constexpr double kLongestPass = 100;                // seconds

std::int64_t now() {
  return std::chrono::duration_cast<std::chrono::seconds>(
             std::chrono::system_clock::now().time_since_epoch())
      .count();
}

fs::path cache_path(const std::string& where) {
  if (where == "off") return {};
  if (where != "auto") return where;
  const char* base = std::getenv("XDG_CACHE_HOME");
  if (base != nullptr && *base == '/') return fs::path(base) / "specdec" / "costs.json";
  const char* home = std::getenv("HOME");
  if (home != nullptr && *home == '/') return fs::path(home) / ".cache" / "specdec" / "costs.json";
  return {};
}

/// A file by name, size and time; a folder by those of its files.
std::string identity(const std::string& path) {
  if (path.empty()) return "none";
  std::error_code error;
  std::uintmax_t bytes = 0;
  auto latest = std::numeric_limits<fs::file_time_type::rep>::min();  // times may be negative
  const auto add = [&](const fs::path& file) {
    const std::uintmax_t size = fs::file_size(file, error);
    if (!error) bytes += size;
    const auto time = fs::last_write_time(file, error);
    if (!error) latest = std::max(latest, time.time_since_epoch().count());
  };
  if (fs::is_directory(path, error))
    for (fs::directory_iterator it(path, error), end; !error && it != end; it.increment(error))
      add(it->path());
  else
    add(path);
  const fs::path whole = fs::weakly_canonical(path, error);
  return (error ? path : whole.string()) + ":" + std::to_string(bytes) + ":" +
         std::to_string(latest);
}

std::string cpu_model() {
  std::ifstream input("/proc/cpuinfo");
  for (std::string line; std::getline(input, line);)
    if (line.starts_with("model name")) return line.substr(std::min(line.find(':'), line.size()));
  return "cpu";
}

/// The points of a curve; nothing when the JSON holds none that make sense.
std::optional<CostPoints> read_points(const json& list) {
  CostPoints points;
  if (!list.is_array()) return std::nullopt;
  for (const json& point : list) {
    if (!point.is_array() || point.size() != 2 || !point[0].is_number_integer() ||
        !point[1].is_number())
      return std::nullopt;
    const auto rows = point[0].get<std::int64_t>();
    const auto seconds = point[1].get<double>();
    const int before = points.empty() ? 0 : points.back().first;
    if (rows <= before || rows > 4096 || !(seconds > 0 && seconds < kLongestPass))
      return std::nullopt;
    points.emplace_back(static_cast<int>(rows), seconds);
  }
  return points;
}

/// A device loop's turns; nothing where they make no sense.
std::optional<TurnCosts> read_turns(const json& entry) {
  TurnCosts turns;
  const auto list = entry.find("turns");
  if (list == entry.end()) return turns;
  if (!list->is_array()) return std::nullopt;
  for (const json& of_depth : *list) {
    if (!of_depth.is_array() || of_depth.size() != 2 || !of_depth[0].is_number_integer())
      return std::nullopt;
    const auto depth = of_depth[0].get<std::int64_t>();
    std::optional<CostPoints> points = read_points(of_depth[1]);
    if (depth < 0 || depth > 4096 || !points || points->empty()) return std::nullopt;
    turns[static_cast<int>(depth)] = std::move(*points);
  }
  return turns;
}

bool is_seconds(const json& number) {
  return number.is_number() && number.get<double>() >= 0 && number.get<double>() < kLongestPass;
}

/// [context, seconds a token, seconds a token and row]
std::optional<ContextCost> read_context(const json& list) {
  if (!list.is_array() || list.size() != 3 || !list[0].is_number_unsigned() ||
      list[0].get<std::uint64_t>() > std::numeric_limits<int>::max() || !is_seconds(list[1]) ||
      !is_seconds(list[2]))
    return std::nullopt;
  return ContextCost{.context = list[0].get<int>(),
                     .per_token = list[1].get<double>(),
                     .per_row_token = list[2].get<double>()};
}

json to_json(const ContextCost& cost) { return {cost.context, cost.per_token, cost.per_row_token}; }

/// The file's object of keys; an empty one when it is none of ours.
json read_file(const fs::path& path) {
  std::error_code error;
  if (!fs::exists(path, error)) return json::object();
  if (const auto size = fs::file_size(path, error); !error && size <= kLargestFile) {
    std::ifstream file(path, std::ios::binary);
    json document = json::parse(file, nullptr, /*allow_exceptions=*/false);
    if (document.is_object()) return document;
  }
  log_info("{} is no cost cache: it is ignored", path.string());
  return json::object();
}

std::int64_t time_of(const json& entry) {
  if (!entry.is_object()) return 0;
  const auto time = entry.find("time");
  return time != entry.end() && time->is_number_integer() ? time->get<std::int64_t>() : 0;
}

}  // namespace

std::string cost_key(const Config& config, std::string_view backend, int num_threads) {
  const bool cuda = backend.substr(0, 4) == "cuda";
  const bool graphs = config.backend.step_graphs && cuda;
  const std::string& float32 = config.backend.float32_weights;
  std::string key =
      "specdec " SPECDEC_VERSION "; target " + identity(config.target.model) + "; draft " +
      identity(config.draft.model) + " " + config.draft.weight_type + " " +
      identity(config.draft.vocabulary_list) + " " +
      std::to_string(config.draft.early_exit.exit_layer) + "; " + std::string(backend) + " " +
      config.backend.isa + " x" + std::to_string(num_threads) + (graphs ? " graphs" : "") +
      (cuda && float32 != "f16" ? " " + float32 : "") +
      (cuda ? " f16 to " + std::to_string(config.backend.dequantise_mb) : "") + "; kv " +
      config.kv_cache.type + " " + std::to_string(config.kv_cache.block_size) + "; " + cpu_model();
  std::erase_if(key, [](char c) { return static_cast<unsigned char>(c) >= 0x80; });
  return key;
}

std::string turn_cost_key(const Config& config, std::string_view backend, int num_threads) {
  const DraftConfig& draft = config.draft;
  return cost_key(config, backend, num_threads) + "; loop " + draft.method + " " +
         std::to_string(draft.length.num_speculative_tokens) + " " +
         std::to_string(draft.tree.topk) + " " + std::to_string(draft.tree.num_draft_tokens) +
         " x" + std::to_string(config.scheduler.max_num_seqs);
}

CostCache::CostCache(const std::string& where) : path_(cache_path(where)) {}

std::optional<MeasuredCosts> CostCache::find(const std::string& key) const {
  if (path_.empty()) return std::nullopt;
  const json document = read_file(path_);
  const auto entry = document.find(key);
  if (entry == document.end()) return std::nullopt;
  const std::int64_t age = now() - time_of(*entry);
  for (const char* field : {"verify", "draft", "verify_context", "draft_context", "draft_cold",
                            "first_layers", "first_layers_context", "returns"})
    if (!entry->contains(field)) return std::nullopt;
  if (age < 0 || age > kOldest) return std::nullopt;
  auto verify = read_points((*entry)["verify"]);
  auto draft = read_points((*entry)["draft"]);
  auto turns = read_turns(*entry);
  const auto verify_context = read_context((*entry)["verify_context"]);
  const auto draft_context = read_context((*entry)["draft_context"]);
  auto first_layers = read_points((*entry)["first_layers"]);
  const auto first_layers_context = read_context((*entry)["first_layers_context"]);
  auto returns = read_points((*entry)["returns"]);
  const json& cold = (*entry)["draft_cold"];
  if (!verify || !draft || !turns || (verify->empty() && turns->empty()) || !verify_context ||
      !draft_context || !first_layers || !first_layers_context || !returns || !is_seconds(cold)) {
    log_info("{}: what it says about this engine makes no sense and is ignored", path_.string());
    return std::nullopt;
  }
  return MeasuredCosts{.verify = std::move(*verify),
                       .draft = std::move(*draft),
                       .verify_context = *verify_context,
                       .draft_context = *draft_context,
                       .draft_cold = cold.get<double>(),
                       .first_layers = std::move(*first_layers),
                       .first_layers_context = *first_layers_context,
                       .returns = std::move(*returns),
                       .turns = std::move(*turns)};
}

MeasuredCosts CostCache::find_or_measure(const std::string& key,
                                         const std::function<MeasuredCosts()>& measure) const {
  if (std::optional<MeasuredCosts> known = find(key)) return *std::move(known);
  MeasuredCosts costs = measure();
  store(key, costs);
  return costs;
}

void CostCache::store(const std::string& key, const MeasuredCosts& costs) const {
  if (path_.empty()) return;
  json document = read_file(path_);
  document[key] = {{"time", now()},
                   {"verify", costs.verify},
                   {"draft", costs.draft},
                   {"verify_context", to_json(costs.verify_context)},
                   {"draft_context", to_json(costs.draft_context)},
                   {"draft_cold", costs.draft_cold},
                   {"first_layers", costs.first_layers},
                   {"first_layers_context", to_json(costs.first_layers_context)},
                   {"returns", costs.returns}};
  if (!costs.turns.empty()) document[key]["turns"] = costs.turns;
  while (document.size() > kMostKeys) {
    auto oldest = document.begin();
    for (auto it = document.begin(); it != document.end(); ++it)
      if (time_of(*it) < time_of(*oldest)) oldest = it;
    document.erase(oldest);
  }
  std::error_code error;
  fs::create_directories(path_.parent_path(), error);
  const fs::path part = path_.string() + "." + std::to_string(getpid()) + ".part";
  std::ofstream file(part, std::ios::binary | std::ios::trunc);
  file << document.dump(1, ' ', false, json::error_handler_t::replace) << '\n';
  file.close();
  error.clear();
  if (file) fs::rename(part, path_, error);
  if (file && !error) return;
  log_debug("costs cannot be kept in {}", path_.string());
  fs::remove(part, error);
}

}  // namespace specdec
