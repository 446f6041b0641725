#pragma once

#include <memory>

#include "engine/backend/backend.h"
#include "kernels/cuda/launch.h"

namespace specdec {

/// A backend whose operations can be captured into graphs: they enqueue kernels on the stream that
/// they are given, and once a batch of a shape has run, neither allocate nor synchronise for that
/// shape. Scratch memory stays where a captured graph knows it to be.
class CudaBackend : public Backend {
 public:
  virtual const kernels::cuda::DeviceInfo& device() const noexcept = 0;
  /// The stream of operations that name none.
  virtual cudaStream_t stream() const noexcept = 0;
};

/// The first GPU that the kernels run on (compute capability 8.0 or later), or a null pointer with
/// `why_not` saying what is missing: no driver, no device, one that is too old. Weights of float32
/// are kept as `config.float32_weights` says; `host_threads` stands for config.threads.
std::unique_ptr<Backend> make_cuda_backend(const BackendConfig& config, int host_threads,
                                           std::string& why_not);

}  // namespace specdec
