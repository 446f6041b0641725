#include "kernels/cuda/kv.h"

#include <algorithm>

#include "kernels/cuda/device.cuh"
#include "kernels/cuda/operand.h"

namespace specdec::kernels::cuda {
namespace {

constexpr int kThreads = 128;
constexpr int kAtOnce = 8;  // loads before the first store: a destination is no later source

/// Where element `dim` of slot `slot` lies.
__device__ std::size_t key_at(const KvPool& pool, int slot, int head, int dim) {
  const std::size_t block = static_cast<std::size_t>(slot / pool.block_size);
  return ((block * pool.num_kv_heads + head) * pool.block_size + slot % pool.block_size) *
             pool.head_dim +
         dim;
}
__device__ std::size_t value_at(const KvPool& pool, int slot, int head, int dim) {
  const std::size_t block = static_cast<std::size_t>(slot / pool.block_size);
  return ((block * pool.num_kv_heads + head) * pool.head_dim + dim) * pool.block_size +
         slot % pool.block_size;
}

template <class Element>
__device__ void carry(const KvPool& pool, const SlotMove* moves, int count) {
  const int element = static_cast<int>(blockIdx.x * kThreads + threadIdx.x);
  if (element >= pool.num_kv_heads * pool.head_dim) return;
  const int head = element / pool.head_dim;
  const int dim = element % pool.head_dim;
  auto* keys = static_cast<Element*>(pool.keys[blockIdx.y]);
  auto* values = static_cast<Element*>(pool.values[blockIdx.y]);
  for (int first = 0; first < count; first += kAtOnce) {
    Element key[kAtOnce];
    Element value[kAtOnce];
#pragma unroll
    for (int i = 0; i < kAtOnce; ++i) {
      if (first + i >= count) break;
      key[i] = keys[key_at(pool, moves[first + i].source, head, dim)];
      value[i] = values[value_at(pool, moves[first + i].source, head, dim)];
    }
#pragma unroll
    for (int i = 0; i < kAtOnce; ++i) {
      if (first + i >= count) break;
      keys[key_at(pool, moves[first + i].destination, head, dim)] = key[i];
      values[value_at(pool, moves[first + i].destination, head, dim)] = value[i];
    }
  }
}

__device__ void carry_elements(const KvPool& pool, const SlotMove* moves, int count) {
  if (pool.element_bytes == 4)
    carry<std::uint32_t>(pool, moves, count);
  else
    carry<std::uint16_t>(pool, moves, count);
}

/// grid: [elements of a slot / kThreads, layers]
__global__ void __launch_bounds__(kThreads)
    move_few_kernel(const __grid_constant__ KvPool pool, const __grid_constant__ FewMoves moves) {
  let_next_start();
  wait_for_previous();
  carry_elements(pool, moves.moves, moves.count);
}
__global__ void __launch_bounds__(kThreads)
    move_kernel(const __grid_constant__ KvPool pool, const SlotMove* moves,
                const std::int32_t* count, int most) {
  let_next_start();
  wait_for_previous();
  carry_elements(pool, moves, min(*count, most));
}

/// grid: [kThreads * 16 bytes of a half block, layers, keys and values]
__global__ void __launch_bounds__(kThreads)
    copy_kernel(const __grid_constant__ KvPool pool, int source, int destination, int words) {
  let_next_start();
  wait_for_previous();
  const int word = static_cast<int>(blockIdx.x * kThreads + threadIdx.x);
  if (word >= words) return;
  auto* half =
      static_cast<uint4*>(blockIdx.z == 0 ? pool.keys[blockIdx.y] : pool.values[blockIdx.y]);
  half[static_cast<std::size_t>(destination) * words + word] =
      half[static_cast<std::size_t>(source) * words + word];
}

dim3 grid_of(const KvPool& pool) {
  return dim3(static_cast<unsigned>(ceil_div(pool.num_kv_heads * pool.head_dim, kThreads)),
              static_cast<unsigned>(pool.num_layers));
}

}  // namespace

KvPool make_pool(std::span<const KvLayer> layers) noexcept {
  KvPool pool;
  pool.num_layers = std::min(static_cast<int>(layers.size()), KvPool::kMostLayers);
  pool.num_kv_heads = layers.front().num_kv_heads;
  pool.head_dim = layers.front().head_dim;
  pool.block_size = layers.front().block_size;
  pool.element_bytes = static_cast<int>(kv_element_bytes(layers.front().type));
  for (int i = 0; i < pool.num_layers; ++i) {
    pool.keys[i] = layers[static_cast<std::size_t>(i)].keys;
    pool.values[i] = layers[static_cast<std::size_t>(i)].values;
  }
  return pool;
}

cudaError_t move_kv(const KvPool& pool, const SlotMove* moves, const std::int32_t* count, int most,
                    const Launch& to) {
  return launch(to, move_kernel, grid_of(pool), kThreads, 0, pool, moves, count, most);
}

cudaError_t move_kv(const KvPool& pool, const FewMoves& moves, const Launch& to) {
  return launch(to, move_few_kernel, grid_of(pool), kThreads, 0, pool, moves);
}

cudaError_t copy_block(const KvPool& pool, int source, int destination, const Launch& to) {
  const int words = pool.num_kv_heads * pool.head_dim * pool.block_size * pool.element_bytes / 16;
  const dim3 grid(static_cast<unsigned>(ceil_div(words, kThreads)),
                  static_cast<unsigned>(pool.num_layers), 2);
  return launch(to, copy_kernel, grid, kThreads, 0, pool, source, destination, words);
}

}  // namespace specdec::kernels::cuda
