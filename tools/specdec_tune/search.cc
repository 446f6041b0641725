#include "tools/specdec_tune/search.h"

#include <algorithm>
#include <chrono>
#include <cmath>

#include "specdec/engine.h"
#include "tools/specdec_bench/runner.h"

namespace specdec::tune {
namespace {

using SteadyClock = std::chrono::steady_clock;
using bench::Prompt;
using bench::Run;

constexpr double kKeep = 1.0 / 3;  // of the settings, from round to round
constexpr std::size_t kFinalists = 3;
constexpr std::size_t kFewest = 2;  // prompts of a round

double ratio(double numerator, double denominator) noexcept {
  return denominator > 0 ? numerator / denominator : 0;
}

/// The prompts in an order whose every beginning is spread over the file: by the multiples of the
/// golden ratio.
std::vector<Prompt> scattered(const std::vector<Prompt>& prompts) {
  std::vector<std::pair<double, std::size_t>> order;
  for (std::size_t i = 0; i < prompts.size(); ++i) {
    const double multiple = 0.6180339887498949 * static_cast<double>(i);
    order.emplace_back(multiple - std::floor(multiple), i);
  }
  std::ranges::sort(order);
  std::vector<Prompt> result;
  for (const auto& [key, index] : order) result.push_back(prompts[index]);
  return result;
}

/// A search in progress.
class Search {
 public:
  Search(const Config& config, const std::vector<std::string>& models,
         const std::vector<Prompt>& prompts, const SearchOptions& options)
      : config_(config), prompts_(scattered(prompts)), options_(options) {
    if (!config_.sampling.seed) config_.sampling.seed = 1;
    result_.costs.resize(std::max<std::size_t>(1, models.size()));
    models_ = models.empty() ? std::vector<std::string>{""} : models;
    std::vector<Setting> settings;
    for (const std::string& model : models_)
      for (const int layer : exit_layers(model.empty() ? config_.draft.early_exit.exit_layer : 0))
        for (Setting& setting : settings_of(model, layer)) {
          // What copies text does so whatever model is loaded.
          if (settings.empty() || settings.front().shares_drafter(setting) ||
              drafts_with_model(setting.method))
            settings.push_back(std::move(setting));
        }
    for (Setting& setting : settings) {
      Trial trial{.setting = std::move(setting)};
      for (const int batch : options_.batches) trial.batches.push_back({.batch = batch});
      result_.trials.push_back(std::move(trial));
    }
  }

  SearchResult halve() {
    std::vector<std::size_t> alive = all();
    int rounds = 1;
    for (std::size_t left = alive.size(); left > kFinalists; left = kept(left)) ++rounds;
    for (int round = 0; round < rounds && !result_.stopped; ++round) {
      if (round > 0) {
        sort(alive);
        alive.resize(kept(alive.size()));
      }
      const double until = share_of_budget(round + 1, rounds);
      run_round(alive, round, until);
    }
    return finish();
  }

  SearchResult grid() {
    run_round(all(), 0, share_of_budget(1, 1));
    return finish();
  }

 private:
  std::vector<Setting> settings_of(const std::string& model, int exit_layer) const {
    const int asked_for = config_.draft.early_exit.exit_layer;
    std::vector<std::string> methods;
    try {
      const Setting setting{.draft_model = model, .exit_layer = exit_layer};
      methods = Engine::load(setting.applied_to(config_)).draft_methods();
    } catch (const Error&) {
      // Another layer than the configured one may be one that the target does not have.
      if (exit_layer == 0 || exit_layer == asked_for) throw;
      return {};
    }
    std::vector<Setting> settings = search_space(methods, model, config_.sampling.temperature > 0);
    for (Setting& setting : settings) setting.exit_layer = exit_layer;
    // Other layers are compared by chains: trees and mixtures that gain do so at any of them.
    if (exit_layer != asked_for && exit_layer > 0)
      std::erase_if(settings, [](const Setting& setting) {
        return setting.method != "early_exit" || setting.topk > 1 || setting.verify != "coupled";
      });
    return settings;
  }

  static std::size_t kept(std::size_t count) {
    return std::max(kFinalists,
                    static_cast<std::size_t>(std::ceil(kKeep * static_cast<double>(count))));
  }
  std::vector<std::size_t> all() const {
    std::vector<std::size_t> indices(result_.trials.size());
    for (std::size_t i = 0; i < indices.size(); ++i) indices[i] = i;
    return indices;
  }
  void sort(std::vector<std::size_t>& trials) const {
    std::ranges::stable_sort(trials, [&](std::size_t a, std::size_t b) {
      return result_.trials[a].speedup() > result_.trials[b].speedup();
    });
  }
  double spent() const {
    return std::chrono::duration<double>(SteadyClock::now() - start_).count() /
           (60 * options_.minutes);
  }
  static double share_of_budget(int round, int rounds) {
    return static_cast<double>(round) / static_cast<double>(rounds);
  }

  /// Gives every setting of `alive` the next prompts, a few at a time until the round's share of
  /// the time is spent: all of them have the same prompts when it ends.
  void run_round(const std::vector<std::size_t>& alive, int round, double until) {
    const auto most_batch = static_cast<std::size_t>(*std::ranges::max_element(options_.batches));
    std::size_t portion = std::max(kFewest, most_batch);
    bool first = true;
    while (!result_.stopped && (first || spent() < until)) {
      if (next_prompt_ >= prompts_.size()) {
        result_.ran_out = true;
        if (!first) return;
        next_prompt_ = 0;  // rather again than not at all
      }
      const std::size_t count = std::min(portion, prompts_.size() - next_prompt_);
      const double before = spent();
      const std::vector<Prompt> some(
          prompts_.begin() + static_cast<std::ptrdiff_t>(next_prompt_),
          prompts_.begin() + static_cast<std::ptrdiff_t>(next_prompt_ + count));
      run_portion(
          alive, some,
          "round " + std::to_string(round + 1) + ": " + std::to_string(alive.size()) + " settings");
      next_prompt_ += count;
      first = false;
      // What is left of the round, at once: loading engines costs too.
      const double took = spent() - before;
      const double more = took > 0 ? (until - spent()) / took : 0;
      if (more < 0.7) break;  // it would run over by more than it would leave
      portion = std::max(most_batch, static_cast<std::size_t>(more * static_cast<double>(count)));
    }
    for (const std::size_t index : alive) result_.trials[index].rounds = round + 1;
  }

  void run_portion(const std::vector<std::size_t>& alive, const std::vector<Prompt>& prompts,
                   const std::string& what) {
    std::vector<bool> done(result_.trials.size());
    for (const std::size_t index : alive) {
      if (done[index] || result_.stopped) continue;
      std::vector<std::size_t> group;
      for (const std::size_t other : alive)
        if (!done[other] &&
            result_.trials[index].setting.shares_engine(result_.trials[other].setting))
          group.push_back(other);
      for (const std::size_t member : group) done[member] = true;
      run_group(group, prompts, what);
    }
  }

  void run_group(const std::vector<std::size_t>& group, const std::vector<Prompt>& prompts,
                 const std::string& what) {
    const Setting& setting = result_.trials[group.front()].setting;
    Setting own = setting;
    own.method = "none";
    Engine engine = Engine::load(own.applied_to(config_));
    take_costs(engine, setting.draft_model);
    bench::Plan plan;
    plan.methods = {"none"};
    plan.lengths = {1};
    for (const std::size_t index : group) {
      plan.methods.push_back(result_.trials[index].setting.method);
      plan.lengths.push_back(result_.trials[index].setting.length);
    }
    plan.sampling = config_.sampling;
    bench::Plan warm_up = plan;
    warm_up.salt = "warm-up";
    warm_up.sampling.max_tokens = 8;
    bench::run_all(engine, {{"warm-up", {"Hello!"}}}, warm_up, [](std::size_t) { return false; });
    for (std::size_t at = 0; at < options_.batches.size(); ++at) {
      plan.batch = options_.batches[at];
      plan.salt = "batch-" + std::to_string(plan.batch);
      auto runs = bench::run_all(engine, prompts, plan, [&](std::size_t) {
        return options_.progress && options_.progress(spent(), what);
      });
      std::size_t whole = runs.front().size();
      for (const std::vector<Run>& method : runs) whole = std::min(whole, method.size());
      for (std::vector<Run>& method : runs) method.resize(whole);
      for (std::size_t i = 0; i < group.size(); ++i)
        add(result_.trials[group[i]], at, runs[i + 1], runs.front());
      if (whole == prompts.size()) continue;
      result_.stopped = true;
      return;
    }
    for (const std::size_t index : group) result_.trials[index].num_prompts += prompts.size();
    if (options_.progress && options_.progress(spent(), what)) result_.stopped = true;
  }

  static void add(Trial& trial, std::size_t at, const std::vector<Run>& runs,
                  const std::vector<Run>& plain) {
    Trial::AtBatch& here = trial.batches[at];
    for (std::size_t i = 0; i < runs.size(); ++i) {
      const Run& run = runs[i];
      here.seconds += run.total_time;
      here.plain_seconds += plain[i].total_time;
      here.tokens += static_cast<std::int64_t>(run.tokens.size());
      here.plain_tokens += static_cast<std::int64_t>(plain[i].tokens.size());
      ++trial.num_answers;
      trial.num_identical += run.tokens == plain[i].tokens ? 1 : 0;
      trial.steps += run.num_spec_steps;
      trial.step_tokens += run.num_step_tokens;
      trial.drafts += run.num_drafts;
      if (trial.accepted_at_depth.size() < run.accepted_at_depth.size())
        trial.accepted_at_depth.resize(run.accepted_at_depth.size());
      for (std::size_t depth = 0; depth < run.accepted_at_depth.size(); ++depth)
        trial.accepted_at_depth[depth] += run.accepted_at_depth[depth];
    }
  }

  void take_costs(const Engine& engine, const std::string& model) {
    const EngineStats stats = engine.stats();
    if (stats.verify_costs.empty()) return;
    const auto found = std::ranges::find(models_, model);
    Costs& costs = result_.costs[static_cast<std::size_t>(found - models_.begin())];
    costs = {.verify = stats.verify_costs, .draft = stats.draft_costs};
  }

  SearchResult finish() {
    std::erase_if(result_.trials, [](const Trial& trial) { return trial.num_answers == 0; });
    std::ranges::stable_sort(result_.trials, [](const Trial& a, const Trial& b) {
      return a.rounds != b.rounds ? a.rounds > b.rounds : a.speedup() > b.speedup();
    });
    return std::move(result_);
  }

  Config config_;
  std::vector<std::string> models_;
  std::vector<Prompt> prompts_;
  const SearchOptions& options_;
  SteadyClock::time_point start_ = SteadyClock::now();
  std::size_t next_prompt_ = 0;
  SearchResult result_;
};

}  // namespace

double Trial::AtBatch::speedup() const noexcept {
  // Under rules that draw other tokens an answer may be longer: rates, not times.
  return ratio(ratio(static_cast<double>(tokens), seconds),
               ratio(static_cast<double>(plain_tokens), plain_seconds));
}

double Trial::speedup() const {
  double log_sum = 0;
  for (const AtBatch& at : batches) {
    if (at.speedup() <= 0) return 0;
    log_sum += std::log(at.speedup());
  }
  return batches.empty() ? 0 : std::exp(log_sum / static_cast<double>(batches.size()));
}

double Trial::tokens_per_step() const noexcept {
  return ratio(static_cast<double>(step_tokens), static_cast<double>(steps));
}

const Trial* SearchResult::best() const {
  return !trials.empty() && trials.front().speedup() > 1 ? &trials.front() : nullptr;
}

SearchResult search(const Config& config, const std::vector<std::string>& models,
                    const std::vector<Prompt>& prompts, const SearchOptions& options) {
  return Search(config, models, prompts, options).halve();
}

SearchResult full_grid(const Config& config, const std::vector<std::string>& models,
                       const std::vector<Prompt>& prompts, const SearchOptions& options) {
  return Search(config, models, prompts, options).grid();
}

}  // namespace specdec::tune
