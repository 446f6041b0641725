#pragma once

#include <cuda_runtime_api.h>

#include <cstddef>
#include <cstdint>

namespace specdec::kernels::cuda {

/// What kernels' launch shapes depend on. Bits never do.
struct DeviceInfo {
  int index = 0;
  int num_processors = 1;        // streaming multiprocessors
  int max_block_shared = 49152;  // bytes of shared memory that one block may have
  // What the kernels that run there were compiled with: a newer device may run older code.
  bool has_overlap = false;  // sm_90: dependent launch, clusters
  bool has_wgmma = false;    // sm_90a
};

/// Asks the device, which becomes the current one. cudaErrorNoKernelImageForDevice: the kernels
/// were compiled for others.
cudaError_t describe_device(int index, const cudaDeviceProp& properties, DeviceInfo& info);

/// Scratch memory of the operations of one stream, at addresses that captured graphs keep.
struct Workspace {
  std::byte* operand = nullptr;  // a product's activations after their norm
  std::size_t operand_bytes = 0;
  float* partials = nullptr;  // attention's units
  std::size_t partial_bytes = 0;
  int* counters = nullptr;  // zero between operations
  int num_counters = 0;
};

/// Where an operation goes. Launchers enqueue and return what the launch returned.
struct Launch {
  cudaStream_t stream = nullptr;
  DeviceInfo device;
  Workspace workspace;
};

}  // namespace specdec::kernels::cuda
