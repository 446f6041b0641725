#pragma once

#include "kernels/cuda/batch.h"
#include "kernels/cuda/launch.h"
#include "kernels/ops.h"

namespace specdec::kernels::cuda {

/// Positions that are summed up on their own before they meet the others: the fixed boundaries of
/// the split over the context. A unit is four tiles, each with one softmax of its own; tiles add up
/// to units and units to the whole in ascending order, however they are spread over warps and
/// blocks. So decoding, verification and prefill have the same bits.
inline constexpr int kAttentionTile = 64;
inline constexpr int kAttentionUnit = 4 * kAttentionTile;

enum class AttentionSplit : std::uint8_t {
  automatic,
  tiles,    // a block per (sets of queries, tile), a cluster per sets of queries: few rows; sm_90
  streams,  // a block per set of queries: so many sequences of a row each that all are busy; no
            // trees
  units,    // a block per (queries, unit): where those two do not serve
  groups,   // a block per (several sets of queries of a sequence, unit): verification
  whole,    // a block per (several sets of queries of a sequence): many rows
};

/// Head sizes that are a multiple of 8, up to 128; f16 or f32 cache; at most 16 query heads a KV
/// head.
/// `batch` is params.batch.device; params.out is floats or an operand, as params.out_type says.
bool attention_supported(int num_heads, const KvLayer& kv) noexcept;
cudaError_t tree_attention(const TreeAttentionParams& params, AttentionSplit split,
                           const Launch& to);

/// Scratch that a split over units takes for a batch of this shape.
std::size_t attention_partial_bytes(const DeviceBatch& batch, int num_heads,
                                    const KvLayer& kv) noexcept;
int attention_counters(const DeviceBatch& batch, int num_heads, const KvLayer& kv) noexcept;

}  // namespace specdec::kernels::cuda
