#pragma once

#include "engine/backend/cuda_backend.h"
#include "engine/eagle_adapter.h"
#include "kernels/cuda/batch.h"

namespace specdec {

/// A batch on the device as models take it; `batch` must outlive the view.
kernels::BatchView view_of(const kernels::cuda::DeviceBatch& batch);

/// An EAGLE head's passes in the device loop: hidden states go back and forth between two buffers.
class DeviceEagle {
 public:
  /// `rows`, `outputs`: the most of a pass. Throws Error(unsupported, out_of_memory, device).
  DeviceEagle(CudaBackend& backend, EagleAdapter& adapter, int rows, int outputs);

  /// As DeviceHead's; where its logits [batch.num_outputs, draft vocabulary] will lie.
  const float* forward(const kernels::cuda::DeviceBatch& batch, const std::int32_t* sources,
                       bool at_roots, cudaStream_t stream);
  EagleAdapter& adapter() noexcept { return adapter_; }
  int max_position() const { return adapter_.max_position(); }

 private:
  EagleAdapter& adapter_;
  EagleHead& head_;
  DeviceBuffer hidden_[2];  // [rows, hidden]
  int last_ = 0;            // the one that the pass before left its outputs in
};

}  // namespace specdec
