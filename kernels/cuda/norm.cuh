#pragma once

#include "kernels/cuda/device.cuh"
#include "kernels/cuda/operand.h"
#include "kernels/cuda/product.h"

namespace specdec::kernels::cuda {

/// The order of a norm's sum over columns: lane l of part p takes the groups of 8 columns p * 256 +
/// 8 l + 2048 i, ascending; the lanes of a part are added in a butterfly, the parts in ascending
/// order. It depends on the number of columns alone, whoever sums.
inline constexpr int kNormParts = 8;
inline constexpr int kNormStride = kNormParts * 32 * 8;

/// 8 floats from `col` on; zeros past the end. Rows of whole groups of 8 are read by two loads.
__device__ __forceinline__ void load_group(const float* row, int col, int cols, float (&v)[8]) {
  if (cols % 8 == 0) {
    const bool inside = col < cols;
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      const float4 part = inside ? *reinterpret_cast<const float4*>(row + col + i * 4)
                                 : float4{0.0f, 0.0f, 0.0f, 0.0f};
      v[i * 4] = part.x;
      v[i * 4 + 1] = part.y;
      v[i * 4 + 2] = part.z;
      v[i * 4 + 3] = part.w;
    }
    return;
  }
#pragma unroll
  for (int i = 0; i < 8; ++i) v[i] = col + i < cols ? row[col + i] : 0.0f;
}

__device__ __forceinline__ float add_squares(const float (&v)[8], float sum) {
#pragma unroll
  for (int k = 0; k < 8; ++k) sum = __fmaf_rn(v[k], v[k], sum);
  return sum;
}
__device__ __forceinline__ float add_lanes(float sum) {
  for (int distance = 16; distance > 0; distance /= 2)
    sum += __shfl_xor_sync(kFullWarp, sum, distance);
  return sum;
}
__device__ __forceinline__ float norm_scale(float sum, int cols, float eps) {
  return rsqrtf(__fdividef(sum, static_cast<float>(cols)) + eps);
}

/// Eight columns as an operand holds them.
template <class T>
__device__ __forceinline__ uint4 operand_group(const float (&v)[8]) {
  return {operand_pair<T>(v[0], v[1]), operand_pair<T>(v[2], v[3]), operand_pair<T>(v[4], v[5]),
          operand_pair<T>(v[6], v[7])};
}
__device__ __forceinline__ void scale_group(float (&v)[8], float scale, const float (&weight)[8]) {
#pragma unroll
  for (int k = 0; k < 8; ++k) v[k] = v[k] * scale * weight[k];
}
/// Puts eight columns into an operand: place(col) says where those from `col` on go, as many as 16
/// bytes hold.
template <class T, class Place>
__device__ __forceinline__ void put_columns(const Place& place, int col, const float (&v)[8]) {
  if constexpr (sizeof(T) == 2) {
    *place(col) = operand_group<T>(v);
  } else {
#pragma unroll
    for (int i = 0; i < 8; i += 4)
      *place(col + i) = uint4{to_operand<T>(v[i]).bits, to_operand<T>(v[i + 1]).bits,
                              to_operand<T>(v[i + 2]).bits, to_operand<T>(v[i + 3]).bits};
  }
}

/// One warp's norm of one row of at most kMostNormedCols columns. Weights are loaded ahead of the
/// row.
template <class T>
struct WarpNorm {
  static constexpr int kParts = kMostNormedCols / 256;

  int cols;
  int lane;
  float weights[kParts][8];

  __device__ WarpNorm(const float* weight, int columns, int own_lane)
      : cols(columns), lane(own_lane) {
#pragma unroll
    for (int part = 0; part < kParts; ++part)
      load_group(weight, part * 256 + lane * 8, cols, weights[part]);
  }
  template <class Place>
  __device__ void write(const float* x, float eps, Place place) const {
    float values[kParts][8];
    float sums[kParts];
#pragma unroll
    for (int part = 0; part < kParts; ++part)
      load_group(x, part * 256 + lane * 8, cols, values[part]);
#pragma unroll
    for (int part = 0; part < kParts; ++part) sums[part] = add_squares(values[part], 0.0f);
#pragma unroll
    for (int distance = 16; distance > 0; distance /= 2)
#pragma unroll
      for (int part = 0; part < kParts; ++part)
        sums[part] += __shfl_xor_sync(kFullWarp, sums[part], distance);
    float total = 0;
#pragma unroll
    for (int part = 0; part < kParts; ++part) total += sums[part];
    const float scale = norm_scale(total, cols, eps);
#pragma unroll
    for (int part = 0; part < kParts; ++part)
      if (const int col = part * 256 + lane * 8; col < padded_cols(cols)) {
        scale_group(values[part], scale, weights[part]);
        put_columns<T>(place, col, values[part]);
      }
  }
};

/// The norm of one row by kNormParts warps, a part each. The first kHeld groups of a thread stay in
/// registers, and their weights are loaded ahead of the row.
struct BlockNorm {
  static constexpr int kHeld = 2;

  const float* weight;
  int cols;
  int thread;
  float weights[kHeld][8];

  __device__ BlockNorm(const float* norm_weight, int columns, int own_thread)
      : weight(norm_weight), cols(columns), thread(own_thread) {
#pragma unroll
    for (int i = 0; i < kHeld; ++i)
      load_group(weight, thread * 8 + i * kNormStride, cols, weights[i]);
  }
  /// Calls put(col, group) for all groups of 8 columns up to padded_cols(cols), zeros past the end.
  /// `part_sums` [kNormParts] in shared memory; sync() is a barrier of the warps. Once a group is
  /// put, its columns of `x` are no longer read.
  template <class Sync, class Put>
  __device__ void each(const float* x, float eps, float* part_sums, Sync sync, Put put) const {
    float values[kHeld][8];
#pragma unroll
    for (int i = 0; i < kHeld; ++i) load_group(x, thread * 8 + i * kNormStride, cols, values[i]);
    float sum = 0;
#pragma unroll
    for (int i = 0; i < kHeld; ++i) sum = add_squares(values[i], sum);
    for (int col = thread * 8 + kHeld * kNormStride; col < cols; col += kNormStride) {
      float v[8];
      load_group(x, col, cols, v);
      sum = add_squares(v, sum);
    }
    sum = add_lanes(sum);
    if (thread % 32 == 0) part_sums[thread / 32] = sum;
    sync();
    sum = 0;
#pragma unroll
    for (int part = 0; part < kNormParts; ++part) sum += part_sums[part];
    const float scale = norm_scale(sum, cols, eps);
    const int end = padded_cols(cols);
#pragma unroll
    for (int i = 0; i < kHeld; ++i)
      if (const int col = thread * 8 + i * kNormStride; col < end) {
        scale_group(values[i], scale, weights[i]);
        put(col, values[i]);
      }
    for (int col = thread * 8 + kHeld * kNormStride; col < end; col += kNormStride) {
      float v[8];
      float w[8];
      load_group(x, col, cols, v);
      load_group(weight, col, cols, w);
      scale_group(v, scale, w);
      put(col, v);
    }
  }
  /// As an operand's elements.
  template <class T, class Sync, class Place>
  __device__ void write(const float* x, float eps, float* part_sums, Sync sync, Place place) const {
    each(x, eps, part_sums, sync,
         [&](int col, const float(&v)[8]) { put_columns<T>(place, col, v); });
  }
};

}  // namespace specdec::kernels::cuda
