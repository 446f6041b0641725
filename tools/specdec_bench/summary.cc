#include "tools/specdec_bench/summary.h"

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>

namespace specdec::bench {
namespace {

double ratio(double numerator, double denominator) noexcept {
  return denominator > 0 ? numerator / denominator : 0.0;
}

struct Totals {
  double total_time = 0;
  double decode_time = 0;
  std::int64_t tokens = 0;
  std::int64_t decode_tokens = 0;

  void add(const Run& run) {
    total_time += run.total_time;
    decode_time += run.decode_time;
    tokens += static_cast<std::int64_t>(run.tokens.size());
    decode_tokens += run.decode_tokens;
  }
  double rate() const noexcept { return ratio(static_cast<double>(tokens), total_time); }
  double decode_rate() const noexcept {
    return ratio(static_cast<double>(decode_tokens), decode_time);
  }
};

}  // namespace

double quantile(std::vector<double> values, double fraction) {
  if (values.empty()) return 0;
  std::sort(values.begin(), values.end());
  const double position = fraction * static_cast<double>(values.size() - 1);
  const auto below = static_cast<std::size_t>(position);
  const std::size_t above = std::min(below + 1, values.size() - 1);
  return values[below] + (values[above] - values[below]) * (position - static_cast<double>(below));
}

Summary summarise(const std::vector<Run>& runs, const std::vector<Run>* baseline,
                  const std::string& category) {
  Summary summary;
  summary.has_baseline = baseline != nullptr;
  Totals own;
  Totals plain;
  std::int64_t steps = 0;
  std::int64_t step_tokens = 0;
  std::int64_t drafted = 0;
  std::int64_t accepted = 0;
  double grammar_time = 0;
  std::vector<double> first_token_times;
  std::vector<double> ratios;
  for (std::size_t i = 0; i < runs.size(); ++i) {
    const Run& run = runs[i];
    if (!category.empty() && run.category != category) continue;
    ++summary.num_prompts;
    own.add(run);
    steps += run.num_spec_steps;
    step_tokens += run.num_step_tokens;
    drafted += run.num_draft_tokens;
    accepted += run.num_accepted_tokens;
    grammar_time += run.grammar_time;
    first_token_times.push_back(run.time_to_first_token);
    if (baseline == nullptr) continue;
    const Run& other = (*baseline)[i];
    plain.add(other);
    if (run.tokens == other.tokens) ++summary.num_identical;
    if (run.total_time > 0) ratios.push_back(other.total_time / run.total_time);
  }
  summary.num_tokens = own.tokens;
  summary.tok_per_s = own.rate();
  summary.decode_tok_per_s = own.decode_rate();
  summary.mean_acceptance_length =
      ratio(static_cast<double>(step_tokens), static_cast<double>(steps));
  summary.draft_acceptance_rate =
      ratio(static_cast<double>(accepted), static_cast<double>(drafted));
  summary.grammar_share = ratio(grammar_time, own.total_time);
  summary.ttft_median = quantile(first_token_times, 0.5);
  summary.ratio_to_none = ratio(own.rate(), plain.rate());
  summary.decode_ratio_to_none = ratio(own.decode_rate(), plain.decode_rate());
  for (int i = 0; i < 3; ++i) summary.ratio_quartiles[i] = quantile(ratios, 0.25 * (i + 1));
  return summary;
}

nlohmann::ordered_json to_json(const Summary& summary) {
  nlohmann::ordered_json object = {
      {"num_prompts", summary.num_prompts},
      {"num_tokens", summary.num_tokens},
      {"tok_per_s", summary.tok_per_s},
      {"decode_tok_per_s", summary.decode_tok_per_s},
      {"ratio_to_none", nullptr},
      {"decode_ratio_to_none", nullptr},
      {"ratio_quartiles", nullptr},
      {"mean_acceptance_length", summary.mean_acceptance_length},
      {"draft_acceptance_rate", summary.draft_acceptance_rate},
      {"ttft", summary.ttft_median},
      {"grammar_share", summary.grammar_share},
      {"identical", nullptr},
      {"num_identical", nullptr},
  };
  if (!summary.has_baseline) return object;
  object["ratio_to_none"] = summary.ratio_to_none;
  object["decode_ratio_to_none"] = summary.decode_ratio_to_none;
  object["ratio_quartiles"] = summary.ratio_quartiles;
  object["identical"] = summary.identical();
  object["num_identical"] = summary.num_identical;
  return object;
}

}  // namespace specdec::bench
