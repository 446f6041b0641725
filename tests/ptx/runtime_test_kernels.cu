#include <cuda_runtime.h>

#include "tests/ptx/runtime_test_kernels.h"

namespace specdec::ptx::test {
namespace {

__constant__ int scale = 5;
__device__ int added[2] = {0, 77};

__global__ void parameters(std::int64_t* values, char a, Pair pair, float3 triple) {
  values[0] = a;
  values[1] = pair.small;
  values[2] = static_cast<std::int64_t>(pair.large);
  values[3] = static_cast<std::int64_t>(triple.z);
}

__global__ void add(int* values, int count, int addend) {
  const int i = static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x);
  if (i >= count) return;
  values[i] += addend + scale;
  atomicAdd(&added[0], 1);
}

__global__ void reverse(int* values) {
  extern __shared__ int kept[];
  kept[threadIdx.x] = values[threadIdx.x];
  __syncthreads();
  values[threadIdx.x] = kept[blockDim.x - 1 - threadIdx.x];
}

__global__ void __launch_bounds__(128) bounded(int* values) {
  __shared__ int kept[256];
  kept[threadIdx.x] = 2 * values[threadIdx.x];
  __syncthreads();
  values[threadIdx.x] = kept[threadIdx.x ^ 1];
}

__global__ void count_down(int* left, int* done, cudaGraphConditionalHandle condition) {
  *left -= 1;
  *done += 1;
  cudaGraphSetConditional(condition, *left > 0 ? 1 : 0);
}

__global__ void set(const int* value, cudaGraphConditionalHandle condition) {
  cudaGraphSetConditional(condition, static_cast<unsigned>(*value));
}

__global__ void poke(int* pointer) { *pointer = 1; }
__global__ void trap() { __trap(); }

}  // namespace

void launch_parameters(std::int64_t* values, char a, Pair pair, float3 triple,
                       cudaStream_t stream) {
  parameters<<<1, 1, 0, stream>>>(values, a, pair, triple);
}

cudaError_t launch_add(int* values, int count, int addend, cudaStream_t stream) {
  add<<<(count + 63) / 64, 64, 0, stream>>>(values, count, addend);
  return cudaGetLastError();
}

cudaError_t launch_reverse(int* values, int threads, std::size_t shared_bytes,
                           cudaStream_t stream) {
  cudaLaunchConfig_t config{};
  config.gridDim = dim3(1);
  config.blockDim = dim3(static_cast<unsigned>(threads));
  config.dynamicSmemBytes = shared_bytes;
  config.stream = stream;
  return cudaLaunchKernelEx(&config, reverse, values);
}

cudaError_t allow_reverse(std::size_t shared_bytes) {
  return cudaFuncSetAttribute(reverse, cudaFuncAttributeMaxDynamicSharedMemorySize,
                              static_cast<int>(shared_bytes));
}

cudaError_t launch_bounded(int* values, int threads, cudaStream_t stream) {
  bounded<<<1, static_cast<unsigned>(threads), 0, stream>>>(values);
  return cudaGetLastError();
}

cudaError_t bounded_attributes(cudaFuncAttributes* attributes) {
  return cudaFuncGetAttributes(attributes, bounded);
}

void launch_count_down(int* left, int* done, cudaGraphConditionalHandle condition,
                       cudaStream_t stream) {
  count_down<<<1, 1, 0, stream>>>(left, done, condition);
}

void launch_set(const int* value, cudaGraphConditionalHandle condition, cudaStream_t stream) {
  set<<<1, 1, 0, stream>>>(value, condition);
}

void launch_poke(int* pointer, cudaStream_t stream) { poke<<<1, 1, 0, stream>>>(pointer); }
void launch_trap(cudaStream_t stream) { trap<<<1, 1, 0, stream>>>(); }

cudaError_t launch_in_clusters(int* values, cudaStream_t stream) {
  cudaLaunchAttribute attribute{};
  attribute.id = cudaLaunchAttributeClusterDimension;
  attribute.val.clusterDim = {2, 1, 1};
  cudaLaunchConfig_t config{};
  config.gridDim = dim3(2);
  config.blockDim = dim3(1);
  config.stream = stream;
  config.attrs = &attribute;
  config.numAttrs = 1;
  return cudaLaunchKernelEx(&config, poke, values);
}

cudaError_t read_scale(int* value) { return cudaMemcpyFromSymbol(value, scale, sizeof scale); }
cudaError_t read_added(int* values, std::size_t bytes, std::size_t offset) {
  return cudaMemcpyFromSymbol(values, added, bytes, offset);
}
cudaError_t read_unknown(int* value) {
  static const int none = 0;
  return cudaMemcpyFromSymbol(value, reinterpret_cast<const char&>(none), sizeof none);
}

}  // namespace specdec::ptx::test
