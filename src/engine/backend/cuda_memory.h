#pragma once

#include <cuda_runtime_api.h>

#include <cstddef>
#include <memory>

namespace specdec {

/// Owning handles of the CUDA runtime. Freeing what a failed device held reports nothing: the
/// failure has been reported by the call that met it.
struct CudaFree {
  void operator()(void* memory) const noexcept { ::cudaFree(memory); }
};
struct CudaFreeHost {
  void operator()(void* memory) const noexcept { ::cudaFreeHost(memory); }
};
struct CudaDestroyStream {
  void operator()(cudaStream_t stream) const noexcept { ::cudaStreamDestroy(stream); }
};
struct CudaDestroyEvent {
  void operator()(cudaEvent_t event) const noexcept { ::cudaEventDestroy(event); }
};

using DeviceMemory = std::unique_ptr<std::byte, CudaFree>;
using PinnedMemory = std::unique_ptr<std::byte, CudaFreeHost>;
using OwnedStream = std::unique_ptr<std::remove_pointer_t<cudaStream_t>, CudaDestroyStream>;
using OwnedEvent = std::unique_ptr<std::remove_pointer_t<cudaEvent_t>, CudaDestroyEvent>;

}  // namespace specdec
