// Launches of kernels, attributes of functions.
#include <cstring>

#include "tests/ptx/runtime.h"

namespace specdec::ptx {
namespace {

Dim3 shape_of(const dim3& dims) { return {dims.x, dims.y, dims.z}; }

std::uint64_t volume(const Dim3& dims) { return std::uint64_t{dims.x} * dims.y * dims.z; }

std::size_t most_dynamic(const CUkern_st& function) {
  if (function.max_dynamic_shared >= 0)
    return static_cast<std::size_t>(function.max_dynamic_shared);
  return kDefaultShared - std::min(kDefaultShared, function.static_shared);
}

cudaError_t check_shape(const CUkern_st& function, const LaunchShape& shape) {
  const Dim3& block = shape.block;
  const Dim3& grid = shape.grid;
  if (volume(block) == 0 || volume(grid) == 0 || volume(shape.cluster) == 0)
    return cudaErrorInvalidConfiguration;
  if (block.x > 1024 || block.y > 1024 || block.z > 64 || volume(block) > kMostThreads)
    return cudaErrorInvalidConfiguration;
  if (grid.x > 0x7fffffffu || grid.y > 65535 || grid.z > 65535)
    return cudaErrorInvalidConfiguration;
  if (volume(block) > function.kernel->max_threads) return cudaErrorInvalidValue;
  if (shape.dynamic_shared > most_dynamic(function)) return cudaErrorInvalidValue;
  if (volume(shape.cluster) > 1) return cudaErrorNotSupported;  // sm_80 has no clusters
  return cudaSuccess;
}

cudaError_t launch(const void* stub, const LaunchShape& shape, void** arguments,
                   cudaStream_t stream) {
  return call([&](Runtime& runtime) {
    CUkern_st* const function = runtime.function(stub);
    if (function == nullptr) return cudaErrorInvalidDeviceFunction;
    if (!runtime.is_stream(stream)) return cudaErrorInvalidResourceHandle;
    const cudaError_t status = check_shape(*function, shape);
    if (status != cudaSuccess) return status;
    const Kernel& kernel = *function->kernel;
    if (arguments == nullptr && !kernel.params.empty()) return cudaErrorInvalidValue;
    KernelLaunch work{function, shape, std::vector<std::byte>(kernel.params_size)};
    for (std::size_t i = 0; i < kernel.params.size(); ++i)
      std::memcpy(work.params.data() + kernel.params[i].offset, arguments[i],
                  kernel.params[i].size);
    return runtime.enqueue(stream, std::move(work));
  });
}

/// What `<<< >>>` said, until the stub asks for it.
struct Configuration {
  dim3 grid, block;
  std::size_t shared = 0;
  cudaStream_t stream = nullptr;
};
std::vector<Configuration>& configurations() {
  thread_local std::vector<Configuration> pushed;
  return pushed;
}

}  // namespace
}  // namespace specdec::ptx

using namespace specdec::ptx;

extern "C" {

unsigned CUDARTAPI __cudaPushCallConfiguration(dim3 grid, dim3 block, size_t shared,
                                               cudaStream_t stream) {
  configurations().push_back({grid, block, shared, stream});
  return 0;
}

cudaError_t CUDARTAPI __cudaPopCallConfiguration(dim3* grid, dim3* block, size_t* shared,
                                                 void* stream) {
  if (configurations().empty()) return last_error() = cudaErrorMissingConfiguration;
  const Configuration top = configurations().back();
  configurations().pop_back();
  *grid = top.grid;
  *block = top.block;
  *shared = top.shared;
  *static_cast<cudaStream_t*>(stream) = top.stream;
  return cudaSuccess;
}

#if CUDART_VERSION >= 13000
// Called by static objects before a module may be read: only finds the registration.
cudaError_t CUDARTAPI __cudaGetKernel(cudaKernel_t* kernel, const void* stub) {
  Runtime& runtime = Runtime::get();
  const std::lock_guard<std::mutex> hold(runtime.lock);
  const auto found = runtime.functions.find(stub);
  if (kernel == nullptr || found == runtime.functions.end())
    return last_error() = cudaErrorInvalidDeviceFunction;
  *kernel = &found->second;
  return cudaSuccess;
}

cudaError_t CUDARTAPI __cudaLaunchKernel(cudaKernel_t kernel, dim3 grid, dim3 block,
                                         void** arguments, size_t shared, cudaStream_t stream) {
  return launch(kernel, {shape_of(grid), shape_of(block), {}, shared}, arguments, stream);
}
#endif

cudaError_t CUDARTAPI cudaLaunchKernel(const void* stub, dim3 grid, dim3 block, void** arguments,
                                       size_t shared, cudaStream_t stream) {
  return launch(stub, {shape_of(grid), shape_of(block), {}, shared}, arguments, stream);
}

cudaError_t CUDARTAPI cudaLaunchKernelExC(const cudaLaunchConfig_t* config, const void* stub,
                                          void** arguments) {
  if (config == nullptr || (config->numAttrs > 0 && config->attrs == nullptr))
    return last_error() = cudaErrorInvalidValue;
  LaunchShape shape{
      shape_of(config->gridDim), shape_of(config->blockDim), {}, config->dynamicSmemBytes};
  for (unsigned i = 0; i < config->numAttrs; ++i) {
    const cudaLaunchAttribute& attribute = config->attrs[i];
    if (attribute.id == cudaLaunchAttributeClusterDimension) {
      shape.cluster = {attribute.val.clusterDim.x, attribute.val.clusterDim.y,
                       attribute.val.clusterDim.z};
    } else if (attribute.id != cudaLaunchAttributeProgrammaticStreamSerialization) {
      return last_error() = cudaErrorNotSupported;
    }
    // Programmatic serialisation allows kernels to overlap. Here none does.
  }
  return launch(stub, shape, arguments, config->stream);
}

cudaError_t CUDARTAPI cudaFuncGetAttributes(cudaFuncAttributes* attributes, const void* stub) {
  return call([&](Runtime& runtime) {
    if (attributes == nullptr) return cudaErrorInvalidValue;
    const CUkern_st* const function = runtime.function(stub);
    if (function == nullptr) return cudaErrorInvalidDeviceFunction;
    const KernelResources resources =
        runtime.module(*function->binary).resources(*function->kernel);
    *attributes = {};
    attributes->sharedSizeBytes = resources.static_shared;
    attributes->localSizeBytes = resources.local;
    attributes->numRegs = std::min(resources.registers, 255);
    attributes->maxThreadsPerBlock =
        static_cast<int>(std::min(function->kernel->max_threads, kMostThreads));
    attributes->maxDynamicSharedSizeBytes = static_cast<int>(most_dynamic(*function));
    attributes->ptxVersion = 80;
    attributes->binaryVersion = 80;
    return cudaSuccess;
  });
}

cudaError_t CUDARTAPI cudaFuncSetAttribute(const void* stub, cudaFuncAttribute attribute,
                                           int value) {
  return call([&](Runtime& runtime) {
    CUkern_st* const function = runtime.function(stub);
    if (function == nullptr) return cudaErrorInvalidDeviceFunction;
    switch (attribute) {
      case cudaFuncAttributeMaxDynamicSharedMemorySize:
        if (value < 0 || static_cast<std::size_t>(value) + function->static_shared > kMostShared)
          return cudaErrorInvalidValue;
        function->max_dynamic_shared = value;
        return cudaSuccess;
      case cudaFuncAttributePreferredSharedMemoryCarveout:
        return value < -1 || value > 100 ? cudaErrorInvalidValue : cudaSuccess;
      default:
        return cudaErrorNotSupported;  // clusters: none on sm_80
    }
  });
}

cudaError_t CUDARTAPI cudaOccupancyMaxActiveClusters(int* clusters, const void* stub,
                                                     const cudaLaunchConfig_t* config) {
  return call([&](Runtime& runtime) {
    if (clusters == nullptr || config == nullptr) return cudaErrorInvalidValue;
    if (runtime.function(stub) == nullptr) return cudaErrorInvalidDeviceFunction;
    return cudaErrorNotSupported;
  });
}

}  // extern "C"
