#include "draft/draft_length.h"

#include <algorithm>
#include <cmath>

namespace specdec {

namespace {

double logit(double probability) { return std::log(probability / (1 - probability)); }
double sigmoid(double x) { return 1 / (1 + std::exp(-x)); }

}  // namespace

CostCurve::CostCurve(std::vector<std::pair<int, double>> measured, const ContextCost& context,
                     double cold)
    : points_(std::move(measured)), context_(context), cold_(cold) {
  for (std::size_t i = points_.size(); i-- > 1;)
    points_[i - 1].second = std::min(points_[i - 1].second, points_[i].second);
}

void CostCurve::set_context(int sequences, double tokens) {
  tokens_ = tokens - context_.context;
  mean_tokens_ = tokens / std::max(1, sequences) - context_.context;
}

std::pair<std::size_t, double> CostCurve::place(int rows) const {
  if (rows <= points_.front().first || points_.size() == 1) return {0, 1};
  std::size_t upper = 1;
  while (upper + 1 < points_.size() && points_[upper].first < rows) ++upper;
  const int low = points_[upper - 1].first;
  return {upper, static_cast<double>(rows - low) / (points_[upper].first - low)};
}

double CostCurve::operator()(int rows) const {
  if (points_.empty()) return 0;
  const auto [upper, share] = place(rows);
  const double high = points_[upper].second;
  const double low = upper == 0 ? high : points_[upper - 1].second;
  const double attention =
      context_.per_token * tokens_ + context_.per_row_token * rows * mean_tokens_;
  // Over short contexts the line may lead below what a pass can take.
  constexpr double kLeast = 0.5;
  return scale_ * std::max(low + (high - low) * share + attention, kLeast * low);
}

void CostCurve::follow(double predicted, double actual) {
  if (predicted <= 0) return;
  constexpr double kRate = 0.02;
  // A pass that was interrupted says nothing: it counts as twice as slow at most.
  scale_ *= 1 + kRate * (std::min(actual / predicted, 2.0) - 1);
}

void CostCurve::follow_pass(int rows, double seconds) {
  const double predicted = (*this)(rows);
  if (predicted <= 0) return;
  constexpr double kRate = 0.05;
  const double change = kRate * (std::min(seconds / predicted, 2.0) - 1);
  const auto [upper, share] = place(rows);
  points_[upper].second *= 1 + std::clamp(share, 0.0, 1.0) * change;
  if (upper > 0) points_[upper - 1].second *= 1 + std::clamp(1 - share, 0.0, 1.0) * change;
  follow(predicted, seconds);
}

void VerifyCost::set_context(int sequences, double tokens) {
  whole_.set_context(sequences, tokens);
  first_layers_.set_context(sequences, tokens);
}

double VerifyCost::spared(int rows, int run) const {
  const int left = std::max(0, rows - run);
  return first_layers_(rows) - (left > 0 ? first_layers_(left) : 0);
}

void VerifyCost::follow_pass(int rows, int run, double seconds) {
  const double predicted = (*this)(rows, run);
  whole_.follow_pass(rows, seconds + spared(rows, run));
  first_layers_.follow(predicted, seconds);
}

int Calibration::bin_of(float confidence) {
  const double bounded = std::clamp(static_cast<double>(confidence), 1e-6, 1 - 1e-6);
  const double at = (std::clamp(logit(bounded), -5.0, 5.0) + 5) / 10 * (kBins - 1);
  return static_cast<int>(std::lround(at));
}

double Calibration::estimate(float confidence, double bias) const {
  // Until a bin has seen something, the drafter is believed: as if it had been right four times.
  constexpr double kPrior = 4;
  const Bin& bin = bins_[static_cast<std::size_t>(bin_of(confidence))];
  const double believed = std::clamp(static_cast<double>(confidence), 0.001, 0.999);
  const double share = (bin.taken + kPrior * believed) / (bin.seen + kPrior);
  return bias == 0 ? share : sigmoid(logit(std::clamp(share, 0.001, 0.999)) + bias);
}

void Calibration::observe(float confidence, bool taken) {
  constexpr double kMemory = 0.995;
  Bin& bin = bins_[static_cast<std::size_t>(bin_of(confidence))];
  bin.seen = kMemory * bin.seen + 1;
  bin.taken = kMemory * bin.taken + (taken ? 1 : 0);
}

double DepthShares::expected(int depth, double prior, double prior_weight) const {
  const Depth& at = depths_[place(depth)];
  return (at.taken + prior_weight * prior) / (at.seen + prior_weight);
}

void DepthShares::observe(int depth, bool taken, double memory) {
  Depth& at = depths_[place(depth)];
  at.seen = memory * at.seen + 1;
  at.taken = memory * at.taken + (taken ? 1 : 0);
}

double DraftHistory::expected(int depth, double prior) const {
  constexpr double kPriorWeight = 3;
  return depths_.expected(depth, prior, kPriorWeight);
}

void DraftHistory::observe_node(double estimate, bool taken) {
  constexpr double kRate = 0.05;
  bias_ = std::clamp(0.99 * bias_ + kRate * ((taken ? 1 : 0) - estimate), -2.0, 2.0);
}

void DraftHistory::observe_depth(int depth, bool taken) {
  constexpr double kMemory = 0.95;
  depths_.observe(depth, taken, kMemory);
  if (depth > 1 || !taken) return;
  interval_ = kFirstProbe;
  plain_steps_ = kFirstProbe - 1;
}

bool DraftHistory::probe(bool allowed) {
  if (++plain_steps_ < interval_ || !allowed) return false;
  plain_steps_ = 0;
  interval_ = std::min(2 * interval_, kLongestProbe);
  return true;
}

void ProbeBudget::earn(double seconds) {
  constexpr double kShare = 0.01;
  regain(kShare * seconds);
}

void ProbeBudget::regain(double seconds) { lost_ = std::max(0.0, lost_ - seconds); }

bool WindowHistory::open(double cost) {
  // Half a token a step is what a window of this kind brings in running text.
  constexpr double kPrior = 0.5;
  constexpr double kPriorWeight = 8;
  if ((accepted_ + kPriorWeight * kPrior) / (seen_ + kPriorWeight) > cost) {
    interval_ = kFirstTrial;
    plain_steps_ = trial_left_ = 0;
    return true;
  }
  if (trial_left_ > 0) {
    --trial_left_;
    return true;
  }
  constexpr double kTrialShare = 0.02;  // of the time
  if (++plain_steps_ < std::max<double>(interval_, kTrialSteps * cost / kTrialShare)) return false;
  plain_steps_ = 0;
  interval_ = std::min(2 * interval_, kLongestTrial);
  trial_left_ = kTrialSteps - 1;
  return true;
}

void WindowHistory::observe(int accepted) {
  constexpr double kMemory = 0.95;
  seen_ = kMemory * seen_ + 1;
  accepted_ = kMemory * accepted_ + accepted;
}

namespace {

/// Seconds of a pass over so many rows more than `base_rows`, behind drafts that have run so many,
/// the further rows at a tenth above their price: of many estimates the best are those that flatter
/// most, and where a row costs nearly what its token is worth, taking each at its word loses.
double cautious_cost(const VerifyCost& verify, int base_rows, int more, int run) {
  constexpr double kCaution = 0.1;
  const double all = verify(base_rows + more, run);
  return all + kCaution * (all - verify(base_rows, run));
}

}  // namespace

NodeChoice choose_nodes(std::span<const float> survivals, double emitters, double spent,
                        int base_rows, const VerifyCost& verify) {
  NodeChoice best{.count = 0, .goodput = emitters / (spent + verify(base_rows))};
  double expected = emitters;
  for (int count = 1; count <= static_cast<int>(survivals.size()); ++count) {
    expected += static_cast<double>(survivals[static_cast<std::size_t>(count - 1)]);
    const double goodput =
        expected / (spent + cautious_cost(verify, base_rows, count, verify.run()));
    if (goodput > best.goodput) best = {.count = count, .goodput = goodput};
  }
  return best;
}

NodeChoice choose_depth(const DraftHistory& history, int max_depth, int sequences, double spent,
                        int base_rows, const VerifyCost& verify, const CostCurve& draft,
                        double prior) {
  NodeChoice best{.count = 0, .goodput = sequences / (spent + verify(base_rows))};
  double expected = 1;
  double survival = 1;
  for (int depth = 1; depth <= max_depth; ++depth) {
    survival *= history.expected(depth, prior);
    expected += survival;
    const double seconds = spent + draft.cold() + depth * draft(sequences) +
                           cautious_cost(verify, base_rows, sequences * depth, sequences * depth);
    if (const double goodput = sequences * expected / seconds; goodput > best.goodput)
      best = {.count = depth, .goodput = goodput};
  }
  return best;
}

}  // namespace specdec
