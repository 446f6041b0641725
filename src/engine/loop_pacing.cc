#include "engine/loop_pacing.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <utility>

namespace specdec {

namespace {

constexpr int kShortestContext = 256;

int context_bucket(int context) {
  return static_cast<int>(
      std::bit_ceil(static_cast<unsigned>(std::max(context, kShortestContext))));
}

int num_left(const Sequence& sequence) {
  return sequence.request.sampling.max_tokens - sequence.num_output();
}

/// What a turn would emit for a sequence that is drafted well.
double good_tokens(int depth) {
  constexpr double kGoodDraft = 0.8;  // of the tokens are right at every depth
  return (1 - std::pow(kGoodDraft, depth + 1)) / (1 - kGoodDraft);
}

/// Who is to draft in a run, and what is known of them.
struct Drafting {
  std::vector<bool> joins;  // [batch]
  double entry_cost = 0;    // seconds before all of them can
  int left = 0;             // tokens that one of them may still emit
  double seen = kStretch;   // drafts of the one of which least is known
};

/// Those for whom a turn of `seconds` is worth what it takes before they can draft. It is
/// everybody's turn: what a sequence saves is its share of the turns that it takes less.
/// `expected(sequence)`: what it emits in one when it drafts.
template <class Expected>
Drafting who_drafts(std::span<Sequence* const> batch, std::span<const double> entry_costs,
                    double seconds, const Expected& expected) {
  Drafting drafting;
  for (std::size_t i = 0; i < batch.size(); ++i) {
    const Sequence& sequence = *batch[i];
    const int left = num_left(sequence);
    const double saved = std::min(left, kStretch) * (1 - 1 / expected(sequence)) * seconds /
                         static_cast<double>(batch.size());
    const bool joins = sequence.draft_depth > 0 && (entry_costs[i] == 0 || saved > entry_costs[i]);
    drafting.joins.push_back(joins);
    if (!joins) continue;
    drafting.entry_cost += entry_costs[i];
    drafting.left = std::max(drafting.left, left);
    drafting.seen = std::min(drafting.seen, sequence.history.num_seen());
  }
  return drafting;
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

std::pair<int, double> LoopPacing::Curve::nearest(int bucket) const {
  const auto above = scales.upper_bound(bucket);
  if (above == scales.begin()) return {0, 1};
  return {std::prev(above)->first, std::prev(above)->second.value};
}

double LoopPacing::scale(const Curve& curve, int context) const {
  const int bucket = context_bucket(context);
  const auto [known, value] = curve.nearest(bucket);
  if (known == bucket) return value;
  // A depth that has not run here takes so much more than over shorter contexts as the one that ran
  // most: else every depth would look cheap until it was tried.
  int most = 0;  // turns
  double ratio = 1;
  for (const auto& [depth, other] : curves_)
    if (const auto here = other.scales.find(bucket);
        here != other.scales.end() && here->second.turns > most) {
      most = here->second.turns;
      ratio = here->second.value / other.nearest(known).second;
    }
  return value * ratio;
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

/// What a turn is expected to emit for a sequence that drafts. Depths that its drafts have hardly
/// reached are as much better or worse than everybody's as the one above: short drafts would else
/// keep drafts short.
double LoopPacing::tokens(const Sequence& sequence, int depth) const {
  constexpr double kLeast = 0.02;
  double expected = 0;
  double alive = 1;
  double lead = 0;  // over everybody
  for (int at = 0; at <= std::min(depth, sequence.draft_depth); ++at) {
    if (at > 0) {
      const double common = survival(at);
      const double share =
          sequence.history.expected(at, std::clamp(common + lead, kLeast, 1 - kLeast));
      lead = share - common;
      alive *= share;
    }
    expected += alive;
  }
  return expected;
}

/// What a turn is expected to emit when these sequences draft.
double LoopPacing::tokens(std::span<Sequence* const> batch, const std::vector<bool>& joins,
                          int depth) const {
  double expected = 0;
  for (std::size_t i = 0; i < batch.size(); ++i)
    expected += joins[i] ? tokens(*batch[i], depth) : 1;
  return expected;
}

LoopPacing::Plan LoopPacing::plan(std::span<Sequence* const> batch, int context,
                                  std::span<const double> entry_costs) {
  const auto sequences = static_cast<int>(batch.size());
  int deepest = 0;
  for (const Sequence* sequence : batch) deepest = std::max(deepest, sequence->draft_depth);
  const double plain_turn = cost(0, sequences, context);
  const double plain = sequences / plain_turn;
  const auto turns_for = [&](int depth) {
    return std::clamp(static_cast<int>(kRunSeconds / cost(depth, sequences, context)), 1,
                      kMostTurns);
  };
  // What it takes to begin has to come in again, and going back and forth for a hair's breadth pays
  // nobody.
  constexpr double kMargin = 0.01;
  constexpr int kFewTurns = 4;  // enough to see, few enough to have lost little
  Plan best;
  double best_gained = 0;
  int shortest = 0;  // depth that a probe has
  for (const auto& [depth, curve] : curves_) {
    if (depth == 0 || deepest == 0) continue;
    if (shortest == 0) shortest = depth;
    const double turn = cost(depth, sequences, context);
    Drafting drafting =
        who_drafts(batch, entry_costs, turn,
                   [&, at = depth](const Sequence& sequence) { return tokens(sequence, at); });
    const double goodput = tokens(batch, drafting.joins, depth) / turn;
    const double stretch = std::min(drafting.left, kStretch) * plain_turn;
    const double gained = stretch * (1 - plain / goodput) - drafting.entry_cost -
                          (drafted_ ? -kMargin : kMargin) * stretch;
    if (gained > best_gained) {
      best_gained = gained;
      // As long again as what is known of everybody has taken: a depth that does not suit a
      // sequence is soon another.
      const int known = std::max(kFewTurns, static_cast<int>(2 * drafting.seen));
      best = {.depth = depth,
              .turns = std::min(known, turns_for(depth)),
              .chosen = true,
              .joins = std::move(drafting.joins)};
    }
    if (depth >= deepest) break;
  }
  if (best.depth > 0) return best;
  if (shortest == 0) return {.depth = 0, .turns = turns_for(0)};
  Plan none{.depth = 0, .turns = turns_for(0), .chosen = true};
  // Probes may take one hundredth of the time.
  constexpr double kProbeShare = 0.01;
  constexpr double kRunOverhead = 1e-4;  // seconds
  const double turn = cost(shortest, sequences, context);
  Drafting probed = who_drafts(batch, entry_costs, turn, [&](const Sequence& sequence) {
    return good_tokens(std::min(deepest, sequence.draft_depth));
  });
  if (probed.left == 0) return none;
  const double lost = turn - plain_turn * tokens(batch, probed.joins, shortest) / sequences;
  const double probe = kFewTurns * std::max(0.0, lost) + probed.entry_cost + kRunOverhead;
  if (kProbeShare * plain_seconds_ < probe) return none;
  return {.depth = shortest,
          .turns = kFewTurns,
          .probes = true,
          .chosen = true,
          .joins = std::move(probed.joins)};
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
  // Half of what a run of thirty turns says, and more of the first ones; a hiccup counts as twice
  // as slow at most.
  constexpr int kMostTurnsKnown = 22;
  constexpr int kTurnsGuessed = 8;
  const double now = scale(curve, context);
  const double actual = std::clamp(seconds / measured, 0.5 * now, 2 * now);
  Scale& here = curve.scales[context_bucket(context)];
  here.value = now + (actual - now) * turns / (turns + here.turns + kTurnsGuessed);
  here.turns = std::min(here.turns + turns, kMostTurnsKnown);
}

}  // namespace specdec
