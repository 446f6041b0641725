#pragma once

#include <cuda_runtime_api.h>

#include <cstddef>

#include "kernels/cuda/batch.h"
#include "kernels/ops.h"

namespace specdec::kernels::cuda {

/// What kernels are launched for, where that is more than a batch has: the rest is padding. A graph
/// that was captured for a shape serves every batch which fits into it.
struct BatchShape {
  int rows = 0;
  int outputs = 0;
  int sequences = 0;
  int max_context = 0;     // as DeviceBatch::max_context
  bool has_paths = false;  // likewise

  bool operator==(const BatchShape&) const = default;
};

/// The buffers behind a DeviceBatch, of a fixed capacity and so at fixed addresses, in one piece of
/// device memory, with a pinned twin of the same layout: the host writes there and one copy brings
/// it over. Owns neither. Not thread-safe.
class BatchBuffers {
 public:
  BatchBuffers() = default;
  /// `device` and `pinned`: bytes(capacity) each, 16-byte aligned.
  BatchBuffers(const BatchCapacity& capacity, std::byte* device, std::byte* pinned) noexcept;

  static std::size_t bytes(const BatchCapacity& capacity) noexcept;
  /// What a batch needs.
  static BatchCapacity capacity_of(const BatchView& batch) noexcept;
  /// ... and what it has: kernels that are launched for this have no padding.
  static BatchShape shape_of(const BatchView& batch) noexcept;
  bool holds(const BatchCapacity& needed) const noexcept;

  /// Writes the pinned side and enqueues the copy. The last copy from it must be done. `batch` must
  /// fit (holds).
  cudaError_t stage(const BatchView& batch, cudaStream_t stream) noexcept;
  /// The same for kernels that are launched for `shape`, into which the batch fits, and so does
  /// `shape` into the buffers: what lies behind the batch's own rows, outputs and sequences becomes
  /// padding. Of block tables only what the buffers have room for is copied; the batch reaches no
  /// further.
  cudaError_t stage(const BatchView& batch, const BatchShape& shape, cudaStream_t stream) noexcept;
  /// The device's side as last staged; a loop that writes it itself starts from here.
  const DeviceBatch& batch() const noexcept { return batch_; }

 private:
  BatchCapacity capacity_;
  std::byte* device_ = nullptr;
  std::byte* pinned_ = nullptr;
  DeviceBatch batch_;
};

}  // namespace specdec::kernels::cuda
