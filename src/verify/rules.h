#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "specdec/types.h"
#include "verify/verify.h"

namespace specdec {

/// The decisions that a sampled rule leaves to chance, and nothing else. The library's own source
/// keys them with Philox; tests enumerate them and weigh each branch with its exact probability.
class Chance {
 public:
  virtual ~Chance() = default;

  /// True with `probability`: the acceptance test of `node`.
  virtual bool accept(double probability, int node) = 0;
  /// An index with probability weights[i] / sum(weights): the token emitted after `node`.
  virtual TokenId draw(std::span<const double> weights, int node) = 0;
};

/// Uniforms from (seed, position of the step's first token, purpose, node). That position rises
/// with every step and nodes are unique within one, so no uniform is ever used twice; the position
/// of the node itself would not do, since trees of two steps can share (position, node).
class KeyedChance final : public Chance {
 public:
  explicit KeyedChance(const VerifyParams& params) : params_(params) {}

  bool accept(double probability, int node) override;
  TokenId draw(std::span<const double> weights, int node) override;

 private:
  const VerifyParams& params_;
};

/// What a sampled rule decided: the last accepted node and the token that follows it.
struct Verdict {
  int node = 0;
  TokenId token = 0;
};

/// The longest path of sampled target tokens that the tree holds.
AcceptedPath verify_coupled(const DraftTree& tree, TargetRows& target);
Verdict verify_rejection(const DraftTree& tree, TargetRows& target, Chance& chance);
Verdict verify_block(const DraftTree& tree, TargetRows& target, Chance& chance);
Verdict verify_traversal(const DraftTree& tree, TargetRows& target, Chance& chance);
AcceptedPath verify_typical(const DraftTree& tree, TargetRows& target, const VerifyParams& params);

/// A rule's path with its tokens and their logprobs.
AcceptedPath make_path(const DraftTree& tree, TargetRows& target, const Verdict& verdict);

/// Reads target distributions, normalised in double. Keeps scratch, so that a walk over many nodes
/// does not allocate a vocabulary's worth for each.
class TargetReader {
 public:
  explicit TargetReader(TargetRows& target) : target_(target) {}
  void read(int node, std::vector<double>& out);

 private:
  TargetRows& target_;
  std::vector<float> row_;
};

/// The distributions that the children of one node were drawn from, in drawing order.
///
/// A deterministic child is a draw from a point mass on itself. The rules only need each child's
/// distribution to be known before its token is looked at, and to depend on nothing but earlier
/// siblings; a sequence of point masses is such a sequence, so they stay lossless (see
/// docs/decisions.md).
class DraftDistribution {
 public:
  DraftDistribution(const DraftTree& tree, int node);

  /// Probability with which `child` was drawn; `child` is the next one in order.
  double probability(int child) const;
  /// Sum of [scale * weights - draft]+ for the draft distribution of `child`.
  double residual_sum(std::span<const double> weights, double scale, int child) const;
  /// weights = factor * [scale * weights - draft]+.
  void make_residual(std::span<double> weights, double scale, int child, double factor) const;
  /// `child` was looked at: without replacement, later siblings are not it.
  void remove(int child);

 private:
  std::size_t token_of(int child) const {
    return static_cast<std::size_t>(tree_.tokens[static_cast<std::size_t>(child)]);
  }

  const DraftTree& tree_;
  bool deterministic_;
  std::span<const float> probs_;      // [vocab]; empty when deterministic
  double inverse_total_ = 1;          // of probs_ less removed_
  std::vector<std::size_t> removed_;  // ascending; earlier siblings, without replacement
};

/// Children of each node in drawing order.
std::vector<std::vector<int>> children_of(const DraftTree& tree);

/// Throws Error(invalid_argument) unless the tree is well-formed, its tokens lie in the vocabulary,
/// and a node with sampled children has its draft_probs.
void check_sampled_tree(const DraftTree& tree, int vocab_size);

}  // namespace specdec
