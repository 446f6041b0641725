#pragma once

#include <cstdint>
#include <map>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include "specdec/types.h"

namespace specdec::bench {

/// One prompt under one method, all its turns together. Times in seconds.
struct Run {
  std::string category;
  std::vector<TokenId> tokens;
  double total_time = 0;           ///< submit to last token; of a batch: its wall time / its size
  double decode_time = 0;          ///< of the tokens after each turn's first
  std::int64_t decode_tokens = 0;  ///< that this time covers
  double time_to_first_token = 0;  ///< of the first turn
  double grammar_time = 0;         ///< beside the model's passes; of a batch: its share
  std::int64_t num_spec_steps = 0;
  std::int64_t num_step_tokens = 0;  ///< tokens that those steps emitted
  std::int64_t num_draft_tokens = 0;
  std::int64_t num_accepted_tokens = 0;
  std::int64_t num_drafts = 0;                  ///< steps that verified any
  std::vector<std::int64_t> accepted_at_depth;  ///< [depth - 1]: of those drafts
};

/// The runs of one method over some prompts, beside the same prompts under `none`.
struct Summary {
  std::size_t num_prompts = 0;
  std::int64_t num_tokens = 0;
  double tok_per_s = 0;         ///< output tokens over total time
  double decode_tok_per_s = 0;  ///< tokens after the first over the time after the first
  double mean_acceptance_length = 0;
  double draft_acceptance_rate = 0;
  double ttft_median = 0;
  double grammar_share = 0;   ///< of the total time: forced text, pruning, masks
  bool has_baseline = false;  ///< what follows needs `none` among the methods
  double ratio_to_none = 0;   ///< of tok_per_s
  double decode_ratio_to_none = 0;
  double ratio_quartiles[3] = {0, 0, 0};  ///< over prompts, of total times
  std::size_t num_identical = 0;          ///< prompts with the same tokens as under `none`
  bool identical() const noexcept { return num_identical == num_prompts; }
};

/// `runs` and `baseline` hold the same prompts in the same order; `baseline` is null when `none`
/// was not run. `category`: only these prompts; empty for all.
Summary summarise(const std::vector<Run>& runs, const std::vector<Run>* baseline,
                  const std::string& category);

/// Linear interpolation between order statistics; `values` need no order. 0 when empty.
double quantile(std::vector<double> values, double fraction);

/// The fields of a summary; ratios and identical are null without a baseline.
nlohmann::ordered_json to_json(const Summary& summary);

}  // namespace specdec::bench
