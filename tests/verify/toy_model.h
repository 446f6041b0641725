#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "draft/draft_tree.h"
#include "sampling/sampler.h"
#include "verify/verify.h"

/// Target and draft models small enough to enumerate: a distribution is a function of the tokens so
/// far, made of multiples of 1/1024, so that it sums to exactly 1 in float.
namespace specdec::toy {

using Prefix = std::vector<TokenId>;
using Dist = std::vector<float>;

enum class Kind {
  random,       ///< unrelated target and draft
  near_equal,   ///< the draft is off by a little
  equal,        ///< the draft is the target
  peaked,       ///< target and draft both sure, of different tokens now and then
  disjoint,     ///< supports without a common token
  zeros,        ///< the draft puts mass where the target has none, and the other way round
  flat_draft,   ///< uniform draft, sharp target
  flat_target,  ///< uniform target, sharp draft
};
inline constexpr Kind kKinds[] = {Kind::random,     Kind::near_equal, Kind::equal,
                                  Kind::peaked,     Kind::disjoint,   Kind::zeros,
                                  Kind::flat_draft, Kind::flat_target};
std::string name(Kind kind);

struct Model {
  Kind kind = Kind::random;
  int vocab = 3;
  std::uint32_t salt = 0;

  Model(Kind which, int size, std::uint32_t variant) : kind(which), vocab(size), salt(variant) {}

  const Dist& target(std::span<const TokenId> prefix) const { return at(code(prefix)).target; }
  const Dist& draft(std::span<const TokenId> prefix) const { return at(code(prefix)).draft; }

  /// Prefixes as numbers in base vocab + 1, last token last, so that a walk needs no vectors.
  std::size_t extend(std::size_t prefix_code, TokenId token) const {
    return prefix_code * static_cast<std::size_t>(vocab + 1) + static_cast<std::size_t>(token) + 1;
  }
  std::size_t code(std::span<const TokenId> prefix) const;
  struct Pair {
    Dist target;
    Dist draft;
    std::vector<float> logits;  ///< log of the target
  };
  const Pair& at(std::size_t prefix_code) const;

 private:
  Dist make(std::size_t prefix_code, bool draft) const;
  mutable std::vector<std::unique_ptr<Pair>> known_;
};

/// How many children each node of a level has: {1, 1} is a chain of two, {3, 2} a tree.
using Shape = std::vector<int>;
std::string to_string(const Shape& shape);

/// Draft tokens on the path to `node`, root excluded.
Prefix prefix_of(const DraftTree& tree, int node);

/// The model's draft for a step, drawn as the library's drafters draw it; point masses take the
/// draft's most likely tokens.
DraftTree draw_tree(const Model& model, const Shape& shape, DraftSampling sampling,
                    std::uint64_t seed, std::int64_t position, const Prefix& committed = {});

/// Every draft that draw_tree can make, with its exact probability.
struct WeightedTree {
  DraftTree tree;
  double weight = 1;
};
std::vector<WeightedTree> all_trees(const Model& model, const Shape& shape, DraftSampling sampling);

/// What the target says at the nodes of `tree`.
class ToyRows final : public TargetRows {
 public:
  ToyRows(const Model& model, const DraftTree& tree, std::uint64_t seed = 0,
          std::int64_t position = 0, const Prefix& committed = {});

  int vocab_size() const override { return model_.vocab; }
  OutputToken sample(int node) override;
  void probabilities(int node, std::span<float> out) override;
  void fill_logprobs(int node, OutputToken& token) override;

 private:
  const Model& model_;
  const DraftTree& tree_;
  std::uint64_t seed_;
  std::int64_t position_;
  std::vector<std::size_t> codes_;  // [nodes]
};

/// Calls visit(sequence, exact target probability) for every sequence of `length` tokens.
template <typename Visit>
void for_sequences(const Model& model, int length, const Visit& visit) {
  Prefix sequence;
  const auto extend = [&](const auto& self, double probability) -> void {
    if (static_cast<int>(sequence.size()) == length) {
      visit(sequence, probability);
      return;
    }
    const Dist& next = model.target(sequence);
    for (TokenId token = 0; token < model.vocab; ++token) {
      sequence.push_back(token);
      self(self, probability * next[static_cast<std::size_t>(token)]);
      sequence.pop_back();
    }
  };
  extend(extend, 1.0);
}

}  // namespace specdec::toy
