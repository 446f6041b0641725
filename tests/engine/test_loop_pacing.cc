#include <doctest/doctest.h>

#include <map>
#include <random>
#include <utility>
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

constexpr double kReady[] = {0};  // one sequence that may draft at once

/// A batch whose drafts are right with a given probability, token by token.
struct Decoding {
  Decoding(const TurnCosts& costs, int count, int max_tokens)
      : truth(costs),
        pacing(costs),
        sequences(static_cast<std::size_t>(count)),
        missed(sequences.size()),
        random(11) {
    for (Sequence& sequence : sequences) {
      sequence.draft_depth = 7;
      sequence.request.sampling.max_tokens = max_tokens;
      batch.push_back(&sequence);
    }
  }

  int count() const { return static_cast<int>(batch.size()); }
  double turn_seconds(int depth) const { return slowdown * CostCurve(truth.at(depth))(count()); }

  /// Runs until each sequence has emitted `tokens` more on average; returns the seconds over those
  /// of plain decoding.
  double decode(double acceptance, int tokens) {
    std::bernoulli_distribution right(acceptance);
    double seconds = 0;
    std::int64_t emitted = 0;
    const auto wanted = static_cast<std::int64_t>(tokens) * std::ssize(batch);
    while (emitted < wanted) {
      std::vector<double> entries;
      for (const int behind : missed)
        entries.push_back(behind > 0 ? entry_cost / count() + behind * missed_cost : 0);
      const LoopPacing::Plan plan = pacing.plan(batch, context, entries);
      const double run = plan.turns * turn_seconds(plan.depth);
      for (std::size_t i = 0; i < batch.size(); ++i) {
        const bool drafts = plan.depth > 0 && plan.joins[i];
        if (drafts) seconds += std::exchange(entries[i], 0);
        missed[i] = drafts ? 0 : missed[i] + plan.turns;
      }
      for (int turn = 0; turn < plan.turns; ++turn)
        for (std::size_t i = 0; i < batch.size(); ++i) {
          int taken = 0;
          const bool drafts = plan.depth > 0 && plan.joins[i];
          while (drafts && taken < plan.depth && right(random)) ++taken;
          if (drafts) pacing.learn(*batch[i], plan.depth, taken);
          emitted += 1 + taken;
        }
      pacing.ran(plan, static_cast<int>(batch.size()), context, plan.turns, run);
      seconds += run + kEntry;
      turns[plan.depth] += plan.turns;
    }
    const double turns_wanted = static_cast<double>(emitted) / static_cast<double>(batch.size());
    return seconds / (turns_wanted * turn_seconds(0) * (1 + kEntry / LoopPacing::kRunSeconds));
  }

  static constexpr double kEntry = 1e-4;  // seconds into a run and out of it

  TurnCosts truth;
  LoopPacing pacing;
  std::vector<Sequence> sequences;
  std::vector<int> missed;  // tokens of each that the drafter has not seen
  std::vector<Sequence*> batch;
  std::mt19937 random;
  int context = 200;
  double entry_cost = 0;   // after a plain run
  double missed_cost = 0;  // ... and for each token that was missed
  double slowdown = 1;
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

TEST_CASE("answer after answer, each soon has the depth that suits it") {
  // A third are drafted far better than the others; what is common to all suits none.
  const TurnCosts costs = turn_costs(6e-4, 1e-6, 4e-5);
  Decoding decoding(costs, 1, 200);
  double good = 0;
  double fair = 0;
  constexpr int kAnswers = 60;
  for (int answer = 0; answer < kAnswers; ++answer) {
    decoding.sequences.front().history = {};
    if (answer % 3 == 0)
      good += decoding.decode(0.9, 200);
    else
      fair += decoding.decode(0.45, 200);
  }
  MESSAGE("ratios " << (3 * good / kAnswers) << " " << (1.5 * fair / kAnswers));
  CHECK(3 * good / kAnswers < 0.4);
  CHECK(1.5 * fair / kAnswers < 0.8);
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
  // Over what was measured: Approx takes numbers below one for noughts.
  const auto over_measured = [&](int depth, int sequences, int context, int measured_for) {
    return pacing.cost(depth, sequences, context) / CostCurve(costs.at(depth))(measured_for);
  };
  CHECK(over_measured(2, 5, 200, 8) == doctest::Approx(1));  // graphs are for powers of two
  CHECK(over_measured(2, 100, 200, 32) == doctest::Approx(1));
  const auto run = [&](int context, double slower) {
    for (int i = 0; i < 20; ++i)
      pacing.ran({.depth = 2, .turns = 15}, 8, context, 15,
                 15 * slower * CostCurve(costs.at(2))(8));
  };
  run(300, 1.2);
  run(700, 1.5);
  CHECK(over_measured(2, 8, 200, 8) == doctest::Approx(1));
  CHECK(over_measured(2, 8, 300, 8) == doctest::Approx(1.2).epsilon(0.01));
  CHECK(over_measured(2, 8, 700, 8) == doctest::Approx(1.5).epsilon(0.01));
  CHECK(over_measured(2, 8, 5000, 8) == doctest::Approx(1.5).epsilon(0.01));
  // What has not run there takes so much more as what has.
  CHECK(over_measured(4, 8, 700, 8) == doctest::Approx(1.5).epsilon(0.01));
  for (int i = 0; i < 20; ++i)
    pacing.ran({.depth = 4, .turns = 15}, 8, 300, 15, 15 * 1.1 * CostCurve(costs.at(4))(8));
  CHECK(over_measured(4, 8, 700, 8) == doctest::Approx(1.1 * 1.5 / 1.2).epsilon(0.01));
}

TEST_CASE("over a longer context no depth looks cheap that was not tried there") {
  // Drafts that pay at a prompt's beginning no more do so over long prompts, and all turns take
  // half as long again there.
  const TurnCosts costs = turn_costs(4e-4, 1e-5, 9e-5);
  Decoding decoding(costs, 8, 100000);
  decoding.decode(0.75, 2000);
  decoding.context = 1500;
  decoding.slowdown = 1.5;
  decoding.turns.clear();
  double total = 0;
  for (int prompt = 0; prompt < 3; ++prompt) {
    for (Sequence& sequence : decoding.sequences) sequence.history = {};
    total += decoding.decode(0.25, 150);
  }
  CHECK(total / 3 < 1.035);
  for (const auto& [depth, turns] : decoding.turns) {
    CAPTURE(turns);
    CHECK(depth <= 1);
  }
}

TEST_CASE("a hair's breadth changes nothing") {
  // A new sequence's drafts are put at 0.7.
  for (const double gain : {0.995, 1.005}) {
    CAPTURE(gain);
    const TurnCosts costs = {{0, {{1, 1e-3}}}, {1, {{1, 1.7e-3 / gain}}}};
    Decoding decoding(costs, 1, 100000);
    decoding.sequences[0].draft_depth = 1;
    for (const int before : {1, 0, 1}) {
      decoding.pacing.ran({.depth = before, .chosen = true}, 1, 200, 0, 0);
      CHECK(decoding.pacing.plan(decoding.batch, 200, kReady).depth == before);
    }
  }
}

TEST_CASE("what it takes to begin is weighed against what is left to emit") {
  for (const bool long_request : {false, true}) {
    Decoding decoding(turn_costs(6e-4, 1e-6, 4e-5), 1, long_request ? 512 : 8);
    decoding.pacing.ran({.depth = 0, .chosen = true}, 1, 200, 15, 15 * 6e-4);
    const double entry_costs[] = {5e-3};
    const LoopPacing::Plan plan = decoding.pacing.plan(decoding.batch, 200, entry_costs);
    CHECK((plan.depth > 0) == long_request);
  }
}

TEST_CASE("a drafter that has to make up for what it missed returns where that pays") {
  // A prompt's token at a two-hundredth of a decoded one, as on a GPU: tries stay within their
  // hundredth, and the change is seen.
  Decoding cheap(turn_costs(6e-4, 1e-6, 4e-5), 1, 100000);
  cheap.missed_cost = 3e-6;
  for (int change = 0; change < 2; ++change) {
    CAPTURE(change);
    cheap.decode(0.02, 2000);
    CHECK(cheap.decode(0.02, 4000) < 1.015);
    cheap.decode(0.85, 1500);
    CHECK(cheap.decode(0.85, 1000) < 0.42);
  }
  // At a tenth: no try would stay within it.
  Decoding dear(turn_costs(6e-4, 1e-6, 4e-5), 1, 100000);
  dear.missed_cost = 6e-5;
  dear.decode(0.02, 2000);
  dear.turns.clear();
  CHECK(dear.decode(0.02, 8000) < 1.01);
  CHECK(dear.turns.size() == 1);
}

TEST_CASE("each sequence's return is weighed against what it has left") {
  Decoding decoding(turn_costs(6e-4, 1e-6, 4e-5), 3, 512);
  for (Sequence& sequence : decoding.sequences)
    for (int i = 0; i < 20; ++i)
      for (int depth = 1; depth <= 7; ++depth) sequence.history.observe_depth(depth, true);
  decoding.sequences[2].request.sampling.max_tokens = 6;
  const auto plan = [&](std::vector<double> entry_costs) {
    decoding.pacing.ran({.depth = 0, .chosen = true}, 3, 200, 0, 0);
    return decoding.pacing.plan(decoding.batch, 200, entry_costs);
  };
  using Joins = std::vector<bool>;
  CHECK(plan({0, 0, 0}).joins == Joins{true, true, true});
  CHECK(plan({0, 2e-3, 2e-3}).joins == Joins{true, true, false});
  CHECK(plan({0, 1, 2e-3}).joins == Joins{true, false, false});
  CHECK(plan({1e-2, 1e-2, 0}).joins == Joins{true, true, true});
  // None of them is worth it: nobody drafts.
  CHECK(plan({1, 1, 1}).depth == 0);
  CHECK(plan({1, 1, 2e-3}).depth == 0);
  // What each is worth must be worth it to all of them: together they gain less than a seventh.
  const TurnCosts dear = {{0, {{1, 1e-3}, {8, 1e-3}}}, {1, {{1, 1.8e-3}, {8, 1.8e-3}}}};
  Decoding wide(dear, 3, 512);
  for (Sequence& sequence : wide.sequences) {
    sequence.draft_depth = 1;
    for (int i = 0; i < 40; ++i) sequence.history.observe_depth(1, true);
  }
  wide.pacing.ran({.depth = 0, .chosen = true}, 3, 200, 0, 0);
  CHECK(wide.pacing.plan(wide.batch, 200, std::vector<double>{1e-3, 1e-3, 1e-3}).depth == 1);
  // A turn that drafts for one of them alone costs the others more than it brings.
  CHECK(wide.pacing.plan(wide.batch, 200, std::vector<double>{0, 100, 100}).depth == 0);
  CHECK(wide.pacing.plan(wide.batch, 200, std::vector<double>{1e-2, 1e-2, 1e-2}).depth == 0);
}
