#pragma once

#include <map>
#include <span>
#include <utility>
#include <vector>

#include "draft/draft_length.h"
#include "engine/cost_cache.h"
#include "engine/sequence.h"

namespace specdec {

/// Decides how deep drafts go in a run of a device loop and how many turns it has: the goodput rule
/// of docs/algorithms.md, section 3, over measured costs of whole turns and the survival of drafts
/// by depth. A run has one depth, since its shape, and so its cost, is the whole batch's; 0 = plain
/// decoding. As DraftPacing it looks at nothing but shapes, costs and past acceptance. Belongs to
/// the stepping thread.
class LoopPacing {
 public:
  /// What a run of 20 ms, about as long as a streaming reader would wait, is cut into.
  static constexpr double kRunSeconds = 0.02;
  static constexpr int kMostTurns = 64;

  /// `costs` has a curve for depth 0 and for each depth that is to be a candidate.
  explicit LoopPacing(const TurnCosts& costs);

  struct Plan {
    int depth = 0;
    int turns = 1;
    bool probes = false;  // it would not pay by what is known: it finds out whether that holds
    bool chosen = false;  // the batch could have drafted, or does
    /// [batch] whether it is worth while that the drafter has a part in the sequence.
    std::vector<bool> joins = {};
  };
  /// The coming run over `batch` (draft_depth is set; 0: the sequence does not draft), the longest
  /// of `context` tokens. `entry_costs` [batch]: seconds that it takes before the sequence can
  /// draft.
  Plan plan(std::span<Sequence* const> batch, int context, std::span<const double> entry_costs);

  /// What one turn of a run of `depth` did for a sequence: so many of its draft tokens were taken.
  void learn(Sequence& sequence, int depth, int num_accepted);
  /// The run over `sequences` sequences took `seconds` for its turns.
  void ran(const Plan& plan, int sequences, int context, int turns, double seconds);

  /// Seconds of a turn, as they are put at present.
  double cost(int depth, int sequences, int context) const;
  /// Whatever a sequence's own past: the share of drafts that were right at `depth` among those
  /// that were right down to depth - 1.
  double survival(int depth) const;

 private:
  /// What runs took over what was measured.
  struct Scale {
    double value = 1;
    int turns = 0;  // that said so
  };
  struct Curve {
    CostCurve by_sequences;
    int most = 1;                 // sequences that were measured
    std::map<int, Scale> scales;  // by context, doubling

    /// Graphs are captured for powers of two.
    double measured(int sequences) const;
    /// The scale of the longest of these contexts that is no longer than `bucket`; 1: of none.
    std::pair<int, double> nearest(int bucket) const;
  };
  double tokens(const Sequence& sequence, int depth) const;
  double tokens(std::span<Sequence* const> batch, const std::vector<bool>& joins, int depth) const;
  double scale(const Curve& curve, int context) const;

  std::map<int, Curve> curves_;  // by depth
  DepthShares depths_;           // of all sequences
  double plain_seconds_ = 0;     // of plain runs since drafts were last tried
  bool drafted_ = true;          // the run before did
};

}  // namespace specdec
