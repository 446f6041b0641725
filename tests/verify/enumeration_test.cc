#include <doctest/doctest.h>

#include <cmath>
#include <functional>
#include <map>

#include "toy_model.h"
#include "verify/rules.h"

using namespace specdec;

namespace {

// Walks every branch of a rule's decisions, each with its exact probability. run() is called again
// and again; each time it takes the decisions of `trail_` and the first possible one after it.
class EnumeratedChance final : public Chance {
 public:
  bool accept(double probability, int /*node*/) override {
    std::vector<std::pair<int, double>> options;
    if (probability < 1) options.emplace_back(0, 1 - std::max(probability, 0.0));
    if (probability > 0) options.emplace_back(1, std::min(probability, 1.0));
    return take(std::move(options)) == 1;
  }
  TokenId draw(std::span<const double> weights, int /*node*/) override {
    double total = 0;
    for (const double weight : weights) total += weight;
    std::vector<std::pair<int, double>> options;
    for (std::size_t i = 0; i < weights.size(); ++i) {
      if (weights[i] > 0) options.emplace_back(static_cast<int>(i), weights[i] / total);
    }
    REQUIRE_FALSE(options.empty());
    return take(std::move(options));
  }
  // Calls run(), then visit(weight), for every branch.
  template <typename Run, typename Visit>
  void enumerate(const Run& run, const Visit& visit) {
    trail_.clear();
    do {
      depth_ = 0;
      weight_ = 1;
      auto result = run();
      visit(result, weight_);
    } while (advance());
  }

 private:
  struct Decision {
    std::vector<std::pair<int, double>> options;
    std::size_t taken = 0;
  };
  int take(std::vector<std::pair<int, double>> options) {
    if (depth_ == trail_.size()) trail_.push_back({std::move(options), 0});
    const Decision& decision = trail_[depth_++];
    weight_ *= decision.options[decision.taken].second;
    return decision.options[decision.taken].first;
  }
  bool advance() {
    while (!trail_.empty()) {
      if (++trail_.back().taken < trail_.back().options.size()) return true;
      trail_.pop_back();
    }
    return false;
  }
  std::vector<Decision> trail_;
  std::size_t depth_ = 0;
  double weight_ = 1;
};

using Rule = std::function<Verdict(const DraftTree&, TargetRows&, Chance&)>;

struct Exact {
  double worst = 0;     // largest error of a sequence's probability
  double accepted = 0;  // expected accepted length
};

constexpr int kLength = 4;

// The distribution of the first kLength tokens: a step's emitted tokens, then the target's own.
Exact enumerate(const Rule& rule, const toy::Model& model, const toy::Shape& shape,
                DraftSampling sampling) {
  std::map<toy::Prefix, double> emitted;
  Exact exact;
  double total_draft = 0;
  for (const toy::WeightedTree& weighted : toy::all_trees(model, shape, sampling)) {
    const DraftTree& tree = weighted.tree;
    const double draft_weight = weighted.weight;
    toy::ToyRows rows(model, tree);
    EnumeratedChance chance;
    total_draft += draft_weight;
    chance.enumerate([&] { return rule(tree, rows, chance); },
                     [&](const Verdict& verdict, double weight) {
                       const AcceptedPath path = make_path(tree, rows, verdict);
                       toy::Prefix tokens;
                       for (const OutputToken& token : path.tokens) tokens.push_back(token.token);
                       emitted[tokens] += draft_weight * weight;
                       exact.accepted +=
                           draft_weight * weight * static_cast<double>(path.tokens.size() - 1);
                     });
  }
  REQUIRE(total_draft == doctest::Approx(1).epsilon(1e-13));
  double total = 0;
  toy::for_sequences(model, kLength, [&](const toy::Prefix& sequence, double expected) {
    double probability = 0;
    for (int length = 1; length <= kLength; ++length) {
      toy::Prefix prefix(sequence.begin(), sequence.begin() + length);
      const auto found = emitted.find(prefix);
      if (found == emitted.end()) continue;
      double rest = found->second;
      for (int i = length; i < kLength; ++i) {
        rest *= model.target(prefix)[sequence[i]];
        prefix.push_back(sequence[i]);
      }
      probability += rest;
    }
    total += probability;
    exact.worst = std::max(exact.worst, std::abs(probability - expected));
  });
  REQUIRE(total == doctest::Approx(1).epsilon(1e-12));
  return exact;
}

}  // namespace

TEST_CASE("vocabulary 4, all sequences of 4 tokens: every sampled rule is exact on chains") {
  for (const toy::Kind kind : toy::kKinds) {
    for (const DraftSampling sampling :
         {DraftSampling::deterministic, DraftSampling::with_replacement,
          DraftSampling::without_replacement}) {
      for (const toy::Shape& shape : {toy::Shape{}, toy::Shape{1}, toy::Shape{1, 1, 1}}) {
        INFO(toy::name(kind) << ", chain of " << shape.size() << ", sampling "
                             << static_cast<int>(sampling));
        const toy::Model model{kind, 4, 5};
        const Exact rejection = enumerate(verify_rejection, model, shape, sampling);
        const Exact block = enumerate(verify_block, model, shape, sampling);
        const Exact traversal = enumerate(verify_traversal, model, shape, sampling);
        CHECK(rejection.worst < 1e-12);
        CHECK(block.worst < 1e-12);
        CHECK(traversal.worst < 1e-12);
        // Block verification accepts at least as much (its Theorem 2), and traversal verification
        // is the same rule on a chain.
        CHECK(block.accepted > rejection.accepted - 1e-12);
        CHECK(traversal.accepted == doctest::Approx(block.accepted).epsilon(1e-12));
        if (kind == toy::Kind::equal && sampling != DraftSampling::deterministic) {
          CHECK(rejection.accepted == doctest::Approx(static_cast<double>(shape.size())));
        }
      }
    }
  }
}

TEST_CASE("vocabulary 4, all sequences of 4 tokens: the tree rules are exact on trees") {
  for (const toy::Kind kind : toy::kKinds) {
    for (const DraftSampling sampling :
         {DraftSampling::deterministic, DraftSampling::with_replacement,
          DraftSampling::without_replacement}) {
      for (const toy::Shape& shape : {toy::Shape{2}, toy::Shape{3, 1}, toy::Shape{1, 2, 1}}) {
        INFO(toy::name(kind) << ", tree " << toy::to_string(shape) << ", sampling "
                             << static_cast<int>(sampling));
        const toy::Model model{kind, 4, 6};
        CHECK(enumerate(verify_rejection, model, shape, sampling).worst < 1e-12);
        CHECK(enumerate(verify_traversal, model, shape, sampling).worst < 1e-12);
      }
    }
  }
}

TEST_CASE("wider trees and vocabulary 3") {
  for (const toy::Kind kind : {toy::Kind::random, toy::Kind::zeros, toy::Kind::peaked}) {
    for (const DraftSampling sampling :
         {DraftSampling::deterministic, DraftSampling::with_replacement,
          DraftSampling::without_replacement}) {
      INFO(toy::name(kind) << ", sampling " << static_cast<int>(sampling));
      const toy::Model model{kind, 3, 7};
      CHECK(enumerate(verify_rejection, model, {2, 2}, sampling).worst < 1e-12);
      CHECK(enumerate(verify_traversal, model, {2, 2}, sampling).worst < 1e-12);
    }
  }
}

TEST_CASE("a deterministic tree may repeat a sibling") {
  const toy::Model model{toy::Kind::random, 4, 8};
  for (const Rule& rule : {Rule(verify_rejection), Rule(verify_traversal)}) {
    DraftTree tree;
    tree.add(2, 0);
    tree.add(2, 0);
    tree.add(1, 2);
    toy::ToyRows rows(model, tree);
    EnumeratedChance chance;
    std::vector<double> first(4, 0.0);
    chance.enumerate([&] { return rule(tree, rows, chance); },
                     [&](const Verdict& verdict, double weight) {
                       first[make_path(tree, rows, verdict).tokens[0].token] += weight;
                     });
    for (int token = 0; token < 4; ++token) {
      CHECK(first[token] == doctest::Approx(model.target(toy::Prefix{})[token]).epsilon(1e-12));
    }
  }
}
