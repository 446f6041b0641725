#pragma once

#include <filesystem>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "draft/draft_length.h"
#include "specdec/config.h"

namespace specdec {

/// (rows, seconds) of a pass, rows rising.
using CostPoints = std::vector<std::pair<int, double>>;

/// By the depth of its drafts, 0 among them: (sequences, seconds) of a turn of a device loop.
using TurnCosts = std::map<int, CostPoints>;

/// What an engine measures when lengths are adaptive.
struct MeasuredCosts {
  CostPoints verify = {};
  CostPoints draft = {};  // empty: there is no draft model
  ContextCost verify_context = {};
  ContextCost draft_context = {};
  double draft_cold = 0;  // seconds that a draft's first pass takes more, after the target's
  /// The target's first layers, without the head; empty: drafts do not go through them.
  CostPoints first_layers = {};
  ContextCost first_layers_context = {};
  /// (tokens, seconds) of running tokens again for a head that missed them; empty: none has to.
  CostPoints returns = {};
  TurnCosts turns = {};  // empty: there is no device loop
};

/// What measured costs depend on, as one line: the models' files, the device, threads, kernels and
/// types. `backend` and `num_threads` are what the configuration came to.
std::string cost_key(const Config& config, std::string_view backend, int num_threads);
/// ... and what the costs of a device loop's turns depend on beyond.
std::string turn_cost_key(const Config& config, std::string_view backend, int num_threads);

/// Costs that earlier engines measured, in a JSON file that processes share. It never gets in the
/// way: what cannot be read, does not make sense or is older than a month counts as not there, what
/// cannot be written is logged at debug level.
class CostCache {
 public:
  /// `where`: draft.length.cost_cache. "auto" is $XDG_CACHE_HOME/specdec/costs.json, or that under
  /// ~/.cache (XDG Base Directory Specification); "off" none.
  explicit CostCache(const std::string& where);

  /// What is known of `key`, or what `measure` finds, which is then kept.
  MeasuredCosts find_or_measure(const std::string& key,
                                const std::function<MeasuredCosts()>& measure) const;
  std::optional<MeasuredCosts> find(const std::string& key) const;
  /// Keeps the latest 64 keys. Replaces the file in one step.
  void store(const std::string& key, const MeasuredCosts& costs) const;

 private:
  std::filesystem::path path_;  // empty: no cache
};

}  // namespace specdec
