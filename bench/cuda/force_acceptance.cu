#include "kernels/cuda/device.cuh"
#include "synthetic_head.h"

namespace specdec::kernels::bench {
namespace {

constexpr int kMostRows = 64;
constexpr float kForced = 1e30f;

__device__ float draw(std::uint32_t turn, int level) {
  std::uint32_t h = turn * 0x9E3779B1u ^ (static_cast<std::uint32_t>(level) * 0x85EBCA6Bu + 1u);
  h ^= h >> 16;
  h *= 0xC2B2AE35u;
  h ^= h >> 15;
  h *= 0x27D4EB2Fu;
  h ^= h >> 16;
  return static_cast<float>(h >> 8) * 0x1p-24f;
}

/// grid: [1]; a thread a row. Row i of the batch is node i of the tree.
__global__ void __launch_bounds__(kMostRows) force(ForceParams params) {
  __shared__ int parents[kMostRows];
  cuda::wait_for_previous();
  cuda::let_next_start();
  const int row = static_cast<int>(threadIdx.x);
  const int root_slot = params.slots[0];
  int parent = -1;
  if (row > 0 && row < params.num_rows && params.slots[row] >= 0) {
    const int offset = params.path_offsets[row];
    const int depth = params.positions[row] - params.positions[0];
    parent = offset < 0 ? row - 1 : params.path_slots[offset + depth - 1] - root_slot;
  }
  parents[row] = parent;
  __syncthreads();
  if (row != 0) return;
  const std::uint32_t turn = (*params.turn)++;
  int node = 0;
  for (int level = 0; draw(turn, level) < params.rate; ++level) {
    int child = 1;
    while (child < params.num_rows && parents[child] != node) ++child;
    if (child >= params.num_rows) break;
    params.logits[static_cast<std::size_t>(node) * params.vocab + params.tokens[child]] = kForced;
    node = child;
  }
}

}  // namespace

cudaError_t force_acceptance(const ForceParams& params, const cuda::Launch& to) {
  if (params.num_rows > kMostRows) return cudaErrorInvalidValue;
  return cuda::launch(to, &force, dim3(1), kMostRows, 0, params);
}

}  // namespace specdec::kernels::bench
