#include "kernels/cuda/attention.h"

#include <algorithm>

#include "kernels/cuda/attention.cuh"

namespace specdec::kernels::cuda {
namespace {

constexpr float kLog2E = 1.44269504f;

int query_tiles(const DeviceBatch& batch, int group) {
  const int tokens = kQueries / group;
  return std::min(batch.num_rows, batch.num_sequences + batch.num_rows / tokens);
}

int num_units(const DeviceBatch& batch) {
  return std::max(1, ceil_div(batch.max_context, kAttentionUnit));
}

template <int kChunks>
cudaError_t launch_attention(AttentionArgs& args, AttentionSplit split, const Launch& to) {
  const int tiles = query_tiles(args.batch, args.group);
  const int units = num_units(args.batch);
  const auto heads = static_cast<unsigned>(args.kv.num_kv_heads);
  const std::size_t partial_bytes = sizeof(Partial<kChunks>) * static_cast<std::size_t>(tiles) *
                                    static_cast<std::size_t>(args.kv.num_kv_heads) *
                                    static_cast<std::size_t>(units);
  const bool fits = units == 1 || (partial_bytes <= to.workspace.partial_bytes &&
                                   tiles * args.kv.num_kv_heads <= to.workspace.num_counters);
  if (split == AttentionSplit::automatic)
    split = fits && tiles * args.kv.num_kv_heads < 8 * to.device.num_processors
                ? AttentionSplit::units
                : AttentionSplit::whole;
  const bool is_whole = split == AttentionSplit::whole;
  if (!is_whole && !fits) return cudaErrorInvalidConfiguration;
  constexpr int kMostOfCluster = 8;
  const bool clusters =
      !is_whole && units > 1 && units <= kMostOfCluster && to.device.compute_major >= 9;
  const auto kernel = is_whole   ? attention_whole_kernel<kChunks>
                      : clusters ? attention_units_kernel<kChunks, true>
                                 : attention_units_kernel<kChunks, false>;
  const dim3 grid = is_whole
                        ? dim3(heads, static_cast<unsigned>(ceil_div(tiles, 4)))
                        : dim3(heads, static_cast<unsigned>(tiles), static_cast<unsigned>(units));
  constexpr int kShared = 4 * static_cast<int>(sizeof(KvStage<kChunks>));
  const cudaError_t status = allow_shared(to, kernel);
  if (status != cudaSuccess) return status;
  return launch_clusters(to, kernel, grid, clusters ? dim3(1, 1, grid.z) : dim3(1), 128, kShared,
                         args);
}

}  // namespace

bool attention_supported(int num_heads, const KvLayer& kv) noexcept {
  return kv.type == DataType::f16 && kv.head_dim % 8 == 0 && kv.head_dim <= 128 &&
         kv.block_size % 8 == 0 && num_heads % kv.num_kv_heads == 0 &&
         num_heads / kv.num_kv_heads <= kQueries;
}

std::size_t attention_partial_bytes(const DeviceBatch& batch, int num_heads,
                                    const KvLayer& kv) noexcept {
  const int tiles = query_tiles(batch, num_heads / kv.num_kv_heads);
  return sizeof(Partial<4>) / 4 * static_cast<std::size_t>(ceil_div(kv.head_dim, 32)) *
             static_cast<std::size_t>(tiles) * static_cast<std::size_t>(kv.num_kv_heads) *
             static_cast<std::size_t>(num_units(batch)) +
         sizeof(Partial<4>) * 64;
}

int attention_counters(const DeviceBatch& batch, int num_heads, const KvLayer& kv) noexcept {
  return query_tiles(batch, num_heads / kv.num_kv_heads) * kv.num_kv_heads;
}

cudaError_t tree_attention(const TreeAttentionParams& params, AttentionSplit split,
                           const Launch& to) {
  if (params.batch.device == nullptr || !attention_supported(params.num_heads, params.kv))
    return cudaErrorInvalidValue;
  AttentionArgs args{};
  args.batch = *params.batch.device;
  args.kv = params.kv;
  args.q = params.q;
  args.out = params.out;
  args.out_type = params.out_type;
  args.num_heads = params.num_heads;
  args.group = params.num_heads / params.kv.num_kv_heads;
  args.tile_tokens = kQueries / args.group;
  args.scale_log2 = params.scale * kLog2E;
  args.partials = to.workspace.partials;
  args.counters = to.workspace.counters;
  switch ((params.kv.head_dim + 31) / 32) {
    case 1:
    case 2:
      return launch_attention<2>(args, split, to);
    case 3:
      return launch_attention<3>(args, split, to);
    default:
      return launch_attention<4>(args, split, to);
  }
}

}  // namespace specdec::kernels::cuda
