#pragma once

#include "kernels/cuda/device.cuh"

// Hopper's asynchronous matrix instruction, for 64 weight rows x 128 or 256 tokens x 16 columns:
// weights come from the registers of four warps (16 rows each, as mma.m16n8k16 has them), tokens
// from shared memory. It needs the sm_90a target; elsewhere this file is empty.
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
#define SPECDEC_HAS_WGMMA 1
#endif

namespace specdec::kernels::cuda {

#ifdef SPECDEC_HAS_WGMMA

/// Tokens' tiles of 8 x 8 (kernels/cuda/operand.h) as a matrix without swizzle: 128 bytes from tile
/// to tile along the columns, `tile_stride` along the tokens.
__device__ __forceinline__ std::uint64_t operand_descriptor(std::uint32_t address,
                                                            int tile_stride) {
  return static_cast<std::uint64_t>((address & 0x3ffff) >> 4) | std::uint64_t{128 >> 4} << 16 |
         static_cast<std::uint64_t>(tile_stride >> 4) << 32;
}

__device__ __forceinline__ void wide_mma_fence() {
  asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
}
__device__ __forceinline__ void wide_mma_commit() {
  asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
}
/// Until all but the last kPending groups are done.
template <int kPending>
__device__ __forceinline__ void wide_mma_wait() {
  asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(kPending) : "memory");
}

/// c += a b, asynchronously: c[i] is what mma() has for token tile i of kTokenTiles, 16 or 32.
template <class T, int kTokenTiles>
__device__ __forceinline__ void wide_mma(float (&c)[kTokenTiles][4], const std::uint32_t (&a)[4],
                                         std::uint64_t b);
// clang-format off
#define SPECDEC_SUMS(i) "+f"(c[i][0]), "+f"(c[i][1]), "+f"(c[i][2]), "+f"(c[i][3])
#define SPECDEC_SUMS_OF_8(i) \
  SPECDEC_SUMS(i), SPECDEC_SUMS(i + 1), SPECDEC_SUMS(i + 2), SPECDEC_SUMS(i + 3), \
  SPECDEC_SUMS(i + 4), SPECDEC_SUMS(i + 5), SPECDEC_SUMS(i + 6), SPECDEC_SUMS(i + 7)
#define SPECDEC_FIRST_64 \
  "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, " \
  "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, " \
  "%32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, " \
  "%48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63"
#define SPECDEC_NEXT_64 \
  "%64, %65, %66, %67, %68, %69, %70, %71, %72, %73, %74, %75, %76, %77, %78, %79, " \
  "%80, %81, %82, %83, %84, %85, %86, %87, %88, %89, %90, %91, %92, %93, %94, %95, " \
  "%96, %97, %98, %99, %100, %101, %102, %103, %104, %105, %106, %107, %108, %109, %110, %111, " \
  "%112, %113, %114, %115, %116, %117, %118, %119, %120, %121, %122, %123, %124, %125, %126, %127"
#define SPECDEC_WIDE_MMA(TYPE, NAME) \
  template <> \
  __device__ __forceinline__ void wide_mma<TYPE>(float (&c)[16][4], const std::uint32_t (&a)[4], \
                                                 std::uint64_t b) { \
    asm volatile("wgmma.mma_async.sync.aligned.m64n128k16.f32." NAME "." NAME " {" SPECDEC_FIRST_64 \
                 "}, {%64, %65, %66, %67}, %68, 1, 1, 1, 0;" \
                 : SPECDEC_SUMS_OF_8(0), SPECDEC_SUMS_OF_8(8) \
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b)); \
  } \
  template <> \
  __device__ __forceinline__ void wide_mma<TYPE>(float (&c)[32][4], const std::uint32_t (&a)[4], \
                                                 std::uint64_t b) { \
    asm volatile("wgmma.mma_async.sync.aligned.m64n256k16.f32." NAME "." NAME " {" SPECDEC_FIRST_64 \
                 ", " SPECDEC_NEXT_64 "}, {%128, %129, %130, %131}, %132, 1, 1, 1, 0;" \
                 : SPECDEC_SUMS_OF_8(0), SPECDEC_SUMS_OF_8(8), SPECDEC_SUMS_OF_8(16), \
                   SPECDEC_SUMS_OF_8(24) \
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b)); \
  }
SPECDEC_WIDE_MMA(__half, "f16")
SPECDEC_WIDE_MMA(__nv_bfloat16, "bf16")
#undef SPECDEC_WIDE_MMA
#undef SPECDEC_NEXT_64
#undef SPECDEC_FIRST_64
#undef SPECDEC_SUMS_OF_8
#undef SPECDEC_SUMS
// clang-format on

#endif

}  // namespace specdec::kernels::cuda
