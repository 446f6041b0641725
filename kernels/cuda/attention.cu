#include "kernels/cuda/attention.h"

#include <algorithm>

#include "kernels/cuda/attention.cuh"
#include "kernels/cuda/attention_f32.h"
#include "kernels/cuda/attention_groups.cuh"
#include "kernels/cuda/attention_prefill.cuh"

namespace specdec::kernels::cuda {
namespace {

constexpr float kLog2E = 1.44269504f;

constexpr int kMostBlockTiles = 4;

/// At least as many tiles as find_tile() has, at `tokens` rows each.
int query_tiles(const DeviceBatch& batch, int tokens) {
  return std::min(batch.num_rows, batch.num_sequences + batch.num_rows / tokens);
}

int num_units(const DeviceBatch& batch) {
  return std::max(1, ceil_div(batch.max_context, kAttentionUnit));
}

struct Grid {
  int tiles;        // sets of queries, or groups of block_tiles of them
  int block_tiles;  // 1 but for groups
  std::size_t partials;
  int counters;
};

Grid grid_of(const AttentionArgs& args, int block_tiles) {
  const int tiles = query_tiles(args.batch, args.tile_tokens * block_tiles);
  const int items = tiles * args.kv.num_kv_heads;
  return {tiles, block_tiles,
          static_cast<std::size_t>(items) * static_cast<std::size_t>(block_tiles) *
              static_cast<std::size_t>(num_units(args.batch)),
          items};
}

/// Groups as large as they must be for the blocks to be resident at once.
Grid group_grid(const AttentionArgs& args, int num_processors) {
  Grid grid = grid_of(args, 1);
  while (grid.block_tiles < kMostBlockTiles &&
         (grid.block_tiles + 1) * args.tile_tokens <= kMostGroupTokens &&
         grid.counters * num_units(args.batch) > num_processors)
    grid = grid_of(args, grid.block_tiles + 1);
  return grid;
}

Grid grid_for(const AttentionArgs& args, AttentionSplit split, const Launch& to) {
  return split == AttentionSplit::groups ? group_grid(args, to.device.num_processors)
                                         : grid_of(args, 1);
}

template <int kChunks>
cudaError_t launch_attention(AttentionArgs& args, AttentionSplit split, const Launch& to) {
  const int units = num_units(args.batch);
  const auto fits = [&](const Grid& grid) {
    return units == 1 || (grid.partials * sizeof(Partial<kChunks>) <= to.workspace.partial_bytes &&
                          grid.counters <= to.workspace.num_counters);
  };
  if (split == AttentionSplit::automatic) {
    const int rows = args.batch.num_rows;
    split = rows <= args.batch.num_sequences                      ? AttentionSplit::units
            : rows <= kMostGroupTokens * args.batch.num_sequences ? AttentionSplit::groups
                                                                  : AttentionSplit::whole;
    const Grid grid = grid_for(args, split, to);
    if (!fits(grid) || grid.counters >= 8 * to.device.num_processors) split = AttentionSplit::whole;
  }
  const Grid grid = grid_for(args, split, to);
  const auto heads = static_cast<unsigned>(args.kv.num_kv_heads);
  dim3 blocks(heads, static_cast<unsigned>(grid.tiles), static_cast<unsigned>(units));
  constexpr int kStages = 8 * KvStage<kChunks>::kPart * static_cast<int>(sizeof(uint4));
  int most_shared = kStages;
  auto kernel = attention_units_kernel<kChunks, false>;
  dim3 cluster(1);
  int threads = 128;
  if (split == AttentionSplit::whole) {
    const auto choose = [&](auto warps, auto trees) {
      constexpr int kWarps = decltype(warps)::value;
      using Shared = PrefillShared<kChunks, kWarps>;
      const auto room = static_cast<std::size_t>(to.device.max_block_shared);
      args.stages = Shared::bytes(kMostPrefillStages) <= room ? kMostPrefillStages : 2;
      most_shared = static_cast<int>(Shared::bytes(args.stages));
      kernel = attention_prefill_kernel<kChunks, kWarps, decltype(trees)::value>;
      threads = kWarps * 32;
      const int tiles = query_tiles(args.batch, args.tile_tokens * kWarps);
      blocks = dim3(heads, static_cast<unsigned>(tiles));
    };
    using Most = std::integral_constant<int, kMostPrefillWarps>;
    using Few = std::integral_constant<int, kFewPrefillWarps>;
    if (args.batch.has_paths)
      choose(Few(), std::true_type());
    else if (grid.counters < 2 * kMostPrefillWarps * to.device.num_processors)
      choose(Few(), std::false_type());
    else
      choose(Most(), std::false_type());
  } else if (!fits(grid)) {
    return cudaErrorInvalidConfiguration;
  } else if (split == AttentionSplit::groups) {
    kernel = attention_groups_kernel<kChunks>;
    most_shared = static_cast<int>(sizeof(GroupShared<kChunks>));
  } else {
    // With several blocks a processor, their copies overlap; with one, its own keys and values do.
    args.tight = grid.counters * units > 2 * to.device.num_processors;
    constexpr int kMostOfCluster = 8;
    // Where blocks are large a cluster waits for several processors to be free at once.
    if (kChunks <= 2 && !args.tight && units > 1 && units <= kMostOfCluster &&
        to.device.has_overlap) {
      kernel = attention_units_kernel<kChunks, true>;
      cluster.z = blocks.z;
    }
  }
  args.block_tiles = grid.block_tiles;
  const cudaError_t status = allow_shared(to, kernel);
  if (status != cudaSuccess) return status;
  return launch_clusters(to, kernel, blocks, cluster, threads,
                         static_cast<std::size_t>(args.tight ? most_shared / 2 : most_shared),
                         args);
}

}  // namespace

bool attention_supported(int num_heads, const KvLayer& kv) noexcept {
  return (kv.type == DataType::f16 || kv.type == DataType::f32) && kv.head_dim % 8 == 0 &&
         kv.head_dim <= 128 && kv.block_size % 8 == 0 && num_heads % kv.num_kv_heads == 0 &&
         num_heads / kv.num_kv_heads <= kQueries;
}

std::size_t attention_partial_bytes(const DeviceBatch& batch, int num_heads,
                                    const KvLayer& kv) noexcept {
  if (kv.type == DataType::f32) return attention_f32_partial_bytes(batch, num_heads);
  // A sequence's last group may be all but empty.
  const int tokens = kQueries / (num_heads / kv.num_kv_heads);
  const int spare = batch.num_rows > batch.num_sequences ? kMostBlockTiles : 1;
  const int tiles = spare * batch.num_sequences + batch.num_rows / tokens;
  return sizeof(Partial<4>) / 4 * static_cast<std::size_t>(ceil_div(kv.head_dim, 32)) *
             static_cast<std::size_t>(tiles) * static_cast<std::size_t>(kv.num_kv_heads) *
             static_cast<std::size_t>(num_units(batch)) +
         sizeof(Partial<4>) * 64;
}

int attention_counters(const DeviceBatch& batch, int num_heads, const KvLayer& kv) noexcept {
  if (kv.type == DataType::f32) return attention_f32_counters(batch, num_heads);
  return query_tiles(batch, kQueries / (num_heads / kv.num_kv_heads)) * kv.num_kv_heads;
}

cudaError_t tree_attention(const TreeAttentionParams& params, AttentionSplit split,
                           const Launch& to) {
  if (params.batch.device == nullptr || !attention_supported(params.num_heads, params.kv))
    return cudaErrorInvalidValue;
  if (params.kv.type == DataType::f32) return attention_f32(params, split, to);
  AttentionArgs args{};
  args.batch = *params.batch.device;
  args.kv = params.kv;
  args.q = params.q;
  args.out = params.out;
  args.out_type = params.out_type;
  args.num_heads = params.num_heads;
  args.group = params.num_heads / params.kv.num_kv_heads;
  args.first_position = params.first_position;
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
