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

struct CudaDestroyGraph {
  void operator()(cudaGraph_t graph) const noexcept { ::cudaGraphDestroy(graph); }
};
struct CudaDestroyExecutable {
  void operator()(cudaGraphExec_t graph) const noexcept { ::cudaGraphExecDestroy(graph); }
};

using DeviceMemory = std::unique_ptr<std::byte, CudaFree>;
using PinnedMemory = std::unique_ptr<std::byte, CudaFreeHost>;
using OwnedStream = std::unique_ptr<std::remove_pointer_t<cudaStream_t>, CudaDestroyStream>;
using OwnedEvent = std::unique_ptr<std::remove_pointer_t<cudaEvent_t>, CudaDestroyEvent>;
using OwnedGraph = std::unique_ptr<std::remove_pointer_t<cudaGraph_t>, CudaDestroyGraph>;
using OwnedExecutable =
    std::unique_ptr<std::remove_pointer_t<cudaGraphExec_t>, CudaDestroyExecutable>;

}  // namespace specdec
