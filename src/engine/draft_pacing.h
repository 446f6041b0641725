#pragma once

#include <span>
#include <vector>

#include "draft/draft_length.h"
#include "draft/model_drafter.h"
#include "engine/sequence.h"
#include "specdec/drafter.h"

namespace specdec {

/// Decides in each step how far drafts go and which nodes are worth verifying: the goodput rule of
/// docs/algorithms.md, section 3, over measured costs and calibrated survival. Looks at nothing but
/// shapes of distributions, costs and past acceptance, so it never biases an output.
///
/// Drafter 0 is the draft model; host drafters follow. Belongs to the stepping thread, but for
/// estimate().
class DraftPacing final : public GrowthControl {
 public:
  /// Without cost curves it only learns.
  /// `returns`: of running tokens again for a head that missed them.
  void set_costs(VerifyCost verify, CostCurve draft, CostCurve returns = {});
  bool adaptive() const noexcept { return adaptive_; }

  /// Whether the draft model could pay in steps of so many sequences like this one. Where not even
  /// a good draft would, nothing need be kept ready for it.
  bool may_pay(const Sequence& sequence, int count) const;
  /// Whether a head should come back to `sequence`, one of the `count` of this step, which may
  /// draft `depth` tokens: it missed `missed` tokens, which have to be run again first.
  bool pays_to_return(const Sequence& sequence, int count, int depth, int missed) const;
  /// A step over `batch` begins.
  void begin(std::span<Sequence* const> batch);
  /// The depth to which the model should draft for `sequence`, one of `count`; 0 where what the
  /// host drafters found pays more. Its first pass would have `rows` rows, those included that it
  /// catches up on. Sets sequence.probes.
  int first_depth(Sequence& sequence, int count, int rows);
  /// The model is about to draft for these; its first pass has `rows` rows, those included that it
  /// catches up on.
  void begin_model(std::span<Sequence* const> sequences, int rows);
  float estimate(std::size_t sequence, float confidence) const override;
  bool go_on(int depth, std::span<const Level> levels) override;
  /// The model is done after `seconds`.
  void end_model(double seconds);
  /// The model drafted by itself: so many passes of `rows` rows, in `seconds`.
  void drafted(int passes, int rows, double seconds);

  /// What a host drafter's token is worth.
  float estimate(int drafter, float confidence) const;
  /// The survivals of a host drafter's tree.
  std::vector<float> survivals(const DraftProposal& proposal, int drafter) const;
  /// Cuts the trees of the step to the nodes that are worth their verification.
  void trim(std::span<Sequence* const> batch) const;

  /// The target's pass and sampling over the step's rows took `seconds`.
  void verified(std::span<Sequence* const> batch, double seconds);
  /// Takes note of what became of a sequence's draft.
  void learn(Sequence& sequence);

 private:
  Calibration& calibration(int drafter);
  /// Sets window_of, and keep [nodes] where a window is to be verified as a whole: it pays later,
  /// by what its drafter learns, so its nodes' own survival does not say what it is worth.
  void keep_watched(Sequence& sequence, std::vector<bool>& keep) const;

  bool adaptive_ = false;
  VerifyCost verify_cost_;
  CostCurve draft_cost_;
  CostCurve return_cost_;
  std::vector<Calibration> calibrations_;
  ProbeBudget probe_budget_;

  // The step in progress.
  int base_rows_ = 0;       // rows of the target's pass without any draft
  double emitters_ = 0;     // sequences that emit a token whatever is drafted
  double token_cost_ = 0;   // seconds that a token takes without drafts
  double prompt_cost_ = 0;  // seconds of the rows of prompts: no draft is to be judged by them
  double draft_spent_ = 0;  // seconds of drafting, by the cost curve
  std::vector<Sequence*> model_sequences_;
};

}  // namespace specdec
