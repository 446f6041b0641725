#pragma once

#include "kernels/cuda/device.cuh"
#include "kernels/cuda/tile_map.h"

namespace specdec::kernels::cuda {

/// Barriers of a ring of shared-memory stages that one warp fills and others use up. On sm_90 a
/// stage is filled by bulk copies that one lane issues, on sm_80 by 16-byte copies of all lanes.
struct Barrier {
#if __CUDA_ARCH__ >= 900
  static constexpr int kFillArrivals = 1;
#else
  static constexpr int kFillArrivals = 32;
#endif

  __device__ static void init(std::uint64_t* barrier, int arrivals) {
    asm volatile("mbarrier.init.shared.b64 [%0], %1;" ::"r"(shared_address(barrier)),
                 "r"(arrivals));
  }
  __device__ static void arrive(std::uint64_t* barrier) {
    asm volatile("{ .reg .b64 state; mbarrier.arrive.shared.b64 state, [%0]; }" ::"r"(
                     shared_address(barrier))
                 : "memory");
  }
  /// Arrives at the same barrier of the cluster's block `rank`.
  __device__ static void arrive_at(std::uint64_t* barrier, int rank) {
#if __CUDA_ARCH__ >= 900
    asm volatile(
        "{ .reg .b32 remote;\n"
        "mapa.shared::cluster.u32 remote, %0, %1;\n"
        "mbarrier.arrive.shared::cluster.b64 _, [remote]; }" ::"r"(shared_address(barrier)),
        "r"(rank)
        : "memory");
#endif
  }
  __device__ static void wait(std::uint64_t* barrier, int phase) {
#if __CUDA_ARCH__ >= 900
    asm volatile(
        "{ .reg .pred done;\n"
        "again: mbarrier.try_wait.parity.shared.b64 done, [%0], %1;\n"
        "@!done bra again; }" ::"r"(shared_address(barrier)),
        "r"(phase)
        : "memory");
#else
    asm volatile(
        "{ .reg .pred done;\n"
        "again: mbarrier.test_wait.parity.shared.b64 done, [%0], %1;\n"
        "@!done bra again; }" ::"r"(shared_address(barrier)),
        "r"(phase)
        : "memory");
#endif
  }
};

/// The filling warp's side of one stage. All lanes call; sizes and addresses are multiples of 16.
/// The copies may come before expect().
struct Fill {
  std::uint64_t* barrier;
  int lane;

  /// `bytes`: what the copies of this fill amount to.
  __device__ void expect(int bytes) const {
#if __CUDA_ARCH__ >= 900
    if (lane == 0)
      asm volatile(
          "mbarrier.arrive.expect_tx.shared.b64 _, [%0], %1;" ::"r"(shared_address(barrier)),
          "r"(bytes)
          : "memory");
#endif
  }
  /// Every lane's own copy; of 0 bytes: none.
  __device__ void copy(std::byte* to, const std::byte* from, int bytes) const {
#if __CUDA_ARCH__ >= 900
    if (bytes > 0)
      asm volatile(
          "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, "
          "[%3];" ::"r"(shared_address(to)),
          "l"(from), "r"(bytes), "r"(shared_address(barrier))
          : "memory");
#else
    for (int of = 0; of < 32; ++of) {
      const int its_bytes = __shfl_sync(kFullWarp, bytes, of);
      const unsigned its_to = __shfl_sync(kFullWarp, shared_address(to), of);
      const auto its_from = reinterpret_cast<const std::byte*>(
          __shfl_sync(kFullWarp, reinterpret_cast<unsigned long long>(from), of));
      for (int at = lane * 16; at < its_bytes; at += 32 * 16)
        asm volatile(
            "cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(its_to + static_cast<unsigned>(at)),
            "l"(its_from + at)
            : "memory");
    }
#endif
  }
  /// Copies a box of tiles (tile_map.h), from byte `at` of each and tile `tile` on. By one lane.
  __device__ void copy_tiles(std::byte* to, const TileMap& map, int at, int tile) const {
#if __CUDA_ARCH__ >= 900
    asm volatile(
        "cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes "
        "[%0], [%1, {%2, %3}], [%4];" ::"r"(shared_address(to)),
        "l"(&map), "r"(at / kTileMapElement), "r"(tile), "r"(shared_address(barrier))
        : "memory");
#endif
  }
  /// The same to one place in each of the cluster's `blocks` (a bit a rank), whose barriers count
  /// the bytes.
  __device__ void copy_tiles_to_blocks(std::byte* to, const TileMap& map, int at, int tile,
                                       std::uint16_t blocks) const {
#if __CUDA_ARCH__ >= 900
    asm volatile(
        "cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes"
        ".multicast::cluster [%0], [%1, {%2, %3}], [%4], %5;" ::"r"(shared_address(to)),
        "l"(&map), "r"(at / kTileMapElement), "r"(tile), "r"(shared_address(barrier)), "h"(blocks)
        : "memory");
#endif
  }
  __device__ void done() const {
#if __CUDA_ARCH__ < 900
    asm volatile("cp.async.mbarrier.arrive.noinc.shared.b64 [%0];" ::"r"(shared_address(barrier))
                 : "memory");
#endif
  }
};

}  // namespace specdec::kernels::cuda
