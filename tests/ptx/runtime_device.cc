// The pretended device: a small sm_80. And the names of errors.
#include <cstdio>
#include <cstring>

#include "tests/ptx/runtime.h"

using namespace specdec::ptx;

namespace {

struct ErrorText {
  cudaError_t code;
  const char* name;
  const char* text;
};

// The runtime's own words.
constexpr ErrorText kErrors[] = {
    {cudaSuccess, "cudaSuccess", "no error"},
    {cudaErrorInvalidValue, "cudaErrorInvalidValue", "invalid argument"},
    {cudaErrorMemoryAllocation, "cudaErrorMemoryAllocation", "out of memory"},
    {cudaErrorInvalidConfiguration, "cudaErrorInvalidConfiguration",
     "invalid configuration argument"},
    {cudaErrorInvalidSymbol, "cudaErrorInvalidSymbol", "invalid device symbol"},
    {cudaErrorInvalidMemcpyDirection, "cudaErrorInvalidMemcpyDirection",
     "invalid copy direction for memcpy"},
    {cudaErrorMissingConfiguration, "cudaErrorMissingConfiguration",
     "__global__ function call is not configured"},
    {cudaErrorInvalidDeviceFunction, "cudaErrorInvalidDeviceFunction", "invalid device function"},
    {cudaErrorNoDevice, "cudaErrorNoDevice", "no CUDA-capable device is detected"},
    {cudaErrorInvalidDevice, "cudaErrorInvalidDevice", "invalid device ordinal"},
    {cudaErrorNoKernelImageForDevice, "cudaErrorNoKernelImageForDevice",
     "no kernel image is available for execution on the device"},
    {cudaErrorInvalidPtx, "cudaErrorInvalidPtx", "a PTX JIT compilation failed"},
    {cudaErrorInvalidResourceHandle, "cudaErrorInvalidResourceHandle", "invalid resource handle"},
    {cudaErrorSymbolNotFound, "cudaErrorSymbolNotFound", "named symbol not found"},
    {cudaErrorNotReady, "cudaErrorNotReady", "device not ready"},
    {cudaErrorIllegalAddress, "cudaErrorIllegalAddress",
     "an illegal memory access was encountered"},
    {cudaErrorMisalignedAddress, "cudaErrorMisalignedAddress", "misaligned address"},
    {cudaErrorLaunchFailure, "cudaErrorLaunchFailure", "unspecified launch failure"},
    {cudaErrorNotSupported, "cudaErrorNotSupported", "operation not supported"},
    {cudaErrorStreamCaptureUnsupported, "cudaErrorStreamCaptureUnsupported",
     "operation not permitted when stream is capturing"},
    {cudaErrorStreamCaptureInvalidated, "cudaErrorStreamCaptureInvalidated",
     "operation failed due to a previous error during capture"},
    {cudaErrorStreamCaptureUnmatched, "cudaErrorStreamCaptureUnmatched",
     "operation would result in a merge of separate capture sequences"},
    {cudaErrorStreamCaptureImplicit, "cudaErrorStreamCaptureImplicit",
     "operation would make the legacy stream depend on a capturing blocking stream"},
    {cudaErrorStreamCaptureWrongThread, "cudaErrorStreamCaptureWrongThread",
     "attempt to terminate a thread-local capture sequence from another thread"},
    {cudaErrorIllegalState, "cudaErrorIllegalState",
     "the operation cannot be performed in the present state"},
};

const ErrorText* find_error(cudaError_t code) {
  for (const ErrorText& each : kErrors)
    if (each.code == code) return &each;
  return nullptr;
}

constexpr int kClockKhz = 1'000'000;

void fill(const Runtime& runtime, cudaDeviceProp& properties) {
  properties = {};
  std::snprintf(properties.name, sizeof properties.name, "PTX machine");
  std::memcpy(&properties.uuid, "specdec-ptx-mach", sizeof properties.uuid);
  properties.totalGlobalMem = runtime.memory_limit;
  properties.sharedMemPerBlock = kDefaultShared;
  properties.regsPerBlock = 65536;
  properties.warpSize = 32;
  properties.memPitch = 0x7fffffff;
  properties.maxThreadsPerBlock = kMostThreads;
  properties.maxThreadsDim[0] = properties.maxThreadsDim[1] = 1024;
  properties.maxThreadsDim[2] = 64;
  properties.maxGridSize[0] = 0x7fffffff;
  properties.maxGridSize[1] = properties.maxGridSize[2] = 65535;
  properties.totalConstMem = 65536;
  properties.major = 8;
  properties.minor = 0;
  properties.textureAlignment = 512;
  properties.texturePitchAlignment = 32;
  properties.multiProcessorCount = runtime.processors;
  properties.canMapHostMemory = 1;
  properties.concurrentKernels = 1;
  properties.asyncEngineCount = 1;
  properties.unifiedAddressing = 1;
  properties.memoryBusWidth = 5120;
  properties.l2CacheSize = 40 << 20;
  properties.maxThreadsPerMultiProcessor = 2048;
  properties.globalL1CacheSupported = 1;
  properties.localL1CacheSupported = 1;
  properties.sharedMemPerMultiprocessor = 164u << 10u;
  properties.regsPerMultiprocessor = 65536;
  properties.maxBlocksPerMultiProcessor = 32;
  properties.sharedMemPerBlockOptin = kMostShared;
  properties.reservedSharedMemPerBlock = 1024;
}

/// False: nothing that the library has asked so far.
bool attribute(const cudaDeviceProp& properties, cudaDeviceAttr wanted, int& value) {
  switch (wanted) {
    case cudaDevAttrMaxThreadsPerBlock:
      value = properties.maxThreadsPerBlock;
      return true;
    case cudaDevAttrMaxSharedMemoryPerBlock:
      value = kDefaultShared;
      return true;
    case cudaDevAttrMaxSharedMemoryPerBlockOptin:
      value = kMostShared;
      return true;
    case cudaDevAttrMaxSharedMemoryPerMultiprocessor:
      value = static_cast<int>(properties.sharedMemPerMultiprocessor);
      return true;
    case cudaDevAttrWarpSize:
      value = properties.warpSize;
      return true;
    case cudaDevAttrMultiProcessorCount:
      value = properties.multiProcessorCount;
      return true;
    case cudaDevAttrComputeCapabilityMajor:
      value = properties.major;
      return true;
    case cudaDevAttrComputeCapabilityMinor:
      value = properties.minor;
      return true;
    case cudaDevAttrClockRate:
      value = kClockKhz;
      return true;
    case cudaDevAttrMemoryClockRate:
      value = kClockKhz;
      return true;
    case cudaDevAttrGlobalMemoryBusWidth:
      value = properties.memoryBusWidth;
      return true;
    case cudaDevAttrL2CacheSize:
      value = properties.l2CacheSize;
      return true;
    default:
      return false;
  }
}

}  // namespace

extern "C" {

const char* CUDARTAPI cudaGetErrorString(cudaError_t error) {
  const ErrorText* const known = find_error(error);
  return known != nullptr ? known->text : "unrecognized error code";
}

const char* CUDARTAPI cudaGetErrorName(cudaError_t error) {
  const ErrorText* const known = find_error(error);
  return known != nullptr ? known->name : "unrecognized error code";
}

cudaError_t CUDARTAPI cudaGetLastError(void) {
  const cudaError_t error = last_error();
  last_error() = cudaSuccess;
  return error;
}

cudaError_t CUDARTAPI cudaGetDeviceCount(int* count) {
  if (count == nullptr) return last_error() = cudaErrorInvalidValue;
  *count = 1;
  return cudaSuccess;
}

cudaError_t CUDARTAPI cudaGetDeviceProperties(cudaDeviceProp* properties, int device) {
  return call([&](Runtime& runtime) {
    if (properties == nullptr) return cudaErrorInvalidValue;
    if (device != 0) return cudaErrorInvalidDevice;
    fill(runtime, *properties);
    return cudaSuccess;
  });
}

cudaError_t CUDARTAPI cudaDeviceGetAttribute(int* value, cudaDeviceAttr wanted, int device) {
  return call([&](Runtime& runtime) {
    if (value == nullptr) return cudaErrorInvalidValue;
    if (device != 0) return cudaErrorInvalidDevice;
    cudaDeviceProp properties;
    fill(runtime, properties);
    return attribute(properties, wanted, *value) ? cudaSuccess : cudaErrorInvalidValue;
  });
}

cudaError_t CUDARTAPI cudaSetDevice(int device) {
  return call([&](Runtime&) { return device == 0 ? cudaSuccess : cudaErrorInvalidDevice; });
}

cudaError_t CUDARTAPI cudaDriverGetVersion(int* version) {
  if (version == nullptr) return last_error() = cudaErrorInvalidValue;
  *version = CUDART_VERSION;
  return cudaSuccess;
}

cudaError_t CUDARTAPI cudaDeviceSynchronize(void) {
  return call([](Runtime& runtime) {
    if (const cudaError_t refused = runtime.refuse_in_capture(); refused != cudaSuccess)
      return refused;
    runtime.finish_all();
    return runtime.lost;
  });
}

// There is no driver, so none of its functions (tensor maps are for sm_90).
#if CUDART_VERSION >= 12050
cudaError_t CUDARTAPI cudaGetDriverEntryPointByVersion(const char* symbol, void** function,
                                                       unsigned int /*version*/,
                                                       unsigned long long /*flags*/,
                                                       cudaDriverEntryPointQueryResult* result) {
  if (symbol == nullptr || function == nullptr) return last_error() = cudaErrorInvalidValue;
  *function = nullptr;
  if (result == nullptr) return last_error() = cudaErrorSymbolNotFound;
  *result = cudaDriverEntryPointSymbolNotFound;
  return cudaSuccess;
}
#else
cudaError_t CUDARTAPI cudaGetDriverEntryPoint(const char* symbol, void** function,
                                              unsigned long long /*flags*/,
                                              cudaDriverEntryPointQueryResult* result) {
  if (symbol == nullptr || function == nullptr) return last_error() = cudaErrorInvalidValue;
  *function = nullptr;
  if (result == nullptr) return last_error() = cudaErrorSymbolNotFound;
  *result = cudaDriverEntryPointSymbolNotFound;
  return cudaSuccess;
}
#endif

}  // extern "C"
