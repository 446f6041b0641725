#include "verify/rules.h"

#include <algorithm>
#include <string>

#include "kernels/sampling/philox.h"
#include "kernels/sampling/row_numbers.h"
#include "sampling/mutation.h"
#include "specdec/error.h"

namespace specdec {

namespace {

// Sum of term(begin..end) in an order that a GPU can follow: row_math's lanes of a chunk, in
// double, and the chunks ascending. Terms outside count 0.
template <typename Term>
double sum_over(std::size_t begin, std::size_t end, const Term& term) {
  constexpr std::size_t kChunk = row_math::kChunk;
  constexpr std::size_t kLanes = row_math::kSumLanes;
  double total = 0;
  for (std::size_t chunk = begin - begin % kChunk; chunk < end; chunk += kChunk) {
    double lanes[kLanes] = {};
    if (chunk >= begin && chunk + kChunk <= end) {
      for (std::size_t i = chunk; i < chunk + kChunk; i += kLanes)
        for (std::size_t j = 0; j < kLanes; ++j) lanes[j] += term(i + j);
    } else {
      const std::size_t last = std::min(chunk + kChunk, end);
      for (std::size_t i = std::max(chunk, begin); i < last; ++i) lanes[i % kLanes] += term(i);
    }
    total += row_math::add_lanes(lanes);
  }
  return total;
}

double positive(double value) { return value > 0 ? value : 0.0; }

}  // namespace

bool KeyedChance::accept(double probability, int node) {
  const RandomStream stream(params_.seed, params_.position, RandomPurpose::verify_accept,
                            mutant_active("uniforms_shared_by_nodes") ? 0 : node);
  return stream.uniform(0) < probability;
}

// Inversion of the distribution function, first over the sums of chunks, then inside one; the last
// positive weight takes what rounding leaves over.
TokenId KeyedChance::draw(std::span<const double> weights, int node) {
  const RandomStream stream(params_.seed, params_.position, RandomPurpose::verify_token, node);
  const auto weight = [&](std::size_t token) { return weights[token]; };
  constexpr std::size_t kChunk = row_math::kChunk;
  std::vector<double> sums;
  double total = 0;
  for (std::size_t begin = 0; begin < weights.size(); begin += kChunk) {
    sums.push_back(sum_over(begin, std::min(begin + kChunk, weights.size()), weight));
    total += sums.back();
  }
  double rest = stream.uniform(0) * total;
  std::size_t chosen = 0;
  for (std::size_t chunk = 0; chunk < sums.size(); ++chunk) {
    if (!(sums[chunk] > 0)) continue;
    chosen = chunk;
    if (rest < sums[chunk]) break;
    rest -= sums[chunk];
  }
  TokenId last = 0;
  const std::size_t end = std::min((chosen + 1) * kChunk, weights.size());
  for (std::size_t token = chosen * kChunk; token < end; ++token) {
    if (!(weights[token] > 0)) continue;
    last = static_cast<TokenId>(token);
    if (rest < weights[token]) break;
    rest -= weights[token];
  }
  return last;
}

AcceptedPath make_path(const DraftTree& tree, TargetRows& target, const Verdict& verdict) {
  AcceptedPath path;
  path.nodes = tree.path_to(verdict.node);
  for (std::size_t i = 0; i < path.nodes.size(); ++i) {
    OutputToken token;
    token.drafted = i + 1 < path.nodes.size();
    token.token =
        token.drafted ? tree.tokens[static_cast<std::size_t>(path.nodes[i + 1])] : verdict.token;
    target.fill_logprobs(path.nodes[i], token);
    path.tokens.push_back(std::move(token));
  }
  if (mutant_active("bonus_dropped") && path.nodes.size() > 1) {
    path.truncate(path.nodes.size() - 1);
  }
  return path;
}

void TargetReader::read(int node, std::vector<double>& out) {
  row_.resize(static_cast<std::size_t>(target_.vocab_size()));
  target_.probabilities(node, row_);
  const double total =
      sum_over(0, row_.size(), [&](std::size_t i) { return static_cast<double>(row_[i]); });
  const double factor = 1 / total;
  out.resize(row_.size());
  for (std::size_t i = 0; i < row_.size(); ++i) out[i] = row_[i] * factor;
}

DraftDistribution::DraftDistribution(const DraftTree& tree, int node)
    : tree_(tree), deterministic_(tree.sampling == DraftSampling::deterministic) {
  if (deterministic_ || static_cast<std::size_t>(node) >= tree.draft_probs.size()) return;
  probs_ = tree.draft_probs[static_cast<std::size_t>(node)];
  inverse_total_ =
      1 / sum_over(0, probs_.size(), [&](std::size_t i) { return static_cast<double>(probs_[i]); });
}

double DraftDistribution::probability(int child) const {
  if (deterministic_) return 1;
  const std::size_t token = token_of(child);
  if (std::find(removed_.begin(), removed_.end(), token) != removed_.end()) return 0;
  return probs_[token] * inverse_total_;
}

double DraftDistribution::residual_sum(std::span<const double> weights, double scale,
                                       int child) const {
  const std::size_t size = weights.size();
  if (deterministic_) {
    const std::size_t token = token_of(child);
    const auto scaled = [&](std::size_t i) { return scale * weights[i]; };
    return sum_over(0, token, scaled) + sum_over(token + 1, size, scaled) +
           positive(scaled(token) - 1);
  }
  double sum = sum_over(0, size, [&](std::size_t i) {
    return positive(scale * weights[i] - probs_[i] * inverse_total_);
  });
  for (const std::size_t token : removed_) {
    sum +=
        scale * weights[token] - positive(scale * weights[token] - probs_[token] * inverse_total_);
  }
  return sum;
}

void DraftDistribution::make_residual(std::span<double> weights, double scale, int child,
                                      double factor) const {
  if (deterministic_) {
    double& own = weights[token_of(child)];
    const double left = positive(scale * own - 1);
    for (double& weight : weights) weight *= scale * factor;
    own = left * factor;
    return;
  }
  std::vector<double> kept;
  for (const std::size_t token : removed_) kept.push_back(scale * weights[token] * factor);
  const bool wrong_side = mutant_active("residual_wrong_side");
  for (std::size_t i = 0; i < weights.size(); ++i) {
    const double difference = scale * weights[i] - probs_[i] * inverse_total_;
    weights[i] = positive(wrong_side ? -difference : difference) * factor;
  }
  for (std::size_t i = 0; i < removed_.size(); ++i) weights[removed_[i]] = kept[i];
}

void DraftDistribution::remove(int child) {
  if (tree_.sampling != DraftSampling::without_replacement) return;
  const std::size_t token = token_of(child);
  const auto place = std::lower_bound(removed_.begin(), removed_.end(), token);
  if (place == removed_.end() || *place != token) removed_.insert(place, token);
  if (mutant_active("draft_not_renormalised")) return;
  // Around the gaps, not the whole less the gaps: what is left may be tiny.
  const auto prob = [&](std::size_t i) { return static_cast<double>(probs_[i]); };
  double total = 0;
  std::size_t begin = 0;
  for (const std::size_t gone : removed_) {
    total += sum_over(begin, gone, prob);
    begin = gone + 1;
  }
  total += sum_over(begin, probs_.size(), prob);
  inverse_total_ = total > 0 ? 1 / total : 0;
}

std::vector<std::vector<int>> children_of(const DraftTree& tree) {
  std::vector<std::vector<int>> children(tree.tokens.size());
  for (int node = 1; node < tree.size(); ++node) {
    children[static_cast<std::size_t>(tree.parents[static_cast<std::size_t>(node)])].push_back(
        node);
  }
  return children;
}

void check_sampled_tree(const DraftTree& tree, int vocab_size) {
  const auto fail = [](int node, const std::string& what) {
    throw Error(ErrorCode::invalid_argument,
                "draft tree, node " + std::to_string(node) + ": " + what);
  };
  for (int node = 1; node < tree.size(); ++node) {
    const auto i = static_cast<std::size_t>(node);
    const std::int32_t parent = tree.parents[i];
    if (parent < 0 || parent >= node) fail(node, "its parent must come before it");
    if (tree.tokens[i] < 0 || tree.tokens[i] >= vocab_size) {
      fail(node, "token " + std::to_string(tree.tokens[i]) + " is not in the vocabulary of " +
                     std::to_string(vocab_size));
    }
    if (tree.sampling == DraftSampling::deterministic) continue;
    const auto row = static_cast<std::size_t>(parent);
    if (row >= tree.draft_probs.size() ||
        tree.draft_probs[row].size() != static_cast<std::size_t>(vocab_size)) {
      fail(parent, "its children were sampled, so it needs draft_probs of " +
                       std::to_string(vocab_size) + " entries");
    }
    if (!(tree.draft_probs[row][static_cast<std::size_t>(tree.tokens[i])] > 0)) {
      fail(node, "it was sampled, but its draft probability is not positive");
    }
  }
}

}  // namespace specdec
