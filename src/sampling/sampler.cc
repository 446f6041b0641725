#include "sampling/sampler.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>

#include "kernels/sampling/gumbel.h"
#include "kernels/sampling/philox.h"
#include "sampling/mutation.h"
#include "sampling/row_math.h"

namespace specdec {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();

RandomStream noise_stream(const RowContext& context) {
  if (mutant_active("noise_by_call_order")) {
    static std::int64_t calls = 0;
    return {context.seed, ++calls, RandomPurpose::token_noise};
  }
  if (mutant_active("noise_without_position")) {
    return {context.seed, 0, RandomPurpose::token_noise};
  }
  return {context.seed, context.position, RandomPurpose::token_noise};
}

TokenId arg_max(const ProcessedRow& row) {
  if (mutant_active("argmax_highest_id")) {
    for (auto token = static_cast<TokenId>(row.scores.size()) - 1; token >= 0; --token) {
      if (row.scores[static_cast<std::size_t>(token)] == row.max) return token;
    }
  }
  for (std::size_t chunk = 0; chunk < row.chunk_max.size(); ++chunk) {
    if (row.chunk_max[chunk] != row.max) continue;
    const auto begin = row.scores.begin() + static_cast<std::ptrdiff_t>(chunk * row_math::kChunk);
    return static_cast<TokenId>(std::find(begin, row.scores.end(), row.max) - row.scores.begin());
  }
  return 0;
}

}  // namespace

RowSampler::RowSampler(int vocab_size) : pipeline_(vocab_size) {}

// Exact evaluation in double of one token whose bound reached the k-th best so far.
void RowSampler::offer(const ProcessedRow& row, TokenId token, std::uint32_t word, std::size_t k) {
  const Perturbed item{row.relative(token) + gumbel(word), token};
  if (item.score == -static_cast<double>(kInfinity)) return;
  const auto better = [](const Perturbed& a, const Perturbed& b) {
    return a.score > b.score || (a.score == b.score && a.token < b.token);
  };
  if (best_.size() == k) {
    if (!better(item, best_.back())) return;
    best_.pop_back();
  }
  best_.insert(std::upper_bound(best_.begin(), best_.end(), item, better), item);
}

// Exact pruning over a whole row. Let t be the k-th best score + noise found so far. A token can
// only enter the best k if its own score + noise reaches t, and noisy_bound() never understates
// that sum by more than prune_below() allows for; so tokens (and whole chunks) below are skipped,
// and whatever is left is evaluated in double. Noise is at most kMaxGumbel, so a chunk whose best
// score is further below t is skipped before its random words are made. Only the order of
// evaluation depends on t; the result is the top k of a total order, whatever that order was.
void RowSampler::best_perturbed_dense(const ProcessedRow& row, const RowContext& context,
                                      std::size_t k) {
  const RandomStream stream = noise_stream(context);
  const float scale = row.scale();
  alignas(64) std::array<std::uint32_t, row_math::kChunk> words;
  alignas(64) std::array<float, row_math::kChunk> bounds;
  const auto visit = [&](std::size_t chunk) {
    const float threshold =
        best_.size() < k ? -kInfinity : row_math::prune_below(best_.back().score);
    const float most = (row.chunk_max[chunk] - row.max) * scale + static_cast<float>(kMaxGumbel);
    if (most < threshold || row.chunk_max[chunk] == -kInfinity) return;
    const std::size_t begin = chunk * row_math::kChunk;
    const std::size_t count = std::min<std::size_t>(row_math::kChunk, row.scores.size() - begin);
    row_math::random_words(stream, static_cast<std::uint32_t>(begin), words);
    const float bound =
        row_math::noisy_bound(row.scores.subspan(begin, count), row.max, scale, words, bounds);
    if (bound < threshold) return;
    for (std::size_t i = 0; i < count; ++i) {
      if (best_.size() == k && bounds[i] < row_math::prune_below(best_.back().score)) continue;
      offer(row, static_cast<TokenId>(begin + i), words[i], k);
    }
  };

  // The chunk with the best score first: it makes a high threshold for the others.
  const auto first = static_cast<std::size_t>(
      std::find(row.chunk_max.begin(), row.chunk_max.end(), row.max) - row.chunk_max.begin());
  if (first < row.chunk_max.size()) visit(first);
  for (std::size_t chunk = 0; chunk < row.chunk_max.size(); ++chunk) {
    if (chunk != first) visit(chunk);
  }
}

void RowSampler::best_perturbed(const ProcessedRow& row, const RowContext& context, int k) {
  best_.clear();
  const auto wanted = static_cast<std::size_t>(k);
  if (!row.filtered) return best_perturbed_dense(row, context, wanted);

  constexpr std::size_t kSparse = 1024;  // beyond, whole chunks of vector work cost less
  if (row.kept.size() <= kSparse) {
    const RandomStream stream = noise_stream(context);
    std::uint32_t index = ~std::uint32_t{0};
    PhiloxBlock block{};
    for (const TokenId token : row.kept) {
      if (best_.size() == wanted && row.relative(token) + kMaxGumbel < best_.back().score) continue;
      const auto word = static_cast<std::uint32_t>(token);
      if (word / 4 != index) {
        index = word / 4;
        block = stream.block(index);
      }
      offer(row, token, block[word % 4], wanted);
    }
    return;
  }
  dense_.assign(row.scores.size(), -kInfinity);
  dense_max_.assign(row.chunk_max.size(), -kInfinity);
  for (const TokenId token : row.kept) {
    const auto i = static_cast<std::size_t>(token);
    dense_[i] = row.scores[i];
    float& chunk_max = dense_max_[i / row_math::kChunk];
    chunk_max = std::max(chunk_max, dense_[i]);
  }
  ProcessedRow dense = row;
  dense.scores = dense_;
  dense.chunk_max = dense_max_;
  best_perturbed_dense(dense, context, wanted);
}

// The k best scores without noise, best first.
void RowSampler::best_scores(const ProcessedRow& row, int k) {
  best_.clear();
  candidates_.clear();
  float threshold = std::numeric_limits<float>::lowest();
  if (static_cast<std::size_t>(k) <= row.chunk_max.size()) {
    dense_max_.assign(row.chunk_max.begin(), row.chunk_max.end());
    std::nth_element(dense_max_.begin(), dense_max_.begin() + (k - 1), dense_max_.end(),
                     std::greater<>());
    threshold = std::max(threshold, dense_max_[static_cast<std::size_t>(k) - 1]);
  }
  for (std::size_t chunk = 0; chunk < row.chunk_max.size(); ++chunk) {
    if (row.chunk_max[chunk] < threshold) continue;
    const std::size_t begin = chunk * row_math::kChunk;
    const std::size_t end = std::min(begin + row_math::kChunk, row.scores.size());
    for (std::size_t token = begin; token < end; ++token) {
      if (row.scores[token] >= threshold) {
        candidates_.push_back(
            {row_math::order_key(row.scores[token]), static_cast<TokenId>(token), 1});
      }
    }
  }
  const Cutoff cutoff = selection_.select(candidates_, k);
  for (const WeightedToken& item : candidates_) {
    if (cutoff.keeps(item.key, item.token)) best_.push_back({row.relative(item.token), item.token});
  }
  std::stable_sort(best_.begin(), best_.end(), [&](const Perturbed& a, const Perturbed& b) {
    return row.scores[static_cast<std::size_t>(a.token)] >
           row.scores[static_cast<std::size_t>(b.token)];
  });
}

OutputToken RowSampler::sample(std::span<const float> logits, const RowContext& row) {
  const ProcessedRow processed = pipeline_.process(logits, row);
  OutputToken result;
  if (processed.greedy) {
    result.token = arg_max(processed);
  } else {
    best_perturbed(processed, row, 1);
    result.token = best_.front().token;
  }
  if (row.options->logprobs >= 0) fill_logprobs(logits, row, result);
  return result;
}

void RowSampler::probabilities(std::span<const float> logits, const RowContext& row,
                               std::span<float> out) {
  const ProcessedRow processed = pipeline_.process(logits, row);
  std::fill(out.begin(), out.end(), 0.0f);
  if (processed.greedy) {
    out[static_cast<std::size_t>(arg_max(processed))] = 1.0f;
    return;
  }
  const float scale = processed.scale();
  const auto inverse = static_cast<float>(1.0 / normaliser(processed));
  if (!processed.filtered) {
    row_math::exp_row(processed.scores, processed.max, scale, out);
    for (float& value : out) value *= inverse;
    return;
  }
  for (const TokenId token : processed.kept) {
    const auto i = static_cast<std::size_t>(token);
    out[i] = row_math::exp_one((processed.scores[i] - processed.max) * scale) * inverse;
  }
}

void RowSampler::coupled_candidates(std::span<const float> logits, const RowContext& row, int k,
                                    std::vector<DraftCandidate>& out) {
  out.clear();
  if (k <= 0) return;
  const ProcessedRow processed = pipeline_.process(logits, row);
  const double log_total = log_normaliser(processed);
  const int most = std::min(k, static_cast<int>(processed.scores.size()));
  if (processed.greedy) {
    best_scores(processed, most);
  } else {
    best_perturbed(processed, row, most);
  }
  for (const Perturbed& item : best_) {
    out.push_back({item.token, static_cast<float>(item.score - log_total),
                   static_cast<float>(processed.relative(item.token) - log_total)});
  }
}

void RowSampler::fill_logprobs(std::span<const float> logits, const RowContext& row,
                               OutputToken& token) {
  const int wanted = row.options->logprobs;
  if (wanted < 0) return;
  const ProcessedRow raw = mutant_active("logprobs_of_processed") ? pipeline_.process(logits, row)
                                                                  : pipeline_.raw(logits, row);
  const double log_total = log_normaliser(raw);
  token.logprob = static_cast<float>(raw.relative(token.token) - log_total);
  token.top_logprobs.clear();
  if (wanted == 0) return;
  best_scores(raw, std::min(wanted, static_cast<int>(raw.scores.size())));
  for (const Perturbed& item : best_) {
    token.top_logprobs.push_back({item.token, static_cast<float>(item.score - log_total)});
  }
}

float RowSampler::confidence(std::span<const float> logits, const RowContext& row) {
  return static_cast<float>(1.0 / normaliser(pipeline_.process(logits, row)));
}

}  // namespace specdec
