#include "kernels/cuda/rows.h"

#include "kernels/cuda/operand.h"
#include "kernels/cuda/packing.h"
#include "kernels/cuda/weights.cuh"

namespace specdec::kernels::cuda {
namespace {

constexpr int kThreads = 256;

/// grid: [num_rows]; a block dequantises one row of the table.
template <DataType kType>
__global__ void __launch_bounds__(kThreads) embed_kernel(EmbedRowsParams params) {
  let_next_start();
  wait_for_previous();
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

/// grid: [num_rows]; a block normalises one row. Sums: each thread over its groups of 8 columns,
/// ascending; then over the lanes of a warp, then over the warps, in a fixed tree.
template <class T>
__global__ void __launch_bounds__(kThreads) operand_kernel(OperandRows rows) {
  __shared__ float warp_sums[kThreads / 32];
  let_next_start();
  wait_for_previous();
  const int row = static_cast<int>(blockIdx.x);
  const int source = rows.row_ids == nullptr ? row : rows.row_ids[row];
  const float* x = rows.x + static_cast<std::size_t>(source) * rows.cols;
  const int thread = static_cast<int>(threadIdx.x);
  float scale = 1.0f;
  if (rows.norm_weight != nullptr) {
    float sum = 0;
    for (int col = thread * 8; col < rows.cols; col += kThreads * 8)
      for (int i = 0; i < 8 && col + i < rows.cols; ++i)
        sum = __fmaf_rn(x[col + i], x[col + i], sum);
    for (int distance = 16; distance > 0; distance /= 2)
      sum += __shfl_xor_sync(kFullWarp, sum, distance);
    if (thread % 32 == 0) warp_sums[thread / 32] = sum;
    __syncthreads();
    sum = 0;
    for (const float part : warp_sums) sum += part;
    scale = 1.0f / sqrtf(sum / static_cast<float>(rows.cols) + rows.norm_eps);
  }
  for (int col = thread * 8; col < padded_cols(rows.cols); col += kThreads * 8) {
    float v[8];
    for (int i = 0; i < 8; ++i) {
      v[i] = col + i < rows.cols ? x[col + i] : 0.0f;
      if (rows.norm_weight != nullptr && col + i < rows.cols)
        v[i] = v[i] * scale * rows.norm_weight[col + i];
    }
    const uint4 packed = {operand_pair<T>(v[0], v[1]), operand_pair<T>(v[2], v[3]),
                          operand_pair<T>(v[4], v[5]), operand_pair<T>(v[6], v[7])};
    *reinterpret_cast<uint4*>(rows.operand + operand_index(row, col, rows.cols) * 2) = packed;
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
