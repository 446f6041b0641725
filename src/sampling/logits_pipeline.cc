#include "sampling/logits_pipeline.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <string>

#include "kernels/sampling/gumbel.h"
#include "sampling/mutation.h"
#include "sampling/penalties.h"
#include "sampling/row_math.h"
#include "sampling/sampler.h"
#include "specdec/error.h"

namespace specdec {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();

[[noreturn]] void fail(ErrorCode code, const RowContext& context, const std::string& what) {
  throw Error(
      code, "cannot draw the token at position " + std::to_string(context.position) + ": " + what);
}

}  // namespace

float ProcessedRow::scale() const noexcept {
  constexpr double kMost = std::numeric_limits<float>::max();
  return static_cast<float>(std::min(inverse_temperature, kMost));
}

LogitsPipeline::LogitsPipeline(int vocab_size)
    : vocab_size_(vocab_size),
      chunk_max_(static_cast<std::size_t>(
          row_math::num_chunks(static_cast<std::size_t>(std::max(vocab_size, 0))))) {}

ProcessedRow LogitsPipeline::raw(std::span<const float> logits, const RowContext& context) {
  if (logits.size() != static_cast<std::size_t>(vocab_size_) || logits.empty()) {
    fail(ErrorCode::invalid_argument, context,
         "the row has " + std::to_string(logits.size()) + " logits, the vocabulary " +
             std::to_string(vocab_size_) + " tokens");
  }
  const row_math::RowScan scan = row_math::scan(logits, chunk_max_);
  if (scan.has_nan || scan.max == kInfinity) {
    fail(ErrorCode::invalid_model, context,
         "the model's logits hold NaN or +infinity; check the model file");
  }
  if (scan.max == -kInfinity) {
    fail(ErrorCode::invalid_model, context,
         "every logit of the model is -infinity; check the model file");
  }
  ProcessedRow row;
  row.scores = logits;
  row.chunk_max = chunk_max_;
  row.max = scan.max;
  return row;
}

ProcessedRow LogitsPipeline::process(std::span<const float> logits, const RowContext& context) {
  const SamplingOptions& options = *context.options;
  ProcessedRow row = raw(logits, context);
  if (has_edits(context)) {
    scores_.assign(logits.begin(), logits.end());
    apply_edits(context, scores_);
    const row_math::RowScan scan = row_math::scan(scores_, chunk_max_);
    if (scan.has_nan || scan.max == kInfinity) {
      fail(ErrorCode::invalid_argument, context,
           "logit_bias or a penalty makes a logit NaN or +infinity; use finite values");
    }
    if (scan.max == -kInfinity) {
      fail(ErrorCode::invalid_argument, context,
           context.allowed.empty()
               ? "logit_bias and min_tokens ban every token; leave at least one"
               : "no token is left by the grammar, logit_bias and min_tokens together");
    }
    row.scores = scores_;
    row.max = scan.max;
  }
  row.greedy = options.temperature <= 0;
  if (row.greedy) return row;
  row.inverse_temperature = 1.0 / static_cast<double>(options.temperature);
  apply_filters(context, logits, row);
  return row;
}

// Collects the tokens that reach `threshold`, ascending, skipping whole chunks that do not.
void LogitsPipeline::gather(const ProcessedRow& row, float threshold) {
  candidates_.clear();
  for (std::size_t chunk = 0; chunk < row.chunk_max.size(); ++chunk) {
    if (!(row.chunk_max[chunk] >= threshold)) continue;
    const std::size_t begin = chunk * row_math::kChunk;
    const std::size_t end = std::min(begin + row_math::kChunk, row.scores.size());
    for (std::size_t token = begin; token < end; ++token) {
      const float score = row.scores[token];
      if (score >= threshold) {
        candidates_.push_back({row_math::order_key(score), static_cast<TokenId>(token), 1});
      }
    }
  }
  gathered_ = true;
}

void LogitsPipeline::keep_top_k(const ProcessedRow& row, int top_k) {
  const auto k = static_cast<std::size_t>(top_k);
  float threshold = std::numeric_limits<float>::lowest();
  if (k <= row.chunk_max.size()) {
    // k chunks have a token that reaches the k-th best chunk maximum, so the k-th token does too.
    chunk_order_.assign(row.chunk_max.begin(), row.chunk_max.end());
    std::nth_element(chunk_order_.begin(), chunk_order_.begin() + (top_k - 1), chunk_order_.end(),
                     std::greater<>());
    threshold = std::max(threshold, chunk_order_[k - 1]);
  }
  gather(row, threshold);
  const Cutoff cutoff = selection_.select(candidates_, top_k);
  std::erase_if(candidates_,
                [&](const WeightedToken& item) { return !cutoff.keeps(item.key, item.token); });
}

void LogitsPipeline::keep_top_p(const ProcessedRow& row, double top_p) {
  const float scale = row.scale();
  std::int64_t total = 0;
  if (gathered_) {
    for (WeightedToken& item : candidates_) {
      const float relative = (row.scores[static_cast<std::size_t>(item.token)] - row.max) * scale;
      item.weight = row_math::mass_one(relative);
      total += item.weight;
    }
  } else {
    masses_.resize(row.scores.size());
    total = row_math::exp_masses(row.scores, row.max, scale, masses_);
    // All tokens lighter than (1 - top_p) * total / vocab together weigh less than what the nucleus
    // leaves out, and they come last: the nucleus ends before them.
    const double spare = (1.0 - top_p) * static_cast<double>(total) / vocab_size_;
    const auto lightest = std::max<std::int64_t>(1, static_cast<std::int64_t>(spare));
    candidates_.clear();
    for (std::size_t begin = 0; begin < masses_.size(); begin += row_math::kChunk) {
      const std::size_t end = std::min(begin + row_math::kChunk, masses_.size());
      const float chunk_relative = (row.chunk_max[begin / row_math::kChunk] - row.max) * scale;
      if (row_math::mass_one(chunk_relative) < lightest) continue;
      for (std::size_t token = begin; token < end; ++token) {
        if (masses_[token] >= lightest) {
          candidates_.push_back({row_math::order_key(row.scores[token]),
                                 static_cast<TokenId>(token), masses_[token]});
        }
      }
    }
    gathered_ = true;
  }
  const auto target = std::max<std::int64_t>(
      1, static_cast<std::int64_t>(std::ceil(top_p * static_cast<double>(total))));
  const Cutoff cutoff = selection_.select(candidates_, target);
  std::erase_if(candidates_,
                [&](const WeightedToken& item) { return !cutoff.keeps(item.key, item.token); });
}

void LogitsPipeline::keep_min_p(const ProcessedRow& row, double min_p) {
  // probability >= min_p * largest  <=>  relative score >= log(min_p)
  const double lowest = fixed_log(min_p);
  if (!gathered_) {
    const double score = row.max + lowest / row.inverse_temperature;
    const double slack = 1e-6 * (std::abs(static_cast<double>(row.max)) + std::abs(score));
    gather(row, static_cast<float>(
                    std::max<double>(std::numeric_limits<float>::lowest(), score - slack)));
  }
  std::erase_if(candidates_,
                [&](const WeightedToken& item) { return row.relative(item.token) < lowest; });
}

void LogitsPipeline::apply_filters(const RowContext& context, std::span<const float> unpenalised,
                                   ProcessedRow& row) {
  const SamplingOptions& options = *context.options;
  const bool top_k = options.top_k > 0 && options.top_k < vocab_size_;
  const bool top_p = options.top_p < 1.0f;
  const bool min_p = options.min_p > 0.0f;
  row.filtered = top_k || top_p || min_p;
  if (!row.filtered) return;

  gathered_ = false;
  if (top_k) keep_top_k(row, options.top_k);
  if (top_p) {
    if (mutant_active("top_p_unpenalised") && !top_k) {
      ProcessedRow other = row;
      other.scores = unpenalised;
      row_math::scan(unpenalised, chunk_max_);
      other.max = *std::max_element(chunk_max_.begin(), chunk_max_.end());
      keep_top_p(other, options.top_p);
    } else {
      keep_top_p(row, options.top_p);
    }
  }
  if (min_p) keep_min_p(row, options.min_p);
  kept_.clear();
  for (const WeightedToken& item : candidates_) kept_.push_back(item.token);
  row.kept = kept_;
}

double normaliser(const ProcessedRow& row) {
  const float scale = row.scale();
  if (!row.filtered) return row_math::sum_exp(row.scores, row.max, scale);
  double total = 0;
  for (auto it = row.kept.begin(); it != row.kept.end();) {
    const TokenId chunk = *it / row_math::kChunk;
    float lanes[row_math::kSumLanes] = {};
    for (; it != row.kept.end() && *it / row_math::kChunk == chunk; ++it)
      lanes[*it % row_math::kSumLanes] +=
          row_math::exp_one((row.scores[static_cast<std::size_t>(*it)] - row.max) * scale);
    total += row_math::add_lanes(lanes);
  }
  return total;
}

double log_normaliser(const ProcessedRow& row) { return fixed_log(normaliser(row)); }

}  // namespace specdec
