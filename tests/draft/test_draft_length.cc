#include <doctest/doctest.h>

#include <algorithm>
#include <functional>
#include <random>

#include "draft/draft_length.h"
#include "draft/draft_tree.h"

using namespace specdec;

namespace {

CostCurve linear(double base, double slope) {
  return CostCurve({{1, base + slope}, {2, base + 2 * slope}, {101, base + 101 * slope}});
}

}  // namespace

TEST_CASE("a cost curve is linear between its points, goes on beyond them and never falls") {
  CostCurve curve({{1, 4.0}, {2, 5.0}, {4, 4.5}, {8, 9.0}});
  CHECK(curve(1) == doctest::Approx(4.0));
  CHECK(curve(2) == doctest::Approx(4.5));  // a wider pass took no longer
  CHECK(curve(3) == doctest::Approx(4.5));
  CHECK(curve(4) == doctest::Approx(4.5));
  CHECK(curve(6) == doctest::Approx(6.75));
  CHECK(curve(16) == doctest::Approx(18.0));
  CHECK(CostCurve()(5) == 0);
  // It follows what it sees, slowly and whatever the width; an outlier moves it little.
  for (int i = 0; i < 400; ++i) curve.follow(curve(2), 10.0);
  CHECK(curve(2) == doctest::Approx(10.0).epsilon(0.01));
  CHECK(curve(1) == doctest::Approx(10 * 4 / 4.5).epsilon(0.01));
  curve.follow(curve(2), 1e6);
  CHECK(curve(2) < 10.5);
}

TEST_CASE("a cost curve knows what contexts cost, by sequence and by row") {
  const ContextCost context{.context = 100, .per_token = 0.01, .per_row_token = 0.002};
  CostCurve curve({{1, 4.0}, {8, 11.0}}, context, 0.5);
  CHECK(curve.cold() == 0.5);
  curve.set_context(1, 100);
  CHECK(curve(1) == doctest::Approx(4.0));
  CHECK(curve(4) == doctest::Approx(7.0));
  curve.set_context(1, 600);
  CHECK(curve(1) == doctest::Approx(4 + 5 + 1));
  CHECK(curve(8) == doctest::Approx(11 + 5 + 8));
  // Three sequences read three contexts, and each row attends to its own.
  curve.set_context(3, 1800);
  CHECK(curve(8) == doctest::Approx(11 + 17 + 8));
  // Shorter ones than were timed cost less, never nothing.
  curve.set_context(1, 0);
  CHECK(curve(1) == doctest::Approx(4 - 1 - 0.2));
  CostCurve steep({{1, 4.0}}, {.context = 1000, .per_token = 1, .per_row_token = 0});
  steep.set_context(1, 0);
  CHECK(steep(1) > 0);
}

TEST_CASE("a width that was timed badly mends itself") {
  CostCurve curve({{1, 4.0}, {2, 4.0}, {4, 4.0}, {8, 8.0}});  // 4 rows take 6
  for (int i = 0; i < 300; ++i) {
    curve.follow_pass(1, 4.0);
    curve.follow_pass(4, 6.0);
  }
  CHECK(curve(1) == doctest::Approx(4.0).epsilon(0.02));
  CHECK(curve(4) == doctest::Approx(6.0).epsilon(0.02));
  CHECK(curve(3) > curve(1));
  CHECK(curve(8) < 10);
}

TEST_CASE("rows that a draft has run cost no first layers") {
  VerifyCost cost(linear(4, 1), linear(1, 0.5));
  CHECK(cost(4, 0) == doctest::Approx(8));
  CHECK(cost(4, 1) == doctest::Approx(7.5));
  CHECK(cost(4, 3) == doctest::Approx(6.5));
  CHECK(cost(4, 4) == doctest::Approx(5));  // nothing is left to run, not even for one row
  CHECK(cost(4, 9) == doctest::Approx(5));
  CHECK(cost(4) == doctest::Approx(8));
  cost.set_run(3);
  CHECK(cost(4) == doctest::Approx(6.5));
  CHECK(VerifyCost(linear(4, 1))(4, 3) == doctest::Approx(8));
  // What such a pass takes is not taken for the price of a whole one.
  for (int i = 0; i < 300; ++i) cost.follow_pass(4, 3, 6.5);
  CHECK(cost(4, 3) == doctest::Approx(6.5));
  CHECK(cost(4, 0) == doctest::Approx(8));
  for (int i = 0; i < 300; ++i) cost.follow_pass(4, 3, 13);
  CHECK(cost(4, 3) == doctest::Approx(13).epsilon(0.02));
  CHECK(cost(4, 0) > 14);
}

TEST_CASE("choose_nodes is the best prefix, by brute force") {
  std::mt19937 random(1);
  std::uniform_real_distribution<float> uniform(0.0f, 1.0f);
  for (int round = 0; round < 500; ++round) {
    std::vector<float> survivals(random() % 20);
    for (float& s : survivals) s = uniform(random);
    std::sort(survivals.begin(), survivals.end(), std::greater<>());
    const double emitters = 1.0 + static_cast<int>(random() % 4);
    const int rows = 1 + static_cast<int>(random() % 9);
    const double spent = static_cast<double>(uniform(random));
    const CostCurve verify = linear(4, static_cast<double>(uniform(random)));
    double best = 0;
    for (std::size_t count = 0; count <= survivals.size(); ++count) {
      double tokens = emitters;
      for (std::size_t i = 0; i < count; ++i) tokens += static_cast<double>(survivals[i]);
      const double pass = verify(rows + static_cast<int>(count));
      best = std::max(best, tokens / (spent + pass + 0.1 * (pass - verify(rows))));
    }
    const NodeChoice choice = choose_nodes(survivals, emitters, spent, rows, verify);
    CHECK(choice.goodput == doctest::Approx(best));
  }
}

TEST_CASE("free verification takes every node, dear verification none") {
  const std::vector<float> survivals = {0.9f, 0.5f, 0.1f};
  CHECK(choose_nodes(survivals, 1, 0, 1, linear(4, 0)).count == 3);
  CHECK(choose_nodes(survivals, 1, 0, 1, linear(0, 4)).count == 0);
  // A node pays if and only if its survival beats its share of the cost: 0.5 against 4/10 for one.
  CHECK(choose_nodes(survivals, 1, 0, 1, linear(3, 1)).count == 2);
  // One that would just be worth its row, were its estimate right, is left.
  const std::vector<float> hardly = {0.26f};
  CHECK(choose_nodes(hardly, 1, 0, 1, linear(3, 1)).count == 0);
  const std::vector<float> clearly = {0.28f};
  CHECK(choose_nodes(clearly, 1, 0, 1, linear(3, 1)).count == 1);
}

TEST_CASE("probes lose a hundredth of the time at most, and what they bring is set off") {
  ProbeBudget budget;
  double lost = 0;
  for (int step = 0; step < 1000; ++step) {
    budget.earn(10);
    if (!budget.allows()) continue;
    budget.spend(4);
    lost += 4;
  }
  CHECK(lost > 90);
  CHECK(lost <= 100 + 4);
  // One that brings more than it costs may be followed by the next; gains are not saved up.
  budget.regain(1000);
  CHECK(budget.allows());
  budget.spend(4);
  CHECK_FALSE(budget.allows());
  budget.regain(5);
  CHECK(budget.allows());
  // A probe that is due and may not be made is not forgotten.
  DraftHistory history;
  for (int step = 1; step < 8; ++step) CHECK_FALSE(history.probe());
  for (int step = 0; step < 5; ++step) CHECK_FALSE(history.probe(false));
  CHECK(history.probe());
  CHECK_FALSE(history.probe());
}

TEST_CASE("a sequence's history decides whether to draft, and forgets") {
  const CostCurve verify = linear(4, 0.3);
  const CostCurve draft = linear(0.4, 0);
  DraftHistory history;
  CHECK(choose_depth(history, 5, 1, 0, 1, verify, draft).count > 0);
  for (int i = 0; i < 50; ++i) history.observe_depth(1, false);
  CHECK(history.expected(1) < 0.15);
  CHECK(choose_depth(history, 5, 1, 0, 1, verify, draft).count == 0);
  // Plain decoding now; every so often it is tried again, at longer and longer intervals.
  std::vector<int> probes;
  for (int step = 1; step <= 200; ++step)
    if (history.probe()) probes.push_back(step);
  CHECK(probes == std::vector<int>{8, 24, 56, 120, 184});
  // A change of domain: drafts are right again, and drafting returns within a few of them.
  int needed = 0;
  while (choose_depth(history, 5, 1, 0, 1, verify, draft).count == 0 && needed < 100) {
    history.observe_depth(1, true);
    ++needed;
  }
  CHECK(needed < 10);
  history.paid();
  int next = 0;
  while (!history.probe()) ++next;
  CHECK(next == 7);
  // A wide batch on a processor that has no rows to spare: plain decoding, however good the draft.
  for (int depth = 1; depth <= 5; ++depth)
    for (int i = 0; i < 50; ++i) history.observe_depth(depth, true);
  CHECK(choose_depth(history, 5, 1, 0, 1, verify, draft).count == 5);
  CHECK(choose_depth(history, 5, 32, 0, 32, linear(0, 4), linear(0, 2)).count == 0);
}

TEST_CASE("trials of a window that does not pay take a small share of the time") {
  for (const double cost : {0.2, 1.0, 5.0}) {
    CAPTURE(cost);
    WindowHistory window;
    int open = 0;
    int first = 0;
    constexpr int kSteps = 20000;
    for (int step = 1; step <= kSteps; ++step) {
      if (!window.open(cost)) continue;
      window.observe(0);
      if (++open == 1) first = step;
    }
    CHECK(open > 0);
    CHECK(first > (cost > 0.5 ? 255 : 0));  // at first it is taken for worth half a token
    CHECK(open * cost < 0.03 * kSteps);
  }
}

TEST_CASE("calibration learns how far a drafter's confidence is to be trusted") {
  Calibration calibration;
  CHECK(calibration.estimate(0.9f, 0) == doctest::Approx(0.9));
  std::mt19937 random(3);
  std::uniform_real_distribution<double> uniform(0.0, 1.0);
  // Overconfident: right half as often as it says.
  for (int i = 0; i < 20000; ++i) {
    const auto confidence = static_cast<float>(0.02 + 0.96 * uniform(random));
    calibration.observe(confidence, uniform(random) < 0.5 * static_cast<double>(confidence));
  }
  for (const float confidence : {0.2f, 0.5f, 0.8f, 0.95f})
    CHECK(std::abs(calibration.estimate(confidence, 0) - 0.5 * static_cast<double>(confidence)) <
          0.08);
  CHECK(calibration.estimate(0.5f, 1) > calibration.estimate(0.5f, 0));
  CHECK(calibration.estimate(0.5f, -1) < calibration.estimate(0.5f, 0));
  CHECK(calibration.estimate(1.0f, 0) <= 1.0);
  CHECK(calibration.estimate(0.0f, 0) >= 0.0);
}

TEST_CASE("a tree that keeps some of its nodes keeps their paths") {
  DraftTree tree(7);
  tree.add(1, 0);  // 1
  tree.add(2, 0);  // 2
  tree.add(3, 2);  // 3
  tree.add(4, 1);  // 4
  tree.add(5, 3);  // 5
  tree.retain({true, false, true, true, false, true});
  CHECK(tree.tokens == std::vector<TokenId>{7, 2, 3, 5});
  CHECK(tree.parents == std::vector<std::int32_t>{-1, 0, 1, 2});
  CHECK(tree.depths == std::vector<std::int32_t>{0, 1, 2, 3});
  CHECK(tree.is_chain());
}
