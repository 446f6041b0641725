#pragma once

#include <cstdint>
#include <optional>
#include <span>

#include "engine/backend/backend.h"

namespace specdec {

class ForwardBatch;
class HiddenStateTap;

/// Passes of one model that are kept as graphs of the device's, by shape.
class PassGraphs {
 public:
  virtual ~PassGraphs() = default;

  /// Runs Transformer::forward_on_device(): the same bits. Nothing, and nothing has happened, where
  /// graphs do not serve the batch. Throws Error(device, out_of_memory).
  virtual std::optional<std::span<const float>> forward(const ForwardBatch& batch, Stream stream,
                                                        HiddenStateTap* tap) = 0;
  /// Passes that ran as a graph so far.
  virtual std::int64_t num_runs() const noexcept = 0;
};

}  // namespace specdec
