#include <doctest/doctest.h>

#include <cmath>
#include <cstdlib>
#include <map>

#include "toy_model.h"
#include "verify/verify.h"

using namespace specdec;

namespace {

// SPECDEC_TEST_FULL=1: 4M draws a setting, total variation below 2e-3.
const bool kFull = std::getenv("SPECDEC_TEST_FULL") != nullptr;
const int kDraws = kFull ? 4'000'000 : 20'000;
constexpr int kVocab = 3;
constexpr int kLength = 3;

struct Setting {
  toy::Kind kind;
  toy::Shape shape;
  DraftSampling sampling;
};

// The library end to end: keyed draft draws, keyed verification, one seed per draw; what a step
// emits is continued with the target's own tokens to kLength.
double total_variation(VerifyMethod method, const Setting& setting) {
  const toy::Model model{setting.kind, kVocab, 3};
  std::vector<int> counts(27, 0);
  for (int draw = 0; draw < kDraws; ++draw) {
    const auto seed = static_cast<std::uint64_t>(draw) + (std::uint64_t{1} << 40);
    const std::int64_t position = 100;
    const DraftTree tree = toy::draw_tree(model, setting.shape, setting.sampling, seed, position);
    toy::ToyRows rows(model, tree, seed, position);
    const AcceptedPath path =
        verify(tree, rows, {.method = method, .seed = seed, .position = position});
    toy::Prefix tokens;
    for (const OutputToken& token : path.tokens) tokens.push_back(token.token);
    while (static_cast<int>(tokens.size()) < kLength) {
      // Fresh noise: a position that nothing in the step has used.
      const auto next = static_cast<std::int64_t>(1000 + tokens.size());
      draw_draft_children(model.target(tokens), seed, next, 0, 1, false, tokens);
    }
    ++counts[static_cast<std::size_t>(tokens[0] * 9 + tokens[1] * 3 + tokens[2])];
  }
  double distance = 0;
  toy::for_sequences(model, kLength, [&](const toy::Prefix& tokens, double expected) {
    const int count = counts[static_cast<std::size_t>(tokens[0] * 9 + tokens[1] * 3 + tokens[2])];
    if (expected == 0) CHECK(count == 0);
    distance += std::abs(static_cast<double>(count) / kDraws - expected) / 2;
  });
  return distance;
}

// Several steps, each with a draft of its own, until kSteps tokens are out: what one step drew must
// tell nothing about the draws of the next. Shapes alternate, so that the nodes of two steps that
// stand at the same position have all kinds of indices.
constexpr int kSteps = 5;
double total_variation_of_steps(VerifyMethod method, const Setting& setting) {
  const toy::Model model(setting.kind, 2, 4);
  std::vector<int> counts(1 << kSteps, 0);
  for (int draw = 0; draw < kDraws; ++draw) {
    const auto seed = static_cast<std::uint64_t>(draw);
    toy::Prefix tokens;
    for (int step = 0; static_cast<int>(tokens.size()) < kSteps; ++step) {
      const auto position = static_cast<std::int64_t>(tokens.size());
      const toy::Shape shape = method != VerifyMethod::block && (draw + step) % 2 == 0
                                   ? setting.shape
                                   : toy::Shape{1, 1};
      const DraftTree tree = toy::draw_tree(model, shape, setting.sampling, seed, position, tokens);
      toy::ToyRows rows(model, tree, seed, position, tokens);
      const AcceptedPath path =
          verify(tree, rows, {.method = method, .seed = seed, .position = position});
      for (const OutputToken& token : path.tokens) tokens.push_back(token.token);
    }
    int outcome = 0;
    for (int i = 0; i < kSteps; ++i) outcome = 2 * outcome + tokens[static_cast<std::size_t>(i)];
    ++counts[static_cast<std::size_t>(outcome)];
  }
  double distance = 0;
  std::size_t outcome = 0;
  toy::for_sequences(model, kSteps, [&](const toy::Prefix&, double expected) {
    distance += std::abs(static_cast<double>(counts[outcome++]) / kDraws - expected) / 2;
  });
  return distance;
}

// E[TV] <= sum sqrt(p (1 - p) / N) / 2, and by McDiarmid's inequality TV exceeds its mean by t with
// probability at most exp(-2 N t^2); here 1e-6.
double bound() {
  if (kFull) return 2e-3;
  return 0.5 * std::sqrt(31.0 / kDraws) + std::sqrt(std::log(1e6) / (2.0 * kDraws));
}

void check(VerifyMethod method, const std::vector<Setting>& settings) {
  for (const Setting& setting : settings) {
    const double distance = total_variation(method, setting);
    INFO(std::string(to_string(method))
         << ", " << toy::name(setting.kind) << ", " << toy::to_string(setting.shape)
         << ", sampling " << static_cast<int>(setting.sampling));
    CHECK(distance < bound());
    if (kFull) {
      MESSAGE(std::string(to_string(method))
              << ", " << toy::name(setting.kind) << ", " << toy::to_string(setting.shape)
              << ", sampling " << static_cast<int>(setting.sampling) << ": total variation "
              << distance);
    }
  }
}

using enum toy::Kind;
using enum DraftSampling;

const std::vector<Setting> kChains{
    {random, {1, 1}, with_replacement},     {near_equal, {1, 1}, with_replacement},
    {peaked, {1, 1}, with_replacement},     {disjoint, {1, 1}, with_replacement},
    {zeros, {1, 1}, without_replacement},   {random, {1, 1}, deterministic},
    {flat_draft, {1, 1}, with_replacement}, {flat_target, {1}, with_replacement},
};
const std::vector<Setting> kTrees{
    {random, {2, 2}, with_replacement},     {near_equal, {2, 1}, without_replacement},
    {peaked, {3, 1}, without_replacement},  {disjoint, {2, 1}, with_replacement},
    {zeros, {3, 2}, without_replacement},   {peaked, {2, 1}, deterministic},
    {flat_draft, {2, 2}, with_replacement}, {random, {2, 1}, without_replacement},
    {random, {1, 1}, with_replacement},     {peaked, {1, 1}, with_replacement},
};

}  // namespace

TEST_CASE("coupled sampling over seeds has the target's distribution") {
  check(VerifyMethod::coupled, kTrees);
}
TEST_CASE("token rejection has the target's distribution") {
  check(VerifyMethod::rejection, kTrees);
}
TEST_CASE("block verification has the target's distribution") {
  check(VerifyMethod::block, kChains);
}
TEST_CASE("traversal verification has the target's distribution") {
  check(VerifyMethod::traversal, kTrees);
}
TEST_CASE("several steps in a row have the target's distribution") {
  for (const VerifyMethod method : {VerifyMethod::coupled, VerifyMethod::rejection,
                                    VerifyMethod::block, VerifyMethod::traversal}) {
    for (const Setting& setting : {Setting{toy::Kind::random, {2, 2}, without_replacement},
                                   Setting{near_equal, {2, 1}, with_replacement},
                                   Setting{zeros, {2, 1, 1}, without_replacement}}) {
      const double distance = total_variation_of_steps(method, setting);
      INFO(std::string(to_string(method))
           << ", " << toy::name(setting.kind) << ", " << toy::to_string(setting.shape));
      CHECK(distance < bound());
      if (kFull) {
        MESSAGE(std::string(to_string(method))
                << ", steps, " << toy::name(setting.kind) << ", " << toy::to_string(setting.shape)
                << ": total variation " << distance);
      }
    }
  }
}
