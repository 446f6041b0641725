#include "engine/loop_pacing.h"

#include <algorithm>
#include <bit>
#include <cmath>

namespace specdec {

namespace {

constexpr int kShortestContext = 256;

int context_bucket(int context) {
  return static_cast<int>(
      std::bit_ceil(static_cast<unsigned>(std::max(context, kShortestContext))));
}

}  // namespace

LoopPacing::LoopPacing(const TurnCosts& costs) {
  for (const auto& [depth, points] : costs)
    curves_[depth] = {.by_sequences = CostCurve(points), .most = points.back().first, .scales = {}};
}

double LoopPacing::Curve::measured(int sequences) const {
  const auto rounded = static_cast<int>(std::bit_ceil(static_cast<unsigned>(sequences)));
  return by_sequences(std::min(rounded, most));
}

double LoopPacing::scale(const Curve& curve, int context) {
  // A longer context than any so far begins as the longest did, which is nearest to it.
  const auto above = curve.scales.upper_bound(context_bucket(context));
  return above == curve.scales.begin() ? 1 : std::prev(above)->second;
}

double LoopPacing::cost(int depth, int sequences, int context) const {
  const Curve& curve = curves_.at(depth);
  return scale(curve, context) * curve.measured(sequences);
}

double LoopPacing::survival(int depth) const {
  // Drafts are worth a try until some have failed.
  constexpr double kPrior = 0.7;
  constexpr double kPriorWeight = 8;
  return depths_.expected(depth, kPrior, kPriorWeight);
}

/// What a turn is expected to emit.
double LoopPacing::tokens(std::span<Sequence* const> batch, int depth) const {
  double expected = 0;
  for (const Sequence* sequence : batch) {
    double alive = 1;
    for (int at = 0; at <= std::min(depth, sequence->draft_depth); ++at) {
      if (at > 0) alive *= sequence->history.expected(at, survival(at));
      expected += alive;
    }
  }
  return expected;
}

LoopPacing::Plan LoopPacing::plan(std::span<Sequence* const> batch, int context,
                                  double entry_cost) {
  const auto sequences = static_cast<int>(batch.size());
  int deepest = 0;
  int left = 0;  // tokens that some sequence may still emit
  bool unknown = false;
  for (const Sequence* sequence : batch) {
    if (sequence->draft_depth == 0) continue;
    deepest = std::max(deepest, sequence->draft_depth);
    left = std::max(left, sequence->request.sampling.max_tokens - sequence->num_output());
    constexpr double kKnown = 4;  // drafts
    unknown = unknown || sequence->history.num_seen() < kKnown;
  }
  const double plain_turn = cost(0, sequences, context);
  const double plain = sequences / plain_turn;
  Plan best;
  double best_goodput = 0;
  int shortest = 0;  // depth that a probe has
  for (const auto& [depth, curve] : curves_) {
    if (depth == 0 || deepest == 0) continue;
    if (shortest == 0) shortest = depth;
    const double goodput = tokens(batch, depth) / cost(depth, sequences, context);
    if (goodput > best_goodput) best.depth = depth, best_goodput = goodput;
    if (depth >= deepest) break;
  }
  const auto turns_for = [&](int depth) {
    return std::clamp(static_cast<int>(kRunSeconds / cost(depth, sequences, context)), 1,
                      kMostTurns);
  };
  constexpr int kFewTurns = 4;  // enough to see, few enough to have lost little
  // What it takes to begin has to come in again within a stretch that the text may well keep to,
  // and going back and forth for a hair's breadth pays nobody.
  constexpr int kStretch = 128;
  constexpr double kMargin = 0.01;
  const double stretch = std::min(left, kStretch) * plain_turn;
  const double gained = best_goodput > 0 ? stretch * (1 - plain / best_goodput) : 0;
  const double wanted = entry_cost + (drafted_ ? -kMargin : kMargin) * stretch;
  if (best.depth > 0 && gained > wanted) {
    best.chosen = true;
    best.turns = unknown ? std::min(kFewTurns, turns_for(best.depth)) : turns_for(best.depth);
    return best;
  }
  if (shortest == 0) return {.depth = 0, .turns = turns_for(0)};
  // Probes may take one hundredth of the time.
  constexpr double kProbeShare = 0.01;
  constexpr double kRunOverhead = 1e-4;  // seconds
  const double lost =
      cost(shortest, sequences, context) - plain_turn * tokens(batch, shortest) / sequences;
  const double probe = kFewTurns * std::max(0.0, lost) + entry_cost + kRunOverhead;
  if (kProbeShare * plain_seconds_ >= probe)
    return {.depth = shortest, .turns = kFewTurns, .probes = true, .chosen = true};
  return {.depth = 0, .turns = turns_for(0), .chosen = true};
}

void LoopPacing::learn(Sequence& sequence, int depth, int num_accepted) {
  constexpr double kMemory = 0.998;
  const int tried = std::min({depth, sequence.draft_depth, num_accepted + 1});
  for (int at = 1; at <= tried; ++at) {
    const bool taken = at <= num_accepted;
    sequence.history.observe_depth(at, taken);
    depths_.observe(at, taken, kMemory);
  }
}

void LoopPacing::ran(const Plan& plan, int sequences, int context, int turns, double seconds) {
  if (plan.chosen) {
    drafted_ = plan.depth > 0 && !plan.probes;
    plain_seconds_ = plan.depth > 0 ? 0 : plain_seconds_ + seconds;
  }
  if (turns < 1) return;
  Curve& curve = curves_.at(plan.depth);
  const double measured = turns * curve.measured(sequences);
  if (measured <= 0) return;
  // Half of what a run of thirty turns says; a hiccup counts as twice as slow at most.
  constexpr double kMemory = 0.977;
  const double now = scale(curve, context);
  const double actual = std::clamp(seconds / measured, 0.5 * now, 2 * now);
  const double weight = 1 - std::pow(kMemory, turns);
  curve.scales[context_bucket(context)] = now + weight * (actual - now);
}

}  // namespace specdec
