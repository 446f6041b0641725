#pragma once

#include <memory>
#include <span>
#include <vector>

#include "engine/step.h"

namespace specdec {

/// Step's `sample` and `accept` where the target's logits lie, when that is not the host's memory.
/// Tokens and log-probabilities have the bits of the host's.
///
/// For the stepping thread.
class StepSampler {
 public:
  virtual ~StepSampler() = default;

  /// Before the target's pass: whether the step's trees may be left to draw(). Then brings over
  /// what the requests ask of sampling. Throws Error(out_of_memory, device).
  virtual bool begin(std::span<Sequence* const> batch) = 0;
  /// After it, when the masks are there: sets sequence.path, and the answers at watched nodes, of
  /// every sequence of that batch which samples, from `logits` [outputs of the step, vocab] in the
  /// backend's memory. Returns the sequences that the host has to look at after all: with a fault
  /// on their path, or a mask that is not there. Throws Error(device).
  virtual std::vector<Sequence*> draw(const float* logits) = 0;
};

#ifdef SPECDEC_HAS_CUDA
/// Null where the backend is no GPU, or the configuration wants the host to draw. Throws
/// Error(out_of_memory, device).
std::unique_ptr<StepSampler> make_device_sampler(const StepParts& parts);
#endif

}  // namespace specdec
