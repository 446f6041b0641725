#pragma once

#include "kernels/cuda/attention.h"

namespace specdec::kernels::cuda {

/// tree_attention over a cache of floats, in float arithmetic throughout: the units of attention.h
/// are summed on their own and added up in ascending order. `units` and `groups` are one split
/// here, a block per (row, head, unit); `whole` is a block per (row, head).
cudaError_t attention_f32(const TreeAttentionParams& params, AttentionSplit split,
                          const Launch& to);

/// As attention_partial_bytes and attention_counters.
std::size_t attention_f32_partial_bytes(const DeviceBatch& batch, int num_heads) noexcept;
int attention_f32_counters(const DeviceBatch& batch, int num_heads) noexcept;

}  // namespace specdec::kernels::cuda
