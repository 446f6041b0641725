#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include <cstdint>

#include "kernels/cuda/launch.h"

namespace specdec::kernels::cuda {

inline constexpr unsigned kFullWarp = 0xffffffffu;

__device__ __forceinline__ std::uint32_t shared_address(const void* pointer) {
  return static_cast<std::uint32_t>(__cvta_generic_to_shared(pointer));
}

/// Division by a number that the launch knows: a multiplication. Exact for what is not negative and
/// below 2^32 / value.
struct Divisor {
  int value = 1;
  std::uint32_t inverse = 0;  // 2^32 / value, rounded up

  Divisor() = default;
  explicit Divisor(int by)
      : value(by), inverse(by == 1 ? 0 : UINT32_MAX / static_cast<std::uint32_t>(by) + 1) {}

  __device__ int quotient(int of) const {
    return value == 1 ? of : static_cast<int>(__umulhi(static_cast<std::uint32_t>(of), inverse));
  }
  __device__ int remainder(int of) const { return of - quotient(of) * value; }
};

/// Programmatic dependent launch (sm_90): a kernel lets the next one of its stream start at once
/// and touches what an earlier one wrote only after wait_for_previous(). Every kernel calls both,
/// so when one waits, all before it are done.
__device__ __forceinline__ void let_next_start() {
#if __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.launch_dependents;");
#endif
}
__device__ __forceinline__ void wait_for_previous() {
#if __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}

/// Launches with the attribute that makes the two above work, in clusters of blocks (sm_90).
template <class... Params, class... Args>
cudaError_t launch_clusters(const Launch& to, void (*kernel)(Params...), dim3 grid, dim3 cluster,
                            int threads, std::size_t shared_bytes, const Args&... args) {
  cudaLaunchAttribute attributes[2] = {};
  attributes[0].id = cudaLaunchAttributeProgrammaticStreamSerialization;
  attributes[0].val.programmaticStreamSerializationAllowed = 1;
  attributes[1].id = cudaLaunchAttributeClusterDimension;
  attributes[1].val.clusterDim = {cluster.x, cluster.y, cluster.z};
  const bool clusters = cluster.x * cluster.y * cluster.z > 1;
  cudaLaunchConfig_t config{};
  config.gridDim = grid;
  config.blockDim = dim3(static_cast<unsigned>(threads));
  config.dynamicSmemBytes = shared_bytes;
  config.stream = to.stream;
  config.attrs = attributes;
  config.numAttrs = !to.device.has_overlap ? 0 : clusters ? 2 : 1;
  return cudaLaunchKernelEx(&config, kernel, Params(args)...);
}
template <class... Params, class... Args>
cudaError_t launch(const Launch& to, void (*kernel)(Params...), dim3 grid, int threads,
                   std::size_t shared_bytes, const Args&... args) {
  return launch_clusters(to, kernel, grid, dim3(1), threads, shared_bytes, args...);
}

/// How many clusters of such blocks the device holds at once.
template <class Kernel>
cudaError_t max_resident_clusters(const Launch& to, Kernel* kernel, unsigned cluster, int threads,
                                  std::size_t shared_bytes, int& clusters) {
  cudaLaunchAttribute attribute{};
  attribute.id = cudaLaunchAttributeClusterDimension;
  attribute.val.clusterDim = {cluster, 1, 1};
  cudaLaunchConfig_t config{};
  config.gridDim = dim3(cluster);
  config.blockDim = dim3(static_cast<unsigned>(threads));
  config.dynamicSmemBytes = shared_bytes;
  config.stream = to.stream;
  config.attrs = &attribute;
  config.numAttrs = 1;
  return cudaOccupancyMaxActiveClusters(&clusters, kernel, &config);
}

/// A cluster's barrier, in halves: what a block wrote before it arrived, all may read after they
/// waited. Blocks that have returned are not waited for.
__device__ __forceinline__ void cluster_arrive() {
#if __CUDA_ARCH__ >= 900
  asm volatile("barrier.cluster.arrive.release.aligned;" ::: "memory");
#endif
}
__device__ __forceinline__ void cluster_wait() {
#if __CUDA_ARCH__ >= 900
  asm volatile("barrier.cluster.wait.acquire.aligned;" ::: "memory");
#endif
}
/// Writes to the same place in the shared memory of the cluster's block `rank`. It is there once
/// both have met at a barrier of the cluster; the block must have come to one before.
__device__ __forceinline__ void store_to_block(float4* own, int rank, const float4& v) {
#if __CUDA_ARCH__ >= 900
  asm volatile(
      "{ .reg .b32 remote;\n"
      "mapa.shared::cluster.u32 remote, %0, %1;\n"
      "st.shared::cluster.v4.f32 [remote], {%2, %3, %4, %5}; }" ::"r"(shared_address(own)),
      "r"(rank), "f"(v.x), "f"(v.y), "f"(v.z), "f"(v.w)
      : "memory");
#else
  *own = v;
#endif
}

/// Lets `kernel` ask for as much dynamic shared memory as a block may have. Always for the same
/// amount: the limit is the kernel's, and other threads may be about to launch it.
template <class Kernel>
cudaError_t allow_shared(const Launch& to, Kernel* kernel) {
  cudaFuncAttributes attributes{};
  const cudaError_t status = cudaFuncGetAttributes(&attributes, kernel);
  if (status != cudaSuccess) return status;
  return cudaFuncSetAttribute(
      kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
      to.device.max_block_shared - static_cast<int>(attributes.sharedSizeBytes));
}

template <class T>
__device__ __forceinline__ T to_operand(float value);
template <>
__device__ __forceinline__ __half to_operand<__half>(float value) {
  // fminf drops NaNs; a NaN must stay one, so that a broken row shows.
  return isnan(value) ? __float2half_rn(value)
                      : __float2half_rn(fminf(fmaxf(value, -65504.0f), 65504.0f));
}
template <>
__device__ __forceinline__ __nv_bfloat16 to_operand<__nv_bfloat16>(float value) {
  return __float2bfloat16_rn(value);
}

/// TF32: a float whose fraction has ten bits; what lies below them is zero.
struct Tf32 {
  std::uint32_t bits;
};
template <>
__device__ __forceinline__ Tf32 to_operand<Tf32>(float value) {
  // cvt makes infinity of a NaN all of whose bits lie where it cuts.
  Tf32 nearest{0x7fffffff};
  if (!isnan(value)) asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(nearest.bits) : "f"(value));
  return nearest;
}

/// A float, multiplied as the sum of two TF32.
struct SplitFloat {
  std::uint32_t bits;
};
template <>
__device__ __forceinline__ SplitFloat to_operand<SplitFloat>(float value) {
  return {__float_as_uint(value)};
}

/// Two adjacent elements as one word, `a` first.
template <class T>
__device__ __forceinline__ std::uint32_t operand_pair(float a, float b) {
  const T low = to_operand<T>(a);
  const T high = to_operand<T>(b);
  return static_cast<std::uint32_t>(reinterpret_cast<const std::uint16_t&>(low)) |
         static_cast<std::uint32_t>(reinterpret_cast<const std::uint16_t&>(high)) << 16;
}
template <>
__device__ __forceinline__ std::uint32_t operand_pair<__half>(float a, float b) {
  const __half2 most = __float2half2_rn(65504.0f);
  const __half2 pair = __hmax2_nan(__hmin2_nan(__floats2half2_rn(a, b), most), __hneg2(most));
  return reinterpret_cast<const std::uint32_t&>(pair);
}

/// c += a b for one step of k = 16 columns (8 of four bytes): a [16 rows, k], b [k, 8 tokens],
/// c [16, 8] in floats.
template <class T>
__device__ __forceinline__ void mma(float (&c)[4], const std::uint32_t (&a)[4], std::uint32_t b0,
                                    std::uint32_t b1);
template <>
__device__ __forceinline__ void mma<__half>(float (&c)[4], const std::uint32_t (&a)[4],
                                            std::uint32_t b0, std::uint32_t b1) {
  asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, "
      "{%0,%1,%2,%3};"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}
template <>
__device__ __forceinline__ void mma<__nv_bfloat16>(float (&c)[4], const std::uint32_t (&a)[4],
                                                   std::uint32_t b0, std::uint32_t b1) {
  asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, "
      "{%0,%1,%2,%3};"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}
template <>
__device__ __forceinline__ void mma<Tf32>(float (&c)[4], const std::uint32_t (&a)[4],
                                          std::uint32_t b0, std::uint32_t b1) {
  asm("mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, "
      "{%0,%1,%2,%3};"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

/// The nearest TF32 of a float, and the nearest of the rest: together 22 bits or more.
struct Tf32Parts {
  std::uint32_t high = 0;
  std::uint32_t low = 0;

  __device__ static Tf32Parts of(std::uint32_t bits) {
    const float value = __uint_as_float(bits);
    Tf32Parts parts{.high = to_operand<Tf32>(value).bits};
    // Of infinity and NaN there is no rest.
    const float kept = __uint_as_float(parts.high);
    if (isfinite(kept)) parts.low = to_operand<Tf32>(value - kept).bits;
    return parts;
  }
};
/// Three products, the small ones first; that of the low parts would be below float's last bit. A
/// tensor core cuts towards zero as it adds, in long sums always the same way, so each step's sum
/// is added to the others by rounding to the nearest (Ootomo and Yokota 2022,
/// arXiv 2203.03341).
template <>
__device__ __forceinline__ void mma<SplitFloat>(float (&c)[4], const std::uint32_t (&a)[4],
                                                std::uint32_t b0, std::uint32_t b1) {
  const Tf32Parts first = Tf32Parts::of(b0);
  const Tf32Parts second = Tf32Parts::of(b1);
  std::uint32_t high[4];
  std::uint32_t low[4];
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const Tf32Parts parts = Tf32Parts::of(a[i]);
    high[i] = parts.high;
    low[i] = parts.low;
  }
  float step[4] = {};
  mma<Tf32>(step, low, first.high, second.high);
  mma<Tf32>(step, high, first.low, second.low);
  mma<Tf32>(step, high, first.high, second.high);
#pragma unroll
  for (int i = 0; i < 4; ++i) c[i] += step[i];
}

}  // namespace specdec::kernels::cuda
