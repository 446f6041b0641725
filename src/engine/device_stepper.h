#pragma once

#include <functional>
#include <optional>
#include <span>
#include <vector>

#include "engine/backend/cuda_backend.h"
#include "engine/cost_cache.h"
#include "engine/device_eagle.h"
#include "engine/device_loop.h"
#include "engine/device_pool.h"
#include "engine/device_requests.h"
#include "engine/device_steps.h"
#include "engine/device_vocabulary.h"
#include "engine/loop_pacing.h"

namespace specdec {

/// Steps in a DeviceLoop. Belongs to the stepping thread.
class DeviceStepper final : public DeviceSteps {
 public:
  DeviceStepper(const StepParts& parts, CudaBackend& backend, const DeviceLoopOptions& options,
                std::function<bool()> interrupted);

  /// Times turns of every depth, in batches of some sizes, and the passes that bring a drafter up
  /// to date. For an engine that has not begun to work: all of them write into the cache's first
  /// blocks.
  MeasuredCosts measure_costs();
  /// Lets depths follow these.
  void set_costs(const MeasuredCosts& costs);

  bool run(std::span<Sequence* const> batch, EngineStats& stats) override;

 private:
  TurnCosts measure_turns();
  bool serves(const Sequence& sequence) const;
  LoopPacing::Plan plan(std::span<Sequence* const> batch);
  bool may_draft(const Sequence& sequence, int depth) const;
  bool has_lost_head(const Sequence& sequence) const;
  std::vector<double> entry_costs(std::span<Sequence* const> batch) const;
  static void wait_for_prompts(std::span<Sequence* const> batch);
  bool reserve(std::span<Sequence* const> batch, const LoopPacing::Plan& plan);
  std::vector<bool> prepare_drafts(std::span<Sequence* const> batch, const LoopPacing::Plan& plan);
  DeviceSequence device_sequence(std::size_t index, Sequence& sequence, int depth);
  void restore_features();
  bool take(const DeviceLoop::Turn& turn, int depth, EngineStats& stats);
  void finish(Sequence& sequence, const DeviceSequence& device);

  bool with_model() const { return options_.draft == DeviceDraft::draft_model; }
  bool with_passes() const { return with_model() || eagle_; }

  StepParts parts_;
  DeviceLoopOptions options_;
  std::function<bool()> interrupted_;
  DeviceRequests requests_;
  DevicePool target_pool_;
  DevicePool draft_pool_;
  std::optional<DeviceVocabulary> vocabulary_;  // of the draft's logits
  std::optional<DeviceEagle> eagle_;
  std::optional<DeviceLoop> loop_;
  std::optional<LoopPacing> pacing_;  // none: depths are what the configuration says
  CostCurve draft_cost_;              // of passes outside the loop, by rows
  CostCurve return_cost_;             // of running tokens again for a head that missed them
  double turn_seconds_ = 1e-3;        // of late
  // The run about to begin.
  std::span<Sequence* const> batch_;
  std::vector<DeviceSequence> sequences_;
};

}  // namespace specdec
