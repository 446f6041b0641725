#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <span>
#include <utility>
#include <vector>

namespace specdec {

/// What a pass takes beyond the context over which its rows were timed: attention reads the KV of
/// each sequence once and multiplies it with every row.
struct ContextCost {
  int context = 0;           // tokens, when the rows were timed
  double per_token = 0;      // seconds for each token of a sequence's context
  double per_row_token = 0;  // and for each of them that a row attends to

  bool operator==(const ContextCost&) const = default;
};

/// Seconds of a pass over so many rows: linear between the widths that were measured and beyond the
/// last, and in the length of contexts.
class CostCurve {
 public:
  CostCurve() = default;
  /// (rows, seconds), rows rising. Noise only adds: a pass that took longer than a wider one is
  /// taken for as long as that. `cold`: what the first pass after others takes more, since their
  /// weights are where its own could be.
  explicit CostCurve(std::vector<std::pair<int, double>> measured, const ContextCost& context = {},
                     double cold = 0);

  /// The contexts of the passes to come: so many sequences with so many tokens between them.
  void set_context(int sequences, double tokens);
  double operator()(int rows) const;
  double cold() const { return scale_ * cold_; }
  /// Work that this curve had put at `predicted` seconds took `actual` ones: the whole curve
  /// follows slowly (a busier machine).
  void follow(double predicted, double actual);
  /// A pass over `rows` rows took so many seconds: the widths next to it follow faster than the
  /// whole, since the times at load were few.
  void follow_pass(int rows, double seconds);

 private:
  /// The measured widths around `rows`: the upper one, and its share in the line between them.
  std::pair<std::size_t, double> place(int rows) const;

  std::vector<std::pair<int, double>> points_;
  ContextCost context_;
  double cold_ = 0;
  double scale_ = 1;
  double tokens_ = 0;       // of the contexts beyond those that were timed
  double mean_tokens_ = 0;  // the same, of a sequence
};

/// Seconds of a verification pass over so many rows, some of which drafting may have taken through
/// the target's first layers before.
class VerifyCost {
 public:
  VerifyCost() = default;
  /// `first_layers`: what those layers take of it; empty: drafting spares nothing.
  VerifyCost(CostCurve whole, CostCurve first_layers = {})
      : whole_(std::move(whole)), first_layers_(std::move(first_layers)) {}

  void set_context(int sequences, double tokens);
  /// How many rows drafting has run so far.
  void set_run(int rows) noexcept { run_ = rows; }
  int run() const noexcept { return run_; }
  double operator()(int rows) const { return (*this)(rows, run_); }
  /// The same when it has run so many; of a smaller pass all of them.
  double operator()(int rows, int run) const { return whole_(rows) - spared(rows, run); }
  /// A pass took so many seconds; see CostCurve.
  void follow_pass(int rows, int run, double seconds);

 private:
  double spared(int rows, int run) const;

  CostCurve whole_;
  CostCurve first_layers_;
  int run_ = 0;
};

/// How far a drafter's confidence in a token can be trusted: the share of tokens of like confidence
/// that the target took. Recent observations count more, so that it follows a change of domain.
class Calibration {
 public:
  /// `confidence` in (0, 1); `bias` in logits shifts the answer for one sequence.
  double estimate(float confidence, double bias) const;
  void observe(float confidence, bool taken);

 private:
  static constexpr int kBins = 21;  // logit of the confidence from -5 to 5
  static int bin_of(float confidence);

  struct Bin {
    double taken = 0;
    double seen = 0;
  };
  std::array<Bin, kBins> bins_;
};

/// By depth, how often drafts that were right down to depth - 1 were right there too; the latest
/// count most.
class DepthShares {
 public:
  /// As if `prior_weight` drafts had been seen before, of which the share `prior` was right.
  double expected(int depth, double prior, double prior_weight) const;
  /// `memory`: what each earlier one still counts.
  void observe(int depth, bool taken, double memory);
  /// Recent drafts.
  double num_seen() const noexcept { return depths_.front().seen; }

 private:
  static constexpr std::size_t kDepths = 16;  // deeper ones are taken for the last

  struct Depth {
    double taken = 0;
    double seen = 0;
  };
  static std::size_t place(int depth) {
    return std::min(static_cast<std::size_t>(depth), kDepths) - 1;
  }
  std::array<Depth, kDepths> depths_;
};

/// What a sequence's past steps say about its next draft.
class DraftHistory {
 public:
  /// Probability that a draft which was right down to depth - 1 is right at `depth` >= 1 too.
  /// `prior`: what a sequence that has shown nothing is taken for; by default one that is worth
  /// drafting, since trying costs little.
  double expected(int depth, double prior = kPrior) const;
  static constexpr double kPrior = 0.7;
  /// Recent drafts, the latest counting most.
  double num_seen() const noexcept { return depths_.num_seen(); }
  double bias() const noexcept { return bias_; }

  /// A node of the tree at `depth` whose parent was accepted, with the estimate made for it.
  void observe_node(double estimate, bool taken);
  /// The draft reached `depth` - 1 and had tokens at `depth`.
  void observe_depth(int depth, bool taken);

  /// Drafting does not pay at present: true when this step should try all the same, after 8, 16, 32
  /// and then every 64 plain steps, or at once where the latest draft began rightly: the text may
  /// have changed, and one draft in 64 steps would take hundreds of them to show it. Where it may
  /// not (`allowed`), the next step that may is one.
  bool probe(bool allowed = true);
  void paid() noexcept {
    interval_ = kFirstProbe;
    plain_steps_ = 0;
  }

 private:
  static constexpr int kFirstProbe = 8;
  static constexpr int kLongestProbe = 64;

  DepthShares depths_;
  double bias_ = 0;
  int interval_ = kFirstProbe;
  int plain_steps_ = 0;
};

/// What probes lose, kept to a share of the time: each sequence has probes of its own, and in a
/// wide batch, where a row costs what a token is worth, those of all of them would cost a tenth of
/// it.
class ProbeBudget {
 public:
  /// A step without drafts would take so many seconds.
  void earn(double seconds);
  /// Whether the losses so far leave room for a probe.
  bool allows() const noexcept { return lost_ <= 0; }
  /// A probe takes so many seconds,
  void spend(double seconds) { lost_ += seconds; }
  /// and what it brought is worth so many. Gains are not saved up.
  void regain(double seconds);

 private:
  double lost_ = 0;  // seconds that are still to be earned
};

/// Whether a window of watched nodes (lookahead) pays for one sequence. What it costs it costs at
/// once, what it brings comes with later steps.
class WindowHistory {
 public:
  /// Whether the coming step should verify the window. `cost`: tokens that plain decoding would
  /// emit in the time that the window's rows take. Where it does not pay, steps in a row try it
  /// again, after 256, 512 and then every 1024 steps without, or later where a trial would take
  /// more than a fiftieth of the time.
  bool open(double cost);
  /// A step verified the window, and so many draft tokens were accepted.
  void observe(int accepted);

 private:
  static constexpr int kFirstTrial = 256;
  static constexpr int kLongestTrial = 1024;
  static constexpr int kTrialSteps = 16;  // until a window's n-grams are the target's own, and more

  double accepted_ = 0;
  double seen_ = 0;
  int interval_ = kFirstTrial;
  int plain_steps_ = 0;
  int trial_left_ = 0;
};

/// What it takes to bring a drafter up to date has to come in again within so many tokens: the text
/// may well keep to what it does for that long.
inline constexpr int kStretch = 128;
/// Whether a drafter that missed `missed` tokens should come back to a sequence with `left` tokens
/// to emit, where costs are not known: a token of a prompt takes a fifth of a decoded one or less.
constexpr bool may_return(int missed, int left) { return missed <= 2 * left; }

/// How many draft nodes to verify.
struct NodeChoice {
  int count = 0;
  double goodput = 0;  // expected tokens a second
};

/// The rule of docs/algorithms.md, section 3: with the nodes sorted by falling survival, the count
/// that maximises (emitters + sum of survivals) / (spent + verify(base_rows + count)). `emitters`:
/// tokens that come without any draft; `spent`: seconds that drafting takes; negative for those of
/// the pass that are not to be counted, because its prompts need them anyway.
NodeChoice choose_nodes(std::span<const float> survivals, double emitters, double spent,
                        int base_rows, const VerifyCost& verify);

/// The same for a drafter that has yet to run: the depth (count) of a chain that is expected to pay
/// most when `sequences` like this one draft it pass by pass; 0 = plain decoding. Each of those
/// passes runs one row of a sequence, the root's first. `prior`: see DraftHistory::expected.
NodeChoice choose_depth(const DraftHistory& history, int max_depth, int sequences, double spent,
                        int base_rows, const VerifyCost& verify, const CostCurve& draft,
                        double prior = DraftHistory::kPrior);

}  // namespace specdec
