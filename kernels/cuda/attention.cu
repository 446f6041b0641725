#include "kernels/cuda/attention.h"

#include <algorithm>
#include <cmath>
#include <type_traits>

#include "kernels/cuda/attention.cuh"
#include "kernels/cuda/attention_decode.cuh"
#include "kernels/cuda/attention_f32.h"
#include "kernels/cuda/attention_groups.cuh"
#include "kernels/cuda/attention_prefill.cuh"
#include "kernels/cuda/attention_stream.cuh"
#include "kernels/cuda/attention_tiles.cuh"
#include "kernels/cuda/attention_units.cuh"

namespace specdec::kernels::cuda {
namespace {

constexpr float kLog2E = 1.44269504f;

constexpr int kMostBlockTiles = 4;

/// A row a sequence, on average: a padded batch may have sequences of several rows and of none.
bool is_decoding(const DeviceBatch& batch) { return batch.num_rows <= batch.num_sequences; }

/// Whether a set has at most eight queries, so that a lane has one of the mma's two rows. (Several
/// rows of a sequence then are several sets.)
bool has_few_queries(const AttentionArgs& args) {
  return args.tile_tokens * args.group.value <= kQueries / 2;
}

/// ... may have: of plain decoding and of a chain's few rows, which find each other's keys and
/// values in the second-level cache.
bool may_have_few_queries(const AttentionArgs& args) {
  constexpr int kMostChainRows = 8;
  const DeviceBatch& batch = args.batch;
  return args.group.value <= kQueries / 2 &&
         (is_decoding(batch) ||
          (!batch.has_paths && batch.num_rows <= kMostChainRows * batch.num_sequences));
}

/// Whether tiles are for attention_decode_kernel's blocks, which have one set of queries.
bool plain_blocks(const AttentionArgs& args) {
  return is_decoding(args.batch) || has_few_queries(args);
}

/// body(chunks) with the head size in 32s, rounded up, as a constant; smaller heads take two.
template <class Body>
auto with_chunks(int head_dim, Body body) {
  switch (ceil_div(head_dim, 32)) {
    case 1:
    case 2:
      return body(std::integral_constant<int, 2>());
    case 3:
      return body(std::integral_constant<int, 3>());
    default:
      return body(std::integral_constant<int, 4>());
  }
}

/// At least as many tiles as find_tile() has, at `tokens` rows each.
int query_tiles(const DeviceBatch& batch, int tokens) {
  return std::min(batch.num_rows, (batch.num_rows + batch.num_sequences * (tokens - 1)) / tokens);
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

template <int kChunks>
bool fits(const AttentionArgs& args, const Grid& grid, const Launch& to) {
  return num_units(args.batch) == 1 ||
         (grid.partials * sizeof(Partial<kChunks>) <= to.workspace.partial_bytes &&
          grid.counters <= to.workspace.num_counters);
}

/// Adds what a split over units needs: a block per (head, group of queries, unit).
dim3 unit_blocks(const AttentionArgs& args, const Grid& grid) {
  return dim3(static_cast<unsigned>(args.kv.num_kv_heads), static_cast<unsigned>(grid.tiles),
              static_cast<unsigned>(num_units(args.batch)));
}

template <class Kernel>
cudaError_t launch_attention_kernel(const Launch& to, Kernel* kernel, dim3 blocks, dim3 cluster,
                                    int threads, std::size_t shared_bytes,
                                    const AttentionArgs& args) {
  const cudaError_t status = allow_shared(to, kernel);
  if (status != cudaSuccess) return status;
  return launch_clusters(to, kernel, blocks, cluster, threads, shared_bytes, args);
}

bool has_room(std::size_t shared, const Launch& to) {
  return shared <= static_cast<std::size_t>(to.device.max_block_shared);
}

/// Rounds that blocks of `shared` bytes take, as many at once as have room; none have: infinity.
float rounds_of(int blocks, std::size_t shared, int most_resident, const Launch& to) {
  constexpr std::size_t kReserved = 1024;  // of each block
  const auto room = static_cast<std::size_t>(to.device.max_block_shared) + kReserved;
  const int resident = std::min(most_resident, static_cast<int>(room / (shared + kReserved)));
  if (resident == 0) return INFINITY;
  return static_cast<float>(blocks) / static_cast<float>(resident * to.device.num_processors);
}

template <int kChunks>
struct UnitsPlan {
  static constexpr std::size_t kStages = 8 * KvStage<kChunks>::kPart * sizeof(uint4);
  Grid grid;
  float rounds;

  UnitsPlan(const AttentionArgs& args, const Launch& to)
      : grid(grid_of(args, 1)),
        rounds(rounds_of(grid.counters * num_units(args.batch), kStages, 8, to)) {}
};

template <int kChunks>
cudaError_t launch_units(AttentionArgs& args, const Launch& to) {
  const UnitsPlan<kChunks> plan(args, to);
  const Grid& grid = plan.grid;
  if (!fits<kChunks>(args, grid, to)) return cudaErrorInvalidConfiguration;
  // With several blocks a processor, their copies overlap; with one, its own keys and values do.
  args.tight = plan.rounds > 2.0f;
  const std::size_t shared = args.tight ? plan.kStages / 2 : plan.kStages;
  return launch_attention_kernel(to, attention_units_kernel<kChunks>, unit_blocks(args, grid),
                                 dim3(1), 128, shared, args);
}

template <int kChunks>
cudaError_t launch_streams(AttentionArgs& args, const Launch& to) {
  const dim3 blocks(static_cast<unsigned>(args.kv.num_kv_heads),
                    static_cast<unsigned>(query_tiles(args.batch, args.tile_tokens)));
  auto* const kernel = has_few_queries(args) ? attention_stream_kernel<kChunks, 1>
                                             : attention_stream_kernel<kChunks, 2>;
  return launch_attention_kernel(to, kernel, blocks, dim3(1), 128, sizeof(StreamShared<kChunks>),
                                 args);
}

template <int kChunks>
cudaError_t launch_groups(AttentionArgs& args, const Launch& to) {
  const Grid grid = group_grid(args, to.device.num_processors);
  if (!fits<kChunks>(args, grid, to)) return cudaErrorInvalidConfiguration;
  args.block_tiles = grid.block_tiles;
  return launch_attention_kernel(to, attention_groups_kernel<kChunks>, unit_blocks(args, grid),
                                 dim3(1), 128, sizeof(GroupShared<kChunks>), args);
}

template <int kChunks>
cudaError_t launch_whole(AttentionArgs& args, const Launch& to) {
  const auto with = [&](auto warps, auto trees) {
    constexpr int kWarps = decltype(warps)::value;
    using Shared = PrefillShared<kChunks, kWarps>;
    const auto room = static_cast<std::size_t>(to.device.max_block_shared);
    args.stages = Shared::bytes(kMostPrefillStages) <= room ? kMostPrefillStages : 2;
    const dim3 blocks(static_cast<unsigned>(args.kv.num_kv_heads),
                      static_cast<unsigned>(query_tiles(args.batch, args.tile_tokens * kWarps)));
    return launch_attention_kernel(
        to, attention_prefill_kernel<kChunks, kWarps, decltype(trees)::value>, blocks, dim3(1),
        kWarps * 32, Shared::bytes(args.stages), args);
  };
  using Most = std::integral_constant<int, kMostPrefillWarps>;
  using Few = std::integral_constant<int, kFewPrefillWarps>;
  using Fewest = std::integral_constant<int, kFewestPrefillWarps>;
  if (args.batch.has_paths) return with(Few(), std::true_type());
  const int sets = grid_of(args, 1).counters;
  const int processors = to.device.num_processors;
  if (sets <= kFewestPrefillWarps * processors) return with(Fewest(), std::false_type());
  return sets < 2 * kMostPrefillWarps * processors ? with(Few(), std::false_type())
                                                   : with(Most(), std::false_type());
}

// What follows was measured on an H100 and an H200 (docs/cuda.md, Attention).
constexpr int kMostRanks = 16;    // blocks of a cluster, with one set of queries a sequence
constexpr int kMostSetRanks = 9;  // ... with more of them: many clusters of more wait for room
constexpr int kFewSetRanks = 8;
constexpr int kMostTreeRanks = 7;  // nine are as fast alone, but late between products
constexpr int kMostSets = 8;
constexpr int kMostUnitTiles = 64;  // tiles of a sequence whose units have a block each
constexpr int kMostTreeTurns = 5;
constexpr int kMostTreeTiles = 16;  // where large heads take so many turns
constexpr int kMostResident = 3;  // blocks of attention_tiles_kernel on a processor: its registers
constexpr float kMostRounds = 0.6f;  // of such blocks: then clusters find room at once
constexpr float kMostTreeRounds = 0.8f;
constexpr int kSmallRanks = 3;          // clusters that find it anyway
constexpr float kFewestStreams = 0.4f;  // blocks of attention_stream_kernel a processor

bool has_clusters(const Launch& to) { return to.device.has_overlap; }

/// How the tiles of the longest context are spread over a cluster, sets of queries over blocks.
struct TilesPlan {
  int ranks = 0;
  int turns = 0;
  bool by_unit = false;
  int sets = 1;            // of a block
  std::size_t shared = 0;  // bytes a block
  float rounds = 0.0f;     // of as many blocks as are resident at once
};

/// Whether a tree's clusters all find room.
bool fits_at_once(const TilesPlan& plan) {
  return plan.rounds <= (plan.ranks <= kSmallRanks ? 1.0f : kMostTreeRounds);
}

/// With what is known of the blocks filled in.
template <int kChunks>
TilesPlan sized(TilesPlan plan, const AttentionArgs& args, const Launch& to) {
  const DeviceBatch& batch = args.batch;
  const int tokens = plan.sets * args.tile_tokens;
  const auto bytes = [&](auto trees) {
    return TilesShared<kChunks, decltype(trees)::value>::bytes(plan.sets, plan.ranks, plan.turns,
                                                               plan.by_unit, tokens);
  };
  plan.shared = batch.has_paths ? bytes(std::true_type()) : bytes(std::false_type());
  const int rows = ceil_div(batch.num_rows, batch.num_sequences);
  plan.rounds =
      rounds_of(batch.num_sequences * ceil_div(rows, tokens) * args.kv.num_kv_heads * plan.ranks,
                plan.shared, kMostResident, to);
  return plan;
}

/// A tree's own positions are the longest work of a block: one set of queries each, and as many
/// blocks for a set's tiles as there is room for.
template <int kChunks>
TilesPlan tree_plan(const AttentionArgs& args, int tiles, const Launch& to) {
  TilesPlan plan;
  for (int most = kMostTreeRanks; most > 1; --most) {
    plan.turns = ceil_div(tiles, most);
    plan.ranks = ceil_div(tiles, plan.turns);
    plan = sized<kChunks>(plan, args, to);
    if (fits_at_once(plan)) break;
  }
  return plan;
}

template <int kChunks>
TilesPlan tiles_plan(const AttentionArgs& args, const Launch& to) {
  const DeviceBatch& batch = args.batch;
  const int tiles = std::max(1, ceil_div(batch.max_context, kAttentionTile));
  if (batch.has_paths) return tree_plan<kChunks>(args, tiles, to);
  TilesPlan plan;
  if (plain_blocks(args)) {
    constexpr int kUnitTiles = kAttentionUnit / kAttentionTile;
    plan.by_unit = tiles > kMostRanks && tiles <= kMostUnitTiles;
    plan.turns = plan.by_unit ? kUnitTiles : ceil_div(tiles, kMostRanks);
  } else {
    plan.turns = tiles <= kMostSetRanks ? 1 : ceil_div(tiles, kFewSetRanks);
  }
  plan.ranks = ceil_div(tiles, plan.turns);
  const int rows = ceil_div(batch.num_rows, batch.num_sequences);
  const int most = plain_blocks(args)
                       ? 1
                       : std::min(kMostSets, std::max(1, kMostGroupTokens / args.tile_tokens));
  for (;; ++plan.sets) {
    plan = sized<kChunks>(plan, args, to);
    if (plan.sets == most || plan.sets * args.tile_tokens >= rows || plan.rounds <= 1.0f)
      return plan;
  }
}

template <int kChunks>
auto* tiles_kernel(const AttentionArgs& args, bool by_unit) {
  if (args.batch.has_paths) return attention_tiles_kernel<kChunks, true>;
  if (!plain_blocks(args)) return attention_tiles_kernel<kChunks, false>;
  if (has_few_queries(args))
    return by_unit ? attention_decode_kernel<kChunks, 1, true>
                   : attention_decode_kernel<kChunks, 1, false>;
  return by_unit ? attention_decode_kernel<kChunks, 2, true>
                 : attention_decode_kernel<kChunks, 2, false>;
}

template <int kChunks>
cudaError_t launch_tiles(AttentionArgs& args, const TilesPlan& plan, const Launch& to) {
  auto* const kernel = tiles_kernel<kChunks>(args, plan.by_unit);
  args.block_tiles = plan.sets;
  args.turns = plan.turns;
  const cudaError_t status =
      cudaFuncSetAttribute(kernel, cudaFuncAttributeNonPortableClusterSizeAllowed, 1);
  if (status != cudaSuccess) return status;
  const auto ranks = static_cast<unsigned>(plan.ranks);
  const int groups = query_tiles(args.batch, plan.sets * args.tile_tokens);
  return launch_attention_kernel(
      to, kernel,
      dim3(static_cast<unsigned>(args.kv.num_kv_heads), static_cast<unsigned>(groups), ranks),
      dim3(1, 1, ranks), 128, plan.shared, args);
}

/// Whether small blocks, a tile each, are the fastest. Of plain decoding, small heads gain nothing
/// from a second turn; of long trees, large heads.
template <int kChunks>
bool prefers_tiles(const AttentionArgs& args, const TilesPlan& plan, const Launch& to) {
  constexpr bool kLarge = kChunks > 2;
  const DeviceBatch& batch = args.batch;
  if (!has_clusters(to)) return false;
  if (batch.has_paths)
    return fits_at_once(plan) &&
           plan.turns <= (kLarge && plan.turns * plan.ranks > kMostTreeTiles ? 2 : kMostTreeTurns);
  const int most_turns = !plain_blocks(args) ? 2 : kLarge ? 4 : 1;
  return plan.turns <= most_turns && plan.rounds <= kMostRounds;
}

/// Whether so many sequences decode that a block for each (head, sequence) keeps the memory busy,
/// where blocks of units would come in rounds.
template <int kChunks>
bool prefers_streams(const AttentionArgs& args, const Launch& to) {
  const DeviceBatch& batch = args.batch;
  return is_decoding(batch) && !batch.has_paths && has_room(sizeof(StreamShared<kChunks>), to) &&
         static_cast<float>(batch.num_rows * args.kv.num_kv_heads) >=
             kFewestStreams * static_cast<float>(to.device.num_processors) &&
         UnitsPlan<kChunks>(args, to).rounds > 1.0f;
}

template <int kChunks>
AttentionSplit choose_split(const AttentionArgs& args, const TilesPlan& plan, const Launch& to) {
  const DeviceBatch& batch = args.batch;
  const int rows = batch.num_rows;
  if (rows > kMostGroupTokens * batch.num_sequences) return AttentionSplit::whole;
  if (prefers_tiles<kChunks>(args, plan, to)) return AttentionSplit::tiles;
  if (prefers_streams<kChunks>(args, to)) return AttentionSplit::streams;
  // Groups of large heads are too large for an A100's blocks.
  const bool units = is_decoding(batch) || !has_room(sizeof(GroupShared<kChunks>), to);
  const Grid grid = units ? grid_of(args, 1) : group_grid(args, to.device.num_processors);
  if (!fits<kChunks>(args, grid, to) || grid.counters >= 8 * to.device.num_processors)
    return AttentionSplit::whole;
  return units ? AttentionSplit::units : AttentionSplit::groups;
}

template <int kChunks>
cudaError_t launch_attention(AttentionArgs& args, AttentionSplit split, const Launch& to) {
  args.tile_tokens = (may_have_few_queries(args) ? kQueries / 2 : kQueries) / args.group.value;
  TilesPlan plan = tiles_plan<kChunks>(args, to);
  // Only the blocks of tiles are quicker for a chain's small sets.
  if (has_few_queries(args) && !is_decoding(args.batch) && split != AttentionSplit::tiles &&
      (split != AttentionSplit::automatic || !prefers_tiles<kChunks>(args, plan, to))) {
    args.tile_tokens = kQueries / args.group.value;
    plan = tiles_plan<kChunks>(args, to);
  }
  if (split == AttentionSplit::automatic) split = choose_split<kChunks>(args, plan, to);
  if ((split == AttentionSplit::tiles && (!has_clusters(to) || plan.rounds == INFINITY)) ||
      (split == AttentionSplit::streams &&
       (args.batch.has_paths || !has_room(sizeof(StreamShared<kChunks>), to))) ||
      (split == AttentionSplit::groups && !has_room(sizeof(GroupShared<kChunks>), to)))
    split = AttentionSplit::units;
  switch (split) {
    case AttentionSplit::tiles:
      return launch_tiles<kChunks>(args, plan, to);
    case AttentionSplit::streams:
      return launch_streams<kChunks>(args, to);
    case AttentionSplit::units:
      return launch_units<kChunks>(args, to);
    case AttentionSplit::groups:
      return launch_groups<kChunks>(args, to);
    default:
      return launch_whole<kChunks>(args, to);
  }
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
  const int spare = is_decoding(batch) ? 1 : kMostBlockTiles;
  const int tiles = spare * batch.num_sequences + batch.num_rows / tokens;
  const std::size_t partial = with_chunks(
      kv.head_dim, [](auto chunks) { return sizeof(Partial<decltype(chunks)::value>); });
  return partial * static_cast<std::size_t>(tiles) * static_cast<std::size_t>(kv.num_kv_heads) *
         static_cast<std::size_t>(num_units(batch));
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
  args.group = Divisor(params.num_heads / params.kv.num_kv_heads);
  args.block = Divisor(params.kv.block_size);
  args.block_elements = params.kv.block_size * params.kv.head_dim;
  args.first_position = params.first_position;
  args.scale_log2 = params.scale * kLog2E;
  args.partials = to.workspace.partials;
  args.counters = to.workspace.counters;
  return with_chunks(params.kv.head_dim, [&](auto chunks) {
    return launch_attention<decltype(chunks)::value>(args, split, to);
  });
}

}  // namespace specdec::kernels::cuda
