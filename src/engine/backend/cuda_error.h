#pragma once

#include <cuda_runtime_api.h>

#include <string>

#include "specdec/error.h"

namespace specdec {

/// Throws what a failed call of the CUDA runtime comes to: Error(out_of_memory); Error(unsupported)
/// where the driver has no such thing; Error(internal) where a launch was asked for that cannot be,
/// or something that a capture does not allow; else Error(device): what the device held is gone,
/// and all later calls fail as well.
inline void check_cuda(cudaError_t status, const char* doing) {
  if (status == cudaSuccess) return;
  ::cudaGetLastError();
  const std::string message = std::string(doing) + ": " + ::cudaGetErrorString(status);
  if (status == cudaErrorMemoryAllocation)
    throw Error(ErrorCode::out_of_memory,
                message +
                    ": lower kv_cache.memory_mb, scheduler.max_num_batched_tokens or "
                    "scheduler.max_num_seqs, or use a smaller model");
  if (status == cudaErrorNotSupported) throw Error(ErrorCode::unsupported, message);
  const bool of_capture =
      status >= cudaErrorStreamCaptureUnsupported && status <= cudaErrorStreamCaptureWrongThread;
  if (status == cudaErrorInvalidValue || status == cudaErrorInvalidConfiguration || of_capture)
    throw Error(ErrorCode::internal, message);
  throw Error(ErrorCode::device, message + ": load the engine anew");
}

}  // namespace specdec
