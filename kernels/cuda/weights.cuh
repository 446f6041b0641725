#pragma once

#include "kernels/cuda/device.cuh"
#include "kernels/cuda/operand.h"
#include "kernels/ops.h"

namespace specdec::kernels::cuda {

/// mma steps of a unit: each takes 32 bytes of a row of operands.
template <class Operand>
inline constexpr int kUnitSteps = static_cast<int>(sizeof(Operand)) * kUnitCols / 32;

/// One format of kernels/cuda/packing.h: how a lane turns its share of a unit into the A operands
/// of its mma steps, and what one element of a unit is (embedding rows).
template <DataType kType>
struct Weights;

template <class T>
struct DenseWeights {
  using Operand = T;
  static constexpr int kUnitBytes = 1024;

  __device__ static void load(const std::byte* unit, int lane, std::uint32_t (&a)[2][4]) {
    const uint4* lanes = reinterpret_cast<const uint4*>(unit) + lane;
#pragma unroll
    for (int step = 0; step < 2; ++step) {
      const uint4 v = lanes[step * 32];
      a[step][0] = v.x;
      a[step][1] = v.y;
      a[step][2] = v.z;
      a[step][3] = v.w;
    }
  }
  __device__ static float element(const std::byte* unit, int row, int col) {
    const int lane = row % 8 * 4 + col % 8 / 2;
    const int i = (row / 8 + col % 16 / 8 * 2) * 2 + col % 2;
    return static_cast<float>(reinterpret_cast<const T*>(unit)[(col / 16 * 32 + lane) * 8 + i]);
  }
};
template <>
struct Weights<DataType::f16> : DenseWeights<__half> {};
template <>
struct Weights<DataType::bf16> : DenseWeights<__nv_bfloat16> {};

/// Floats, which become TF32 on their way to the tensor cores, or stay as they are.
template <class T>
struct FloatWeights {
  using Operand = T;
  static constexpr int kUnitBytes = 2048;

  __device__ static void load(const std::byte* unit, int lane, std::uint32_t (&a)[4][4]) {
    const float4* lanes = reinterpret_cast<const float4*>(unit) + lane;
#pragma unroll
    for (int step = 0; step < 4; ++step) {
      const float4 v = lanes[step * 32];
      a[step][0] = to_operand<T>(v.x).bits;
      a[step][1] = to_operand<T>(v.y).bits;
      a[step][2] = to_operand<T>(v.z).bits;
      a[step][3] = to_operand<T>(v.w).bits;
    }
  }
  __device__ static float element(const std::byte* unit, int row, int col) {
    const int lane = row % 8 * 4 + col % 4;
    const int i = row / 8 + col % 8 / 4 * 2;
    return reinterpret_cast<const float*>(unit)[(col / 8 * 32 + lane) * 4 + i];
  }
};
template <>
struct Weights<DataType::f32> : FloatWeights<Tf32> {};

__device__ __forceinline__ __half2 as_half2(std::uint32_t bits) {
  return reinterpret_cast<const __half2&>(bits);
}
__device__ __forceinline__ std::uint32_t as_bits(__half2 value) {
  return reinterpret_cast<const std::uint32_t&>(value);
}
/// f16 with exponent 2^10: 0x6400 | n is 1024 + n, exactly.
inline constexpr std::uint32_t kTwoTo10 = 0x64006400;

/// Nibbles (kMinimum: with a minimum per group, else biased by 8).
template <bool kMinimum>
struct NibbleWeights {
  using Operand = __half;
  static constexpr int kUnitBytes = kMinimum ? 320 : 288;

  __device__ static void load(const std::byte* unit, int lane, std::uint32_t (&a)[2][4]) {
    const uint2 words = reinterpret_cast<const uint2*>(unit)[lane];
    __half2 scale[2];
    __half2 minimum[2];
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      const int row = lane / 4 + i * 8;
      if constexpr (kMinimum) {
        const __half2 both = reinterpret_cast<const __half2*>(unit + 256)[row];
        scale[i] = __low2half2(both);
        minimum[i] = __high2half2(both);
      } else {
        scale[i] = __half2half2(reinterpret_cast<const __half*>(unit + 256)[row]);
      }
    }
    const __half2 bias = __float2half2_rn(kMinimum ? 1024.0f : 1032.0f);
#pragma unroll
    for (int step = 0; step < 2; ++step) {
      const std::uint32_t word = step == 0 ? words.x : words.y;
#pragma unroll
      for (int pair = 0; pair < 4; ++pair) {
        const __half2 q = __hsub2(as_half2((word >> (4 * pair) & 0x000f000f) | kTwoTo10), bias);
        a[step][pair] = as_bits(kMinimum ? __hfma2(q, scale[pair % 2], minimum[pair % 2])
                                         : __hmul2(q, scale[pair % 2]));
      }
    }
  }
  __device__ static float element(const std::byte* unit, int row, int col) {
    const int lane = row % 8 * 4 + col % 8 / 2;
    const int pair = row / 8 + col % 16 / 8 * 2;
    const std::uint32_t word = reinterpret_cast<const std::uint32_t*>(unit)[lane * 2 + col / 16];
    const int q = static_cast<int>(word >> (4 * pair + col % 2 * 16) & 15);
    if constexpr (kMinimum) {
      const float2 both = __half22float2(reinterpret_cast<const __half2*>(unit + 256)[row]);
      return __fmaf_rn(both.x, static_cast<float>(q), both.y);
    } else {
      return __half2float(reinterpret_cast<const __half*>(unit + 256)[row]) *
             static_cast<float>(q - 8);
    }
  }
};
template <>
struct Weights<DataType::q4_0> : NibbleWeights<false> {};
template <>
struct Weights<DataType::q4_1> : NibbleWeights<true> {};

template <>
struct Weights<DataType::q8_0> {
  using Operand = __half;
  static constexpr int kUnitBytes = 544;

  __device__ static void load(const std::byte* unit, int lane, std::uint32_t (&a)[2][4]) {
    const uint4 words = reinterpret_cast<const uint4*>(unit)[lane];
    const std::uint32_t word[4] = {words.x, words.y, words.z, words.w};
    const __half2 bias = __float2half2_rn(1152.0f);
    __half2 scale[2];
#pragma unroll
    for (int i = 0; i < 2; ++i)
      scale[i] = __half2half2(reinterpret_cast<const __half*>(unit + 512)[lane / 4 + i * 8]);
#pragma unroll
    for (int i = 0; i < 8; ++i) {
      // Two bytes become two f16 of 1024 + byte.
      const std::uint32_t pair = __byte_perm(word[i / 2], kTwoTo10, i % 2 == 0 ? 0x5150 : 0x5352);
      a[i / 4][i % 4] = as_bits(__hmul2(__hsub2(as_half2(pair), bias), scale[i % 2]));
    }
  }
  __device__ static float element(const std::byte* unit, int row, int col) {
    const int lane = row % 8 * 4 + col % 8 / 2;
    const int pair = row / 8 + col % 16 / 8 * 2;
    const int at = lane * 16 + col / 16 * 8 + pair * 2 + col % 2;
    const int q = static_cast<int>(reinterpret_cast<const std::uint8_t*>(unit)[at]) - 128;
    return __half2float(reinterpret_cast<const __half*>(unit + 512)[row]) * static_cast<float>(q);
  }
};

}  // namespace specdec::kernels::cuda
