#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <map>
#include <random>
#include <span>
#include <vector>

#include "kernels/sampling/philox.h"
#include "sampling/sampler.h"

/// The logits pipeline as its definition reads: full sorts, double precision, std::log. Shares no
/// code with the library but the generator.
namespace specdec::oracle {

struct Row {
  std::vector<double> scores;  ///< after penalties and bias
  std::vector<double> probs;   ///< processed, 0 where dropped
  double margin = 1;           ///< how near a filter's border came to another outcome
};

inline std::vector<int> best_first(const std::vector<double>& scores) {
  std::vector<int> order(scores.size());
  for (std::size_t i = 0; i < order.size(); ++i) order[i] = static_cast<int>(i);
  std::stable_sort(order.begin(), order.end(), [&](int a, int b) { return scores[a] > scores[b]; });
  return order;
}

inline Row process(std::span<const float> logits, const RowContext& context) {
  const SamplingOptions& options = *context.options;
  Row row;
  row.scores.assign(logits.begin(), logits.end());
  std::map<TokenId, int> outputs;
  std::map<TokenId, int> all;
  if (context.penalties != nullptr) {
    for (const auto& [token, count] : context.penalties->output_counts()) outputs[token] += count;
    for (const auto& [token, count] : context.penalties->prompt_counts()) all[token] += count;
  }
  for (const TokenId token : context.path) ++outputs[token];
  for (const auto& [token, count] : outputs) all[token] += count;
  for (std::size_t i = 0; i < row.scores.size(); ++i) {
    // In float: the pipeline's own arithmetic, so that exact ties stay exact ties.
    auto score = static_cast<float>(row.scores[i]);
    const auto token = static_cast<TokenId>(i);
    if (all.contains(token) && options.repetition_penalty != 1.0f) {
      score = score > 0 ? score / options.repetition_penalty : score * options.repetition_penalty;
    }
    if (outputs.contains(token)) {
      score -= options.frequency_penalty * static_cast<float>(outputs[token]);
      score -= options.presence_penalty;
    }
    if (options.logit_bias.contains(token)) score += options.logit_bias.at(token);
    if (context.num_output_tokens < options.min_tokens &&
        std::find(context.end_tokens.begin(), context.end_tokens.end(), token) !=
            context.end_tokens.end()) {
      score = -std::numeric_limits<float>::infinity();
    }
    row.scores[i] = score;
  }

  const std::vector<int> order = best_first(row.scores);
  row.probs.assign(row.scores.size(), 0.0);
  if (options.temperature <= 0) {
    row.probs[order[0]] = 1;
    return row;
  }
  const double best = row.scores[order[0]];
  std::vector<double> weights;
  for (const int token : order) {
    weights.push_back(std::exp((row.scores[token] - best) / options.temperature));
  }
  std::size_t kept = weights.size();
  if (options.top_k > 0) kept = std::min(kept, static_cast<std::size_t>(options.top_k));
  if (options.top_p < 1.0f) {
    double total = 0;
    for (std::size_t i = 0; i < kept; ++i) total += weights[i];
    double sum = 0;
    for (std::size_t i = 0; i < kept; ++i) {
      sum += weights[i];
      row.margin = std::min(row.margin, std::abs(sum / total - options.top_p));
      if (sum >= options.top_p * total) {
        kept = i + 1;
        break;
      }
    }
  }
  if (options.min_p > 0) {
    for (std::size_t i = 0; i < kept; ++i) {
      if (weights[i] != 1.0 || options.min_p != 1.0f) {
        row.margin = std::min(row.margin, std::abs(weights[i] - options.min_p));
      }
      if (weights[i] < options.min_p) {
        kept = i;
        break;
      }
    }
  }
  double total = 0;
  for (std::size_t i = 0; i < kept; ++i) total += weights[i];
  for (std::size_t i = 0; i < kept; ++i) row.probs[order[i]] = weights[i] / total;
  return row;
}

/// log probability + Gumbel noise of every token; -infinity where dropped.
inline std::vector<double> perturbed(const Row& row, std::uint64_t seed, std::int64_t position) {
  const RandomStream stream(seed, position, RandomPurpose::token_noise);
  std::vector<double> result;
  for (std::size_t i = 0; i < row.probs.size(); ++i) {
    const double u = (stream.word(static_cast<std::uint32_t>(i)) + 0.5) / 4294967296.0;
    result.push_back(std::log(row.probs[i]) - std::log(-std::log(u)));
  }
  return result;
}

enum class Shape { normal, peaked, flat, ties, banned, huge, heavy_tail };
inline constexpr Shape kShapes[] = {Shape::normal, Shape::peaked, Shape::flat,      Shape::ties,
                                    Shape::banned, Shape::huge,   Shape::heavy_tail};

inline std::vector<float> make_row(Shape shape, int vocab, std::uint32_t seed) {
  std::mt19937 random(seed * 7919u + static_cast<std::uint32_t>(shape));
  std::normal_distribution<float> normal(0.0f, 1.0f);
  std::vector<float> row(static_cast<std::size_t>(vocab));
  for (float& value : row) {
    const float z = normal(random);
    switch (shape) {
      case Shape::normal:
        value = 3 * z;
        break;
      case Shape::peaked:
        value = z;
        break;
      case Shape::flat:
        value = 1e-3f * z;
        break;
      case Shape::ties:
        value = std::round(2 * z);
        break;
      case Shape::banned:
        value = random() % 3 != 0 ? -std::numeric_limits<float>::infinity() : 2 * z;
        break;
      case Shape::huge:
        value = 1e4f * z;
        break;
      case Shape::heavy_tail:
        value = z * z * z;
        break;
    }
  }
  if (shape == Shape::peaked) row[random() % row.size()] = 14;
  if (shape == Shape::banned) row[std::min<std::size_t>(3, row.size() - 1)] = 1;
  return row;
}

}  // namespace specdec::oracle
