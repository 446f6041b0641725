#pragma once

#include "kernels/cuda/batch.h"
#include "kernels/cuda/launch.h"
#include "kernels/ops.h"

namespace specdec::kernels::cuda {

/// The layers of one model's KV pool, for kernels that touch all of them at once.
struct KvPool {
  static constexpr int kMostLayers = 160;  // pointers travel as a kernel parameter (4 KiB)

  int num_layers = 0;
  int num_kv_heads = 0;
  int head_dim = 0;
  int block_size = 0;
  int element_bytes = 2;  // 2 or 4
  void* keys[kMostLayers] = {};
  void* values[kMostLayers] = {};
};
/// Throws nothing; more layers than kMostLayers are the caller's to refuse.
KvPool make_pool(std::span<const KvLayer> layers) noexcept;

/// Slots of a pool, over all sequences: block * block_size + offset.
struct SlotMove {
  std::int32_t source = 0;
  std::int32_t destination = 0;
};
/// Moves of one sequence after another, each sequence's in ascending order (MoveKvParams): each
/// thread carries one element of one layer through all of them, so the order holds.
///   moves [most], *count <= most of them valid; both in device memory, where a kernel may have
///   written them.
cudaError_t move_kv(const KvPool& pool, const SlotMove* moves, const std::int32_t* count, int most,
                    const Launch& to);
/// The same with moves that the host knows: they travel with the launch.
struct FewMoves {
  static constexpr int kMost = 64;
  SlotMove moves[kMost] = {};
  int count = 0;
};
cudaError_t move_kv(const KvPool& pool, const FewMoves& moves, const Launch& to);

/// Copies a whole block, in every layer.
cudaError_t copy_block(const KvPool& pool, int source, int destination, const Launch& to);

}  // namespace specdec::kernels::cuda
