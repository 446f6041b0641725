#include "kernels/cuda/product.h"

#include <algorithm>

#include "kernels/cuda/product_wide.cuh"

namespace specdec::kernels::cuda {

extern template cudaError_t launch_product<DataType::f32>(const ProductArgs&, int, int, int,
                                                          std::size_t, const Launch&);
extern template cudaError_t launch_product<DataType::f32, FloatWeights<SplitFloat>>(
    const ProductArgs&, int, int, int, std::size_t, const Launch&);
extern template cudaError_t launch_product<DataType::f16>(const ProductArgs&, int, int, int,
                                                          std::size_t, const Launch&);
extern template cudaError_t launch_product<DataType::bf16>(const ProductArgs&, int, int, int,
                                                           std::size_t, const Launch&);
extern template cudaError_t launch_product<DataType::q8_0>(const ProductArgs&, int, int, int,
                                                           std::size_t, const Launch&);
extern template cudaError_t launch_product<DataType::q4_0>(const ProductArgs&, int, int, int,
                                                           std::size_t, const Launch&);
extern template cudaError_t launch_product<DataType::q4_1>(const ProductArgs&, int, int, int,
                                                           std::size_t, const Launch&);
extern template cudaError_t launch_wide_product<DataType::f16>(const ProductArgs&, const Launch&);
extern template cudaError_t launch_wide_product<DataType::bf16>(const ProductArgs&, const Launch&);
extern template cudaError_t launch_wide_product<DataType::q8_0>(const ProductArgs&, const Launch&);
extern template cudaError_t launch_wide_product<DataType::q4_0>(const ProductArgs&, const Launch&);
extern template cudaError_t launch_wide_product<DataType::q4_1>(const ProductArgs&, const Launch&);

namespace {

constexpr int kMostWarps = 14;  // that use up the ring; one more fills it
constexpr int kMostStages = 32;
constexpr int kMostTokenTiles = 16;  // that a block works on at a time: weights are read once

std::size_t normed_bytes(const PackedMatrix& weight, int num_tokens) {
  const std::size_t bytes =
      operand_bytes(num_tokens, weight.cols, operand_element_bytes(weight.type));
  return is_single_row(num_tokens, weight.cols) ? bytes / kTokenTile : bytes;
}

/// Bytes of a token tile's unit, as a stage holds it.
std::size_t token_unit(const PackedMatrix& weight, int num_tokens) {
  return operand_bytes(kTokenTile, kUnitCols, operand_element_bytes(weight.type)) /
         (is_single_row(num_tokens, weight.cols) ? kTokenTile : 1);
}

std::size_t stage_bytes(const PackedMatrix& weight, int num_tokens,
                        const ProductSchedule& schedule) {
  return static_cast<std::size_t>(schedule.chunk) *
         (static_cast<std::size_t>(schedule.tiles) * unit_bytes(weight.type) +
          static_cast<std::size_t>(schedule.token_tiles()) * token_unit(weight, num_tokens));
}

}  // namespace

int num_chains(const PackedMatrix& weight) noexcept {
  constexpr std::int64_t kMostWeights = std::int64_t{1} << 22;
  return weight.type != DataType::f32 &&
                 static_cast<std::int64_t>(weight.rows) * weight.cols <= kMostWeights
             ? 2
             : 1;
}

bool normalises(const PackedMatrix& weight, int num_tokens) noexcept {
  constexpr int kMostCols = 8192;  // of one token, which the whole block shares
  return weight.cols <= (num_tokens == 1 ? kMostCols : kMostNormedCols) && num_tokens <= kTokenTile;
}

namespace {

/// Token tiles of a warp. Few where few weight tiles would leave the block without warps; two
/// chains leave registers for two.
int tiles_a_warp(int chains, int tiles, int token_tiles) {
  const int most = chains == 2 ? 2 : 4;
  if (tiles == 1) return token_tiles > 4 ? 2 : 1;
  if (tiles == 2 && token_tiles <= 2) return 1;
  if (tiles > 4 && token_tiles > 2) return most;
  return token_tiles > 4 ? most : token_tiles > 1 ? 2 : 1;
}

}  // namespace

// Fitted to what bench/cuda/tune_products finds on an H100 (bench/results/cuda_products.txt).
ProductSchedule product_schedule(const PackedMatrix& weight, int num_tokens,
                                 const DeviceInfo& device, std::size_t spared) noexcept {
  // Of few tokens a block's warps each wait for their own sums: the more of them the better, where
  // no norm has eight warps for its own (normalises()).
  const int most_tiles = num_tokens <= kTokenTile && weight.cols <= kMostNormedCols ? 12 : 7;
  constexpr int kMostChunk = 18;  // units; a row of so many is a stage
  const int chains = num_chains(weight);
  const int token_tiles = std::min(chains == 1 ? kMostTokenTiles : kMostTokenTiles / 2,
                                   ceil_div(num_tokens, kTokenTile));
  const int tiles = num_tiles(weight.rows, weight.pair_distance);
  const int units = ceil_div(weight.cols, kUnitCols);
  const std::size_t shared =
      static_cast<std::size_t>(device.max_block_shared) - spared - 2048 -  // barriers are static
      (normalises(weight, num_tokens) ? normed_bytes(weight, num_tokens) : 0);
  ProductSchedule schedule;
  // Rounds of the persistent blocks cost the weights of a full one, and the tokens once more, at
  // about a quarter of the price: they come from the second-level cache. (One alone costs as much:
  // what a round takes besides.) Half the processors get through a block's weights about twice as
  // fast as all of them. Two thirds are hardly slower where the ring has much of them before the
  // tokens come, and the next product's weights set out on the others.
  const auto price_of = [&](int at_once, int items) -> std::size_t {
    const std::size_t bytes = static_cast<std::size_t>(at_once * units) * unit_bytes(weight.type);
    if (items <= device.num_processors / 2) return 6;
    if (num_tokens <= kTokenTile && items <= device.num_processors * 2 / 3 && bytes <= 2 * shared)
      return 7;
    return 12;
  };
  std::size_t least = 0;
  for (int at_once = 1; at_once <= most_tiles; ++at_once) {
    const int items = ceil_div(tiles, at_once);
    const int rounds = ceil_div(items, device.num_processors);
    const std::size_t cost =
        static_cast<std::size_t>(rounds) *
        (static_cast<std::size_t>(at_once) * unit_bytes(weight.type) * price_of(at_once, items) +
         static_cast<std::size_t>(3 * token_tiles) * token_unit(weight, kTokenTile));
    if (at_once * ceil_div(token_tiles, tiles_a_warp(chains, at_once, token_tiles)) > kMostWarps)
      break;
    if (at_once > 1 && cost >= least) continue;
    least = cost;
    schedule.tiles = at_once;
  }
  schedule.tiles_a_warp = tiles_a_warp(chains, schedule.tiles, token_tiles);
  schedule.token_warps = ceil_div(token_tiles, schedule.tiles_a_warp);
  // Each chunk is a copy a tile: large ones, as long as enough of them fit to keep the memory busy.
  // Where tokens fill much of a stage, fewer large ones do, and more small ones.
  const bool several = token_tiles >= 4 && token_tiles <= 8;
  const auto enough_of = [&](int chunk) {
    if (chunk > 8) return several ? 3 : 4;
    if (several) return 4;
    return token_tiles > 12 ? 2 : 3;
  };
  const int rounds = ceil_div(tiles, schedule.tiles * device.num_processors);
  for (const int chunk : {units, 16, 8, 4}) {
    if (chunk > std::min(units, kMostChunk)) continue;
    schedule.chunk = chunk;
    const int all = ceil_div(units, chunk) * rounds;
    const int fit = static_cast<int>(shared / stage_bytes(weight, num_tokens, schedule));
    schedule.stages = std::clamp(fit, 1, std::min(kMostStages, all));
    if (fit >= std::min(all, enough_of(chunk))) break;
  }
  return schedule;
}

namespace {

ProductArgs make_args(const Product& product) {
  ProductArgs args{};
  args.product = product;
  args.units = ceil_div(product.weight.cols, kUnitCols);
  args.tiles = num_tiles(product.weight.rows, product.weight.pair_distance);
  args.token_tiles = ceil_div(product.num_tokens, kTokenTile);
  args.single = is_single_row(product.num_tokens, product.weight.cols);
  return args;
}

/// Attention's blocks for a small tree are large, and have much to look up before they wait: beside
/// the product's they are through with it in time. With more tokens the product needs its ring.
std::size_t spared_for_attention(const Product& product, const Launch& to) {
  constexpr int kMostTokens = 16;
  constexpr std::size_t kTreeBlock = std::size_t{76} << 10;
  return product.output == ProductOutput::qkv && product.batch.has_paths &&
                 product.num_tokens <= kMostTokens && to.device.has_overlap
             ? kTreeBlock
             : 0;
}

}  // namespace

cudaError_t multiply(const Product& product, const Launch& to) {
  const ProductArgs args = make_args(product);
  // Beyond, weights are read more than once: small ones out of the second-level cache.
  constexpr int kMostNarrowTokens = kMostTokenTiles * kTokenTile;
  constexpr int kMostCachedTokens = 192;
  constexpr std::size_t kMostCached = std::size_t{8} << 20;
  const bool cached = packed_bytes(product.weight.type, product.weight.rows, product.weight.cols,
                                   product.weight.pair_distance) <= kMostCached;
  if (!to.device.has_wgmma || product.weight.type == DataType::f32 ||
      product.num_tokens <= (cached ? kMostCachedTokens : kMostNarrowTokens) ||
      args.units % kWideChunk != 0)
    return multiply(product,
                    product_schedule(product.weight, product.num_tokens, to.device,
                                     spared_for_attention(product, to)),
                    to);
  switch (product.weight.type) {
    case DataType::f16:
      return launch_wide_product<DataType::f16>(args, to);
    case DataType::bf16:
      return launch_wide_product<DataType::bf16>(args, to);
    case DataType::q8_0:
      return launch_wide_product<DataType::q8_0>(args, to);
    case DataType::q4_0:
      return launch_wide_product<DataType::q4_0>(args, to);
    case DataType::q4_1:
      return launch_wide_product<DataType::q4_1>(args, to);
    case DataType::f32:
      break;
  }
  return cudaErrorInvalidValue;
}

cudaError_t multiply(const Product& product, const ProductSchedule& schedule, const Launch& to) {
  const PackedMatrix& weight = product.weight;
  ProductArgs args = make_args(product);
  args.block_tiles = schedule.tiles;
  args.token_warps = schedule.token_warps;
  args.chunk = schedule.chunk;
  args.stages = schedule.stages;
  args.weight_groups = ceil_div(args.tiles, schedule.tiles);
  args.token_groups = ceil_div(args.token_tiles, schedule.token_tiles());
  const int consumers = schedule.tiles * schedule.token_warps;
  const std::size_t ring =
      static_cast<std::size_t>(schedule.stages) * stage_bytes(weight, product.num_tokens, schedule);
  const bool norms = product.normed.norm_weight != nullptr;
  std::size_t shared = ring + (norms ? normed_bytes(weight, product.num_tokens) : 0);
  args.normed_offset = static_cast<int>(ring);
  args.workers = !norms                           ? consumers
                 : weight.cols <= kMostNormedCols ? std::max(consumers, product.num_tokens)
                                                  : std::max(consumers, kNormParts);
  if (norms && !normalises(weight, product.num_tokens)) return cudaErrorInvalidValue;
  if (norms && weight.cols > kMostNormedCols && consumers > kNormParts)
    return cudaErrorInvalidConfiguration;
  constexpr int kMostCopied = 32;  // tiles, a lane each
  if (consumers < 1 || consumers > kMostWarps || schedule.stages > kMostStages ||
      schedule.tiles + schedule.token_tiles() > kMostCopied ||
      shared > static_cast<std::size_t>(to.device.max_block_shared))
    return cudaErrorInvalidConfiguration;
  const int blocks = std::min(to.device.num_processors, args.weight_groups * args.token_groups);
  // Where half the processors suffice, the next kernel's blocks had better be on the other half
  // than beside these: they are kept out by shared memory that nobody uses.
  if (blocks <= to.device.num_processors / 2)
    shared = std::max(shared, static_cast<std::size_t>(to.device.max_block_shared) * 17 / 32);
  const int threads = (args.workers + 1) * 32;
  const int tiles_a_warp = schedule.tiles_a_warp;
  switch (weight.type) {
    case DataType::f32:
      if (weight.full_precision)
        return launch_product<DataType::f32, FloatWeights<SplitFloat>>(args, tiles_a_warp, blocks,
                                                                       threads, shared, to);
      return launch_product<DataType::f32>(args, tiles_a_warp, blocks, threads, shared, to);
    case DataType::f16:
      return launch_product<DataType::f16>(args, tiles_a_warp, blocks, threads, shared, to);
    case DataType::bf16:
      return launch_product<DataType::bf16>(args, tiles_a_warp, blocks, threads, shared, to);
    case DataType::q8_0:
      return launch_product<DataType::q8_0>(args, tiles_a_warp, blocks, threads, shared, to);
    case DataType::q4_0:
      return launch_product<DataType::q4_0>(args, tiles_a_warp, blocks, threads, shared, to);
    case DataType::q4_1:
      return launch_product<DataType::q4_1>(args, tiles_a_warp, blocks, threads, shared, to);
  }
  return cudaErrorInvalidValue;
}

}  // namespace specdec::kernels::cuda
