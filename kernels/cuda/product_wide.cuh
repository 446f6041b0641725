#pragma once

#include "kernels/cuda/product.cuh"
#include "kernels/cuda/wgmma.cuh"

namespace specdec::kernels::cuda {

inline constexpr int kWideTiles = 8;        // weight tiles of a block: 2 groups of 4 warps
inline constexpr int kWideTokenTiles = 32;  // token tiles of a block
inline constexpr int kWideChunk = 2;        // units of a stage
inline constexpr int kWideThreads = 384;    // 8 warps that multiply, one of 4 others that fills

/// The product of many tokens (prefill) on Hopper: blocks of 128 rows x 256 tokens. Every sum is
/// again one float accumulator over ascending steps of 16 columns, so its bits are those of
/// product_kernel. Weights are dequantised on their way to the registers, as there. Whole chunks of
/// units only: a branch between the asynchronous products would serialise them.
template <DataType kType>
__global__ void __launch_bounds__(kWideThreads, 1)
    wide_product_kernel(const __grid_constant__ ProductArgs args) {
#ifdef SPECDEC_HAS_WGMMA
  using Format = Weights<kType>;
  using Operand = typename Format::Operand;
  constexpr int kTokenUnit = 512;
  constexpr int kTileBytes = kWideChunk * Format::kUnitBytes;
  constexpr int kTokenBytes = kWideChunk * kTokenUnit;
  constexpr int kWeightBytes = (kWideTiles * kTileBytes + 127) / 128 * 128;
  constexpr int kStageBytes = kWeightBytes + kWideTokenTiles * kTokenBytes;
  extern __shared__ __align__(128) std::byte shared[];
  __shared__ std::uint64_t filled[8];
  __shared__ std::uint64_t used[8];

  const int lane = static_cast<int>(threadIdx.x) % 32;
  const int warp = static_cast<int>(threadIdx.x) / 32;
  const int chunks = args.units / kWideChunk;
  const int items = args.weight_groups * args.token_groups;
  if (threadIdx.x == 0) {
    for (int i = 0; i < args.stages; ++i) {
      Barrier::init(&filled[i], 1);
      Barrier::init(&used[i], kWideTiles);
    }
    asm volatile("fence.mbarrier_init.release.cluster;");
  }
  __syncthreads();
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
    // Lane i fetches token tile i, and weight tile i of the first eight. The registers go to those
    // that hold the sums.
    asm volatile("setmaxnreg.dec.sync.aligned.u32 40;");
    if (warp > kWideTiles) return;
    for (int item = static_cast<int>(blockIdx.x); item < items;
         item += static_cast<int>(gridDim.x)) {
      const int tile = min(item / args.token_groups * kWideTiles + lane, args.tiles - 1);
      const int token_tile =
          min(item % args.token_groups * kWideTokenTiles + lane, args.token_tiles - 1);
      const std::byte* weights = static_cast<const std::byte*>(args.product.weight.data) +
                                 static_cast<std::size_t>(tile) * args.units * Format::kUnitBytes;
      const std::byte* tokens =
          args.product.tokens + static_cast<std::size_t>(token_tile) * args.units * kTokenUnit;
      for (int chunk = 0; chunk < chunks; ++chunk) {
        Barrier::wait(&used[stage], phase ^ 1);
        Fill{&filled[stage], lane}.expect(kWideTiles * kTileBytes + kWideTokenTiles * kTokenBytes);
        __syncwarp();
        std::byte* to = shared + stage * kStageBytes;
        const Fill fill{&filled[stage], 0};  // every lane issues its own copies
        if (lane < kWideTiles)
          fill.copy(to + lane * kTileBytes, weights + chunk * kTileBytes, kTileBytes);
        fill.copy(to + kWeightBytes + lane * kTokenBytes, tokens + chunk * kTokenBytes,
                  kTokenBytes);
        advance();
      }
    }
  } else {
    asm volatile("setmaxnreg.inc.sync.aligned.u32 232;");
    for (int item = static_cast<int>(blockIdx.x); item < items;
         item += static_cast<int>(gridDim.x)) {
      float sums[kWideTokenTiles][4];
#pragma unroll
      for (int i = 0; i < kWideTokenTiles; ++i)
#pragma unroll
        for (int k = 0; k < 4; ++k) sums[i][k] = 0.0f;
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
          wide_mma<Operand>(sums, a[step], operand_descriptor(tokens + step * 256, kTokenBytes));
        wide_mma_commit();
        wide_mma_wait<1>();
        if (before >= 0 && lane == 0) Barrier::arrive(&used[before]);
        Format::load(weights + Format::kUnitBytes, lane, b);
        wide_mma_fence();
#pragma unroll
        for (int step = 0; step < 2; ++step)
          wide_mma<Operand>(sums, b[step],
                            operand_descriptor(tokens + 512 + step * 256, kTokenBytes));
        wide_mma_commit();
        wide_mma_wait<1>();
        before = stage;
        advance();
      }
      wide_mma_wait<0>();
      if (lane == 0) Barrier::arrive(&used[before]);

      const int tile = item / args.token_groups * kWideTiles + warp;
      if (tile >= args.tiles) continue;
      const TileRows rows = TileRows::of(tile, args.product.weight.pair_distance);
      const int row = rows.first + lane / 4;
      const int partner = row + rows.distance;
      if (lane / 4 >= rows.valid) continue;
      const int first_token =
          item % args.token_groups * kWideTokenTiles * kTokenTile + lane % 4 * 2;
      // Several loads before the first store: one at a time they would wait for each other.
      constexpr int kAtOnce = 8;
      with_output(args.product.output, [&](auto output) {
        constexpr ProductOutput kOutput = decltype(output)::kValue;
#pragma unroll
        for (int first = 0; first < kWideTokenTiles; first += kAtOnce) {
          Inputs inputs[kAtOnce][2];
#pragma unroll
          for (int i = 0; i < kAtOnce * 2; ++i) {
            const int token = first_token + (first + i / 2) * kTokenTile + i % 2;
            if (token < args.product.num_tokens)
              inputs[i / 2][i % 2] = load_inputs<kOutput>(args.product, token, row, partner);
          }
#pragma unroll
          for (int i = 0; i < kAtOnce * 2; ++i) {
            const int token = first_token + (first + i / 2) * kTokenTile + i % 2;
            if (token < args.product.num_tokens)
              put<kOutput>(args.product, inputs[i / 2][i % 2], token, row, partner,
                           sums[first + i / 2][i % 2], sums[first + i / 2][i % 2 + 2]);
          }
        }
      });
    }
  }
#endif
}

template <DataType kType>
cudaError_t launch_wide_product(ProductArgs args, const Launch& to) {
  constexpr int kStageBytes =
      (kWideTiles * kWideChunk * Weights<kType>::kUnitBytes + 127) / 128 * 128 +
      kWideTokenTiles * kWideChunk * 512;
  args.weight_groups = ceil_div(args.tiles, kWideTiles);
  args.token_groups = ceil_div(args.token_tiles, kWideTokenTiles);
  args.stages = min(8, (to.device.max_block_shared - 2048) / kStageBytes);
  const int shared = args.stages * kStageBytes;
  const auto kernel = wide_product_kernel<kType>;
  const cudaError_t status = allow_shared(to, kernel);
  if (status != cudaSuccess) return status;
  const int blocks = min(to.device.num_processors, args.weight_groups * args.token_groups);
  return launch(to, kernel, dim3(static_cast<unsigned>(blocks)), kWideThreads,
                static_cast<std::size_t>(shared), args);
}

}  // namespace specdec::kernels::cuda
