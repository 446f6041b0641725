#include "verify/rules.h"

#include <algorithm>
#include <string>

#include "sampling/mutation.h"
#include "sampling/philox.h"
#include "specdec/error.h"

namespace specdec {

bool KeyedChance::accept(double probability, int node) {
  const std::int64_t position = params_.position + tree_.depths[static_cast<std::size_t>(node)] - 1;
  const bool shared = mutant_active("uniforms_shared_by_nodes");
  const RandomStream stream(params_.seed, shared ? 0 : position, RandomPurpose::verify_accept,
                            shared ? 0 : node);
  return stream.uniform(0) < probability;
}

TokenId KeyedChance::draw(std::span<const double> weights, int node) {
  const std::int64_t position = params_.position + tree_.depths[static_cast<std::size_t>(node)];
  const RandomStream stream(params_.seed, position, RandomPurpose::verify_token, node);
  double total = 0;
  for (const double weight : weights) total += weight;
  double rest = stream.uniform(0) * total;
  TokenId last = 0;
  for (std::size_t token = 0; token < weights.size(); ++token) {
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

std::vector<double> target_distribution(TargetRows& target, int node) {
  std::vector<float> row(static_cast<std::size_t>(target.vocab_size()));
  target.probabilities(node, row);
  std::vector<double> probs(row.begin(), row.end());
  double total = 0;
  for (const double prob : probs) total += prob;
  for (double& prob : probs) prob /= total;
  return probs;
}

DraftDistribution::DraftDistribution(const DraftTree& tree, int node)
    : tree_(tree), deterministic_(tree.sampling == DraftSampling::deterministic) {
  if (deterministic_ || static_cast<std::size_t>(node) >= tree.draft_probs.size()) return;
  const auto& row = tree.draft_probs[static_cast<std::size_t>(node)];
  probs_.assign(row.begin(), row.end());
  double total = 0;
  for (const double prob : probs_) total += prob;
  for (double& prob : probs_) prob /= total;
}

double DraftDistribution::probability(int child) const {
  if (deterministic_) return 1;
  return probs_[static_cast<std::size_t>(tree_.tokens[static_cast<std::size_t>(child)])];
}

double DraftDistribution::subtract_from(std::vector<double>& weights, double scale,
                                        int child) const {
  double sum = 0;
  const auto token = static_cast<std::size_t>(tree_.tokens[static_cast<std::size_t>(child)]);
  for (std::size_t i = 0; i < weights.size(); ++i) {
    const double draft = deterministic_ ? (i == token ? 1.0 : 0.0) : probs_[i];
    const double difference = scale * weights[i] - draft;
    weights[i] = std::max(mutant_active("residual_wrong_side") ? -difference : difference, 0.0);
    sum += weights[i];
  }
  return sum;
}

void DraftDistribution::remove(int child) {
  if (tree_.sampling != DraftSampling::without_replacement) return;
  probs_[static_cast<std::size_t>(tree_.tokens[static_cast<std::size_t>(child)])] = 0;
  if (mutant_active("draft_not_renormalised")) return;
  double total = 0;
  for (const double prob : probs_) total += prob;
  if (total > 0) {
    for (double& prob : probs_) prob /= total;
  }
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
  }
}

}  // namespace specdec
