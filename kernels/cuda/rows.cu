#include "kernels/cuda/rows.h"

#include "kernels/cuda/operand.h"
#include "kernels/cuda/packing.h"
#include "kernels/cuda/weights.cuh"

namespace specdec::kernels::cuda {
namespace {

constexpr int kThreads = 256;

/// grid: [num_rows]; a block dequantises one row of the table. The first kernel of a pass: it lets
/// the next one start only when all before it are done, so that what lay in memory before the pass
/// (the batch, committed keys and values) may be read by the pass's kernels without waiting.
template <DataType kType>
__global__ void __launch_bounds__(kThreads) embed_kernel(EmbedRowsParams params) {
  wait_for_previous();
  let_next_start();
  using Format = Weights<kType>;
  const int row = static_cast<int>(blockIdx.x);
  const int token = params.tokens[row];
  const int cols = params.table.cols;
  const int units = ceil_div(cols, kUnitCols);
  const int in_tile = token % kTileRows;
  const std::byte* tile = static_cast<const std::byte*>(params.table.data) +
                          static_cast<std::size_t>(token / kTileRows) * units * Format::kUnitBytes;
  float* out = params.out + static_cast<std::size_t>(row) * cols;
  for (int col = static_cast<int>(threadIdx.x); col < cols; col += kThreads)
    out[col] =
        Format::element(tile + static_cast<std::size_t>(col / kUnitCols) * Format::kUnitBytes,
                        in_tile, col % kUnitCols);
}

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

/// grid: [num_rows]; a block normalises one row. Sums: each thread over its groups of 8 columns,
/// ascending; then over the lanes of a warp, then over the warps, in a fixed tree. The first kHeld
/// groups of a thread stay in registers, their norm weights are there before the row is.
template <class T>
__global__ void __launch_bounds__(kThreads) operand_kernel(OperandRows rows) {
  constexpr int kHeld = 2;
  constexpr int kStride = kThreads * 8;
  __shared__ float warp_sums[kThreads / 32];
  let_next_start();
  const int row = static_cast<int>(blockIdx.x);
  const int thread = static_cast<int>(threadIdx.x);
  const bool norm = rows.norm_weight != nullptr;
  float weights[kHeld][8];
  float values[kHeld][8];
#pragma unroll
  for (int i = 0; i < kHeld; ++i)
    if (norm) load_group(rows.norm_weight, thread * 8 + i * kStride, rows.cols, weights[i]);
  wait_for_previous();
  const int source = rows.row_ids == nullptr ? row : rows.row_ids[row];
  const float* x = rows.x + static_cast<std::size_t>(source) * rows.cols;
#pragma unroll
  for (int i = 0; i < kHeld; ++i) load_group(x, thread * 8 + i * kStride, rows.cols, values[i]);

  float scale = 1.0f;
  if (norm) {
    float sum = 0;
#pragma unroll
    for (int i = 0; i < kHeld; ++i)
#pragma unroll
      for (int k = 0; k < 8; ++k) sum = __fmaf_rn(values[i][k], values[i][k], sum);
    for (int col = thread * 8 + kHeld * kStride; col < rows.cols; col += kStride) {
      float v[8];
      load_group(x, col, rows.cols, v);
#pragma unroll
      for (int k = 0; k < 8; ++k) sum = __fmaf_rn(v[k], v[k], sum);
    }
    for (int distance = 16; distance > 0; distance /= 2)
      sum += __shfl_xor_sync(kFullWarp, sum, distance);
    if (thread % 32 == 0) warp_sums[thread / 32] = sum;
    __syncthreads();
    sum = 0;
    for (const float part : warp_sums) sum += part;
    scale = 1.0f / sqrtf(sum / static_cast<float>(rows.cols) + rows.norm_eps);
  }
  const auto write = [&](int col, float(&v)[8], const float(&weight)[8]) {
    if (norm)
#pragma unroll
      for (int k = 0; k < 8; ++k) v[k] = v[k] * scale * weight[k];
    *reinterpret_cast<uint4*>(rows.operand + operand_index(row, col, rows.cols) * 2) =
        uint4{operand_pair<T>(v[0], v[1]), operand_pair<T>(v[2], v[3]), operand_pair<T>(v[4], v[5]),
              operand_pair<T>(v[6], v[7])};
  };
  const int end = padded_cols(rows.cols);
#pragma unroll
  for (int i = 0; i < kHeld; ++i)
    if (const int col = thread * 8 + i * kStride; col < end) write(col, values[i], weights[i]);
  for (int col = thread * 8 + kHeld * kStride; col < end; col += kStride) {
    float v[8];
    float weight[8];
    load_group(x, col, rows.cols, v);
    if (norm) load_group(rows.norm_weight, col, rows.cols, weight);
    write(col, v, weight);
  }
}

}  // namespace

cudaError_t embed_rows(const EmbedRowsParams& params, const Launch& to) {
  const dim3 grid(static_cast<unsigned>(params.num_rows));
  switch (params.table.type) {
    case DataType::f16:
      return launch(to, embed_kernel<DataType::f16>, grid, kThreads, 0, params);
    case DataType::bf16:
      return launch(to, embed_kernel<DataType::bf16>, grid, kThreads, 0, params);
    case DataType::q8_0:
      return launch(to, embed_kernel<DataType::q8_0>, grid, kThreads, 0, params);
    case DataType::q4_0:
      return launch(to, embed_kernel<DataType::q4_0>, grid, kThreads, 0, params);
    case DataType::q4_1:
      return launch(to, embed_kernel<DataType::q4_1>, grid, kThreads, 0, params);
    case DataType::f32:
      break;
  }
  return cudaErrorInvalidValue;
}

cudaError_t write_operand(const OperandRows& rows, const Launch& to) {
  const auto kernel =
      rows.type == DataType::bf16 ? operand_kernel<__nv_bfloat16> : operand_kernel<__half>;
  return launch(to, kernel, dim3(static_cast<unsigned>(rows.num_rows)), kThreads, 0, rows);
}

}  // namespace specdec::kernels::cuda
