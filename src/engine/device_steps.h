#pragma once

#include <functional>
#include <memory>
#include <span>

#include "engine/step.h"

namespace specdec {

/// Many steps at once on a GPU: the stages of Step run in a DeviceLoop, and the host reads along.
/// An output then carries the tokens of all the steps of a run. Tokens and log-probabilities have
/// the bits of Step's.
class DeviceSteps {
 public:
  virtual ~DeviceSteps() = default;

  /// Advances every sequence by some steps, as Step::run does by one, and counts them in
  /// stats.num_steps but for one; by none where sequences have been sent back to be prefilled anew.
  /// False, and nothing has happened, where a sequence needs what only Step can do: prefill, a
  /// grammar, another drafter, or slots that are not left. Throws Error(device).
  virtual bool run(std::span<Sequence* const> batch, EngineStats& stats) = 0;
};

#ifdef SPECDEC_HAS_CUDA
/// `interrupted()`: whether the stepping thread is wanted elsewhere; asked between steps.
/// Null where the loop cannot serve: the backend is no GPU, or the configuration wants a drafter,
/// a tree or a rule that the device does not know. Throws Error(out_of_memory,
/// device).
std::unique_ptr<DeviceSteps> make_device_steps(const StepParts& parts,
                                               std::function<bool()> interrupted);
#endif

}  // namespace specdec
