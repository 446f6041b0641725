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
  return 1.0f / sqrtf(sum / static_cast<float>(cols) + eps);
}

/// Eight columns as an operand holds them.
template <class T>
__device__ __forceinline__ uint4 operand_group(const float (&v)[8]) {
  return {operand_pair<T>(v[0], v[1]), operand_pair<T>(v[2], v[3]), operand_pair<T>(v[4], v[5]),
          operand_pair<T>(v[6], v[7])};
}
template <class T>
__device__ __forceinline__ uint4 normed_group(float (&v)[8], float scale,
                                              const float (&weight)[8]) {
#pragma unroll
  for (int k = 0; k < 8; ++k) v[k] = v[k] * scale * weight[k];
  return operand_group<T>(v);
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
  /// Row `token` of `operand` becomes the norm of x [cols].
  __device__ void write(const float* x, float eps, int token, std::byte* operand) const {
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
      if (const int col = part * 256 + lane * 8; col < padded_cols(cols))
        *reinterpret_cast<uint4*>(operand + operand_index(token, col, cols) * 2) =
            normed_group<T>(values[part], scale, weights[part]);
  }
};

}  // namespace specdec::kernels::cuda
