#pragma once

#include "kernels/cuda/product.cuh"
#include "kernels/cuda/tile_map.h"
#include "kernels/cuda/wgmma.cuh"

namespace specdec::kernels::cuda {

inline constexpr int kWideTiles = 8;      // weight tiles of a block: 2 groups of 4 warps
inline constexpr int kWideSums = 32;      // of a lane, in fours
inline constexpr int kWideChunk = 2;      // units of a stage
inline constexpr int kWideCluster = 2;    // blocks that share the tokens
inline constexpr int kWideThreads = 384;  // 8 warps that multiply, one of 4 others that fills

/// Token tiles of a block.
template <int kChains>
inline constexpr int kWideTokenTiles = kWideSums / kChains;

/// Bytes of a stage: weights, then tokens.
template <DataType kType>
inline constexpr int kWideWeightBytes = (kWideTiles * kWideChunk * Weights<kType>::kUnitBytes +
                                         127) /
                                        128 * 128;
template <int kChains>
inline constexpr int kWideTokenBytes = kWideTokenTiles<kChains>* kWideChunk* kTokenUnit;
template <DataType kType, int kChains>
inline constexpr int kWideStageBytes = kWideWeightBytes<kType> + kWideTokenBytes<kChains>;

/// Puts a token tile's gated sums away as the operand's 8 x 8 tile, 128 bytes by one store. All
/// lanes call.
__device__ __forceinline__ void put_gated_tile(const Product& product, int first_token, int row,
                                               int lane, const float (&sums)[4]) {
  const float a = silu(sums[0]) * sums[2];
  const float b = silu(sums[1]) * sums[3];
  const std::uint32_t by_row = product.gated_type == DataType::bf16
                                   ? operand_pair<__nv_bfloat16>(a, b)
                                   : operand_pair<__half>(a, b);
  std::uint32_t by_token;
  asm volatile("movmatrix.sync.aligned.m8n8.trans.b16 %0, %1;" : "=r"(by_token) : "r"(by_row));
  const int token = first_token + lane / 4;
  if (token < product.num_tokens)
    reinterpret_cast<std::uint32_t*>(
        product.operand)[operand_index(token, row + lane % 4 * 2, product.weight.rows / 2,
                                       product.num_tokens) /
                         2] = by_token;
}

/// The product of many tokens (prefill) on Hopper: blocks of 128 rows x 256 tokens (128 of two
/// chains), in clusters that share the tokens, so that these come out of the second-level cache
/// once for all. A chain is again one float accumulator over ascending steps of 16 columns, so sums
/// have the bits of product_kernel. Weights are dequantised on their way to the registers, as
/// there. Whole chunks of units only: a branch between the asynchronous products would serialise
/// them.
template <DataType kType, int kChains>
__global__ void __launch_bounds__(kWideThreads, 1)
    wide_product_kernel(const __grid_constant__ ProductArgs args,
                        const __grid_constant__ TileMap weight_map,
                        const __grid_constant__ TileMap token_map) {
#ifdef SPECDEC_HAS_WGMMA
  using Format = Weights<kType>;
  using Operand = typename Format::Operand;
  constexpr int kTileBytes = kWideChunk * Format::kUnitBytes;
  constexpr int kTokenBytes = kWideChunk * kTokenUnit;
  constexpr int kWeightBytes = kWideWeightBytes<kType>;
  constexpr int kStageBytes = kWideStageBytes<kType, kChains>;
  constexpr int kTiles = kWideTokenTiles<kChains>;
  constexpr int kTokens = kTiles * kTokenTile;
  extern __shared__ __align__(128) std::byte shared[];
  __shared__ std::uint64_t filled[8];
  __shared__ std::uint64_t used[8];
  __shared__ TokenPlace places[kTokens];  // qkv: of the item's tokens

  const int lane = static_cast<int>(threadIdx.x) % 32;
  const int warp = static_cast<int>(threadIdx.x) / 32;
  const int rank = static_cast<int>(blockIdx.x) % kWideCluster;
  const int chunks = args.units / kWideChunk;
  const int items = ceil_div(args.weight_groups, kWideCluster) * args.token_groups;  // of a cluster
  const int first_item = static_cast<int>(blockIdx.x) / kWideCluster;
  const int item_step = static_cast<int>(gridDim.x) / kWideCluster;
  const auto weight_group = [&](int item) {
    return item / args.token_groups * kWideCluster + rank;
  };
  const auto token_group = [&](int item) { return item % args.token_groups; };
  if (threadIdx.x == 0) {
    for (int i = 0; i < args.stages; ++i) {
      Barrier::init(&filled[i], 1);
      Barrier::init(&used[i], kWideTiles * kWideCluster);  // this block's copies go to all of them
    }
    asm volatile("fence.mbarrier_init.release.cluster;");
  }
  __syncthreads();
  cluster_arrive();
  cluster_wait();
  let_next_start();
  wait_for_previous();
  int stage = 0;
  int phase = 0;
  const auto advance = [&] {
    if (++stage == args.stages) {
      stage = 0;
      phase ^= 1;
    }
  };

  if (warp >= kWideTiles) {
    // The registers go to those that hold the sums.
    asm volatile("setmaxnreg.dec.sync.aligned.u32 40;");
    if (warp == kWideTiles && lane == 0) {
      // The block's weights, and its share of the tokens for the whole cluster.
      constexpr int kShare = kTiles / kWideCluster;
      constexpr auto kAllBlocks = static_cast<std::uint16_t>((1 << kWideCluster) - 1);
      for (int item = first_item; item < items; item += item_step) {
        const int tile = weight_group(item) * kWideTiles;
        const int token_tile = token_group(item) * kTiles + rank * kShare;
        for (int chunk = 0; chunk < chunks; ++chunk) {
          Barrier::wait(&used[stage], phase ^ 1);
          const Fill fill{&filled[stage], 0};
          fill.expect(kWideTiles * kTileBytes + kWideTokenBytes<kChains>);
          std::byte* to = shared + stage * kStageBytes;
          fill.copy_tiles(to, weight_map, chunk * kTileBytes, tile);
          fill.copy_tiles_to_blocks(to + kWeightBytes + rank * kShare * kTokenBytes, token_map,
                                    chunk * kTokenBytes, token_tile, kAllBlocks);
          advance();
        }
      }
    }
  } else {
    asm volatile("setmaxnreg.inc.sync.aligned.u32 232;");
    // All blocks, whose copies come here too, hear that a stage is used up.
    const auto release = [&](int which) {
      if (lane < kWideCluster) Barrier::arrive_at(&used[which], lane);
    };
    const bool has_places = args.product.output == ProductOutput::qkv;
    for (int item = first_item; item < items; item += item_step) {
      const int item_token = token_group(item) * kTokens;
      if (has_places) {
        const auto sync = [] { asm volatile("bar.sync 1, %0;" ::"n"(kWideTiles * 32) : "memory"); };
        sync();  // nobody reads those of the item before any more
        const int token = static_cast<int>(threadIdx.x);
        if (token < kTokens && item_token + token < args.product.num_tokens)
          places[token] = TokenPlace::of(args.product, item_token + token, true);
        sync();
      }
      float chains[kChains][kTiles][4];
#pragma unroll
      for (int i = 0; i < kWideSums * 4; ++i)
        chains[i / (kTiles * 4)][i / 4 % kTiles][i % 4] = 0.0f;
      int before = -1;  // the stage whose products may still be under way
      for (int chunk = 0; chunk < chunks; ++chunk) {
        Barrier::wait(&filled[stage], phase);
        const std::byte* weights = shared + stage * kStageBytes + warp * kTileBytes;
        const std::uint32_t tokens = shared_address(shared + stage * kStageBytes + kWeightBytes);
        std::uint32_t a[2][4];
        std::uint32_t b[2][4];
        Format::load(weights, lane, a);
        wide_mma_fence();
#pragma unroll
        for (int step = 0; step < 2; ++step)
          wide_mma<Operand>(chains[step % kChains], a[step],
                            operand_descriptor(tokens + step * 256, kTokenBytes));
        wide_mma_commit();
        wide_mma_wait<1>();
        if (before >= 0) release(before);
        Format::load(weights + Format::kUnitBytes, lane, b);
        wide_mma_fence();
#pragma unroll
        for (int step = 0; step < 2; ++step)
          wide_mma<Operand>(chains[step % kChains], b[step],
                            operand_descriptor(tokens + kTokenUnit + step * 256, kTokenBytes));
        wide_mma_commit();
        wide_mma_wait<1>();
        before = stage;
        advance();
      }
      wide_mma_wait<0>();
      release(before);
      add_chains(chains);
      float(&sums)[kTiles][4] = chains[0];

      const int tile = weight_group(item) * kWideTiles + warp;
      if (tile >= args.tiles) continue;
      const TileRows rows = TileRows::of(tile, args.product.weight.pair_distance);
      // A few token tiles in turn, the first of those that are left, after which the others move
      // up: code for each of them would be half a megabyte, which comes in line by line.
      constexpr int kAtOnce = 4;
      const auto in_turn = [&](auto put_tiles) {
#pragma unroll 1
        for (int first = 0; first < kTiles; first += kAtOnce) {
          put_tiles(item_token + first * kTokenTile);
#pragma unroll
          for (int i = 0; i < (kTiles - kAtOnce) * 4; ++i)
            sums[i / 4][i % 4] = sums[i / 4 + kAtOnce][i % 4];
        }
      };
      const int row = rows.first + lane / 4;
      const int partner = row + rows.distance;
      with_sink(args.product, rows.first, [&](auto sink) {
        constexpr Sink kSink = decltype(sink)::kValue;
        if (kSink == Sink::gated && rows.valid == kTileRows / 2 &&
            args.product.gated_type != DataType::f32) {
          in_turn([&](int first_token) {
#pragma unroll
            for (int i = 0; i < kAtOnce; ++i)
              put_gated_tile(args.product, first_token + i * kTokenTile, rows.first, lane, sums[i]);
          });
          return;
        }
        if (lane / 4 >= rows.valid) return;
        const auto place_of = [&](int token, bool) { return places[token - item_token]; };
        in_turn([&](int first_token) {
          // Several loads before the first store: one at a time they would wait for each other.
          Inputs inputs[kAtOnce][2];
          const auto token_of = [&](int i) {
            return first_token + i / 2 * kTokenTile + lane % 4 * 2 + i % 2;
          };
#pragma unroll
          for (int i = 0; i < kAtOnce * 2; ++i)
            if (const int token = token_of(i); token < args.product.num_tokens)
              inputs[i / 2][i % 2] =
                  load_inputs<kSink>(args.product, token, row, partner, place_of);
#pragma unroll
          for (int i = 0; i < kAtOnce * 2; ++i)
            if (const int token = token_of(i); token < args.product.num_tokens)
              put<kSink>(args.product, inputs[i / 2][i % 2], token, row, partner,
                         sums[i / 2][i % 2], sums[i / 2][i % 2 + 2]);
        });
      });
    }
  }
  // Nobody may copy to a block, or arrive at its barriers, that is no longer there.
  __syncwarp();
  cluster_arrive();
  cluster_wait();
#endif
}

template <DataType kType, int kChains>
cudaError_t launch_wide_chains(ProductArgs args, const Launch& to) {
  constexpr int kStatic = 5120;  // what the kernel has beside its ring, at most
  args.weight_groups = ceil_div(args.tiles, kWideTiles);
  args.token_groups = ceil_div(args.token_tiles, kWideTokenTiles<kChains>);
  args.stages = min(8, (to.device.max_block_shared - kStatic) / kWideStageBytes<kType, kChains>);
  const auto shared = static_cast<std::size_t>(args.stages * kWideStageBytes<kType, kChains>);
  const auto kernel = wide_product_kernel<kType, kChains>;
  cudaError_t status = allow_shared(to, kernel);
  if (status != cudaSuccess) return status;
  int resident = 0;
  status = max_resident_clusters(to, kernel, kWideCluster, kWideThreads, shared, resident);
  if (status != cudaSuccess) return status;

  constexpr int kUnitBytes = Weights<kType>::kUnitBytes;
  TileMap weights;
  TileMap tokens;
  status = map_tiles(args.product.weight.data, args.tiles, args.units * kUnitBytes, kWideTiles,
                     kWideChunk * kUnitBytes, weights);
  if (status != cudaSuccess) return status;
  status = map_tiles(args.product.tokens, args.token_tiles, args.units * kTokenUnit,
                     kWideTokenTiles<kChains> / kWideCluster, kWideChunk * kTokenUnit, tokens);
  if (status != cudaSuccess) return status;
  const int items = ceil_div(args.weight_groups, kWideCluster) * args.token_groups;
  const int clusters = min(max(1, resident), items);
  return launch_clusters(to, kernel, dim3(static_cast<unsigned>(clusters * kWideCluster)),
                         dim3(kWideCluster), kWideThreads, shared, args, weights, tokens);
}

/// Instantiated once per weight type, in product_TYPE.cu.
template <DataType kType>
cudaError_t launch_wide_product(const ProductArgs& args, const Launch& to) {
  return num_chains(args.product.weight) == 1 ? launch_wide_chains<kType, 1>(args, to)
                                              : launch_wide_chains<kType, 2>(args, to);
}

}  // namespace specdec::kernels::cuda
