#include <cuda_runtime.h>

#include "kernels/cuda/launch.h"

namespace specdec::kernels::cuda {
namespace {

/// Each compilation for an architecture leaves its own value in its own image.
__constant__ int compiled_generation =
#ifdef __CUDA_ARCH__
    __CUDA_ARCH__ / 100;
#else
    0;
#endif
__constant__ bool compiled_wgmma =
#ifdef __CUDA_ARCH_FEAT_SM90_ALL
    true;
#else
    false;
#endif

}  // namespace

cudaError_t describe_device(int index, const cudaDeviceProp& properties, DeviceInfo& info) {
  info = {.index = index,
          .num_processors = properties.multiProcessorCount,
          .max_block_shared = static_cast<int>(properties.sharedMemPerBlockOptin)};
  int generation = 0;
  cudaError_t status = cudaSetDevice(index);
  if (status == cudaSuccess)
    status = cudaMemcpyFromSymbol(&generation, compiled_generation, sizeof(generation));
  if (status == cudaSuccess)
    status = cudaMemcpyFromSymbol(&info.has_wgmma, compiled_wgmma, sizeof(info.has_wgmma));
  info.has_overlap = generation >= 9;
  return status;
}

}  // namespace specdec::kernels::cuda
