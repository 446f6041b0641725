#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

namespace specdec::ptx::test {

struct Pair {
  std::int16_t small;
  double large;
};

/// values[i] = bytes a kernel's parameters of mixed sizes came out as, for i < count.
void launch_parameters(std::int64_t* values, char a, Pair pair, float3 triple, cudaStream_t stream);
/// values[i] += addend + scale (a constant), for i < count; blocks of 64 threads.
cudaError_t launch_add(int* values, int count, int addend, cudaStream_t stream);
/// Reverses a block's values through `shared_bytes` of dynamic shared memory.
cudaError_t launch_reverse(int* values, int threads, std::size_t shared_bytes, cudaStream_t stream);
cudaError_t allow_reverse(std::size_t shared_bytes);
/// Has __launch_bounds__(128) and 1024 bytes of static shared memory.
cudaError_t launch_bounded(int* values, int threads, cudaStream_t stream);
cudaError_t bounded_attributes(cudaFuncAttributes* attributes);
/// left[0] -= 1, done[0] += 1; the condition becomes left[0] > 0.
void launch_count_down(int* left, int* done, cudaGraphConditionalHandle condition,
                       cudaStream_t stream);
/// The condition becomes `value[0]`.
void launch_set(const int* value, cudaGraphConditionalHandle condition, cudaStream_t stream);
/// Writes at `pointer`; gives up by a trap.
void launch_poke(int* pointer, cudaStream_t stream);
void launch_trap(cudaStream_t stream);
cudaError_t launch_in_clusters(int* values, cudaStream_t stream);

/// The constant of launch_add, and a device variable that each of its threads counts itself in.
cudaError_t read_scale(int* scale);
cudaError_t read_added(int* added, std::size_t bytes, std::size_t offset);
cudaError_t read_unknown(int* value);

}  // namespace specdec::ptx::test
