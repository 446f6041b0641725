#include <doctest/doctest.h>

#include <map>
#include <random>
#include <vector>

#include "engine/loop_pacing.h"

// Depths of runs of a device loop, without a device: what a turn costs and what it emits are the
// test's, the clock is the sum of its costs.

using namespace specdec;

namespace {

/// Turns of (base + rows * each) + depth * draft seconds, measured for 1, 8 and 32 sequences.
TurnCosts turn_costs(double base, double each, double draft) {
  TurnCosts costs;
  for (const int depth : {0, 1, 2, 4, 7})
    for (const int sequences : {1, 8, 32})
      costs[depth].emplace_back(sequences, base + sequences * (1 + depth) * each + depth * draft);
  return costs;
}

/// A batch whose drafts are right with a given probability, token by token.
struct Decoding {
  Decoding(const TurnCosts& costs, int count, int max_tokens)
      : truth(costs), pacing(costs), sequences(static_cast<std::size_t>(count)), random(11) {
    for (Sequence& sequence : sequences) {
      sequence.draft_depth = 7;
      sequence.request.sampling.max_tokens = max_tokens;
      batch.push_back(&sequence);
    }
  }

  double turn_seconds(int depth) const {
    return slowdown * CostCurve(truth.at(depth))(static_cast<int>(batch.size()));
  }

  /// Runs until each sequence has emitted `tokens` more on average; returns the seconds over those
  /// of plain decoding.
  double decode(double acceptance, int tokens) {
    std::bernoulli_distribution right(acceptance);
    double seconds = 0;
    std::int64_t emitted = 0;
    const auto wanted = static_cast<std::int64_t>(tokens) * std::ssize(batch);
    while (emitted < wanted) {
      const LoopPacing::Plan plan = pacing.plan(batch, context, last_depth > 0 ? 0 : entry_cost);
      if (plan.depth > 0 && last_depth == 0) seconds += entry_cost;
      const double run = plan.turns * turn_seconds(plan.depth);
      for (int turn = 0; turn < plan.turns; ++turn)
        for (Sequence* sequence : batch) {
          int taken = 0;
          while (taken < plan.depth && right(random)) ++taken;
          if (plan.depth > 0) pacing.learn(*sequence, plan.depth, taken);
          emitted += 1 + taken;
        }
      pacing.ran(plan, static_cast<int>(batch.size()), context, plan.turns, run);
      seconds += run + kEntry;
      turns[plan.depth] += plan.turns;
      last_depth = plan.depth;
    }
    const double turns_wanted = static_cast<double>(emitted) / static_cast<double>(batch.size());
    return seconds / (turns_wanted * turn_seconds(0) * (1 + kEntry / LoopPacing::kRunSeconds));
  }

  static constexpr double kEntry = 1e-4;  // seconds into a run and out of it

  TurnCosts truth;
  LoopPacing pacing;
  std::vector<Sequence> sequences;
  std::vector<Sequence*> batch;
  std::mt19937 random;
  int context = 200;
  double entry_cost = 0;  // after a plain run
  double slowdown = 1;
  int last_depth = 7;
  std::map<int, int> turns;  // by depth
};

}  // namespace

TEST_CASE("runs draft as deep as it pays") {
  // A weight-bound model with a cheap draft: the more is right, the deeper.
  const TurnCosts costs = turn_costs(6e-4, 1e-6, 4e-5);
  Decoding good(costs, 1, 100000);
  CHECK(good.decode(0.9, 2000) < 0.35);
  CHECK(good.turns[7] > good.turns[1] + good.turns[2] + good.turns[0]);
  Decoding fair(costs, 1, 100000);
  CHECK(fair.decode(0.5, 2000) < 0.68);
  CHECK(fair.turns[2] + fair.turns[4] > fair.turns[7]);
}

TEST_CASE("where drafts do not pay, trying them costs two hundredths at most") {
  struct Case {
    double base, each, draft, acceptance, entry_cost;
    int count;
  };
  for (const Case& at : {Case{6e-4, 1e-6, 1e-4, 0.02, 0, 1},     // wrong drafts
                         Case{6e-4, 1e-6, 1e-4, 0.02, 3e-3, 1},  // ... that are dear to begin
                         Case{6e-4, 3e-5, 2e-4, 0.5, 0, 32},     // rows cost what they bring
                         Case{6e-4, 3e-5, 2e-4, 0.7, 5e-2, 32}}) {
    CAPTURE(at.acceptance);
    CAPTURE(at.entry_cost);
    CAPTURE(at.count);
    Decoding decoding(turn_costs(at.base, at.each, at.draft), at.count, 512);
    decoding.entry_cost = at.entry_cost;
    CHECK(decoding.decode(at.acceptance, 400) < 1.02);  // a new engine's first request
    for (Sequence& sequence : decoding.sequences) sequence.history = {};
    CHECK(decoding.decode(at.acceptance, 4000) < 1.012);
  }
}

TEST_CASE("a change of domain is noticed in both directions") {
  Decoding decoding(turn_costs(6e-4, 1e-6, 4e-5), 1, 100000);
  for (int change = 0; change < 3; ++change) {
    CAPTURE(change);
    decoding.decode(0.02, 2000);
    CHECK(decoding.decode(0.02, 1000) < 1.015);
    decoding.decode(0.85, 1000);
    CHECK(decoding.decode(0.85, 1000) < 0.42);
  }
}

TEST_CASE("costs follow what runs take, context by context") {
  const TurnCosts costs = turn_costs(6e-4, 1e-6, 4e-5);
  LoopPacing pacing(costs);
  const double measured = CostCurve(costs.at(2))(8);
  CHECK(pacing.cost(2, 5, 200) == doctest::Approx(measured));  // graphs are for powers of two
  CHECK(pacing.cost(2, 100, 200) == doctest::Approx(CostCurve(costs.at(2))(32)));
  for (int run = 0; run < 20; ++run)
    pacing.ran({.depth = 2, .turns = 15}, 8, 700, 15, 15 * 1.5 * measured);
  CHECK(pacing.cost(2, 8, 700) == doctest::Approx(1.5 * measured).epsilon(0.01));
  CHECK(pacing.cost(2, 8, 200) == doctest::Approx(measured));
  CHECK(pacing.cost(2, 8, 5000) == doctest::Approx(1.5 * measured).epsilon(0.01));
  CHECK(pacing.cost(4, 8, 700) == doctest::Approx(CostCurve(costs.at(4))(8)));
}

TEST_CASE("what it takes to begin is weighed against what is left to emit") {
  for (const bool long_request : {false, true}) {
    Decoding decoding(turn_costs(6e-4, 1e-6, 4e-5), 1, long_request ? 512 : 8);
    decoding.pacing.ran({.depth = 0, .chosen = true}, 1, 200, 15, 15 * 6e-4);
    const LoopPacing::Plan plan = decoding.pacing.plan(decoding.batch, 200, 5e-3);
    CHECK((plan.depth > 0) == long_request);
  }
}
