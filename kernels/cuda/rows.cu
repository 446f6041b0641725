#include "kernels/cuda/rows.h"

#include "kernels/cuda/norm.cuh"
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

/// grid: [num_rows]; a block writes one row, normalised where there are weights.
template <class T>
__global__ void __launch_bounds__(kThreads) operand_kernel(OperandRows rows) {
  static_assert(kThreads == kNormParts * 32);
  __shared__ float part_sums[kNormParts];
  let_next_start();
  const int row = static_cast<int>(blockIdx.x);
  const int thread = static_cast<int>(threadIdx.x);
  const auto place = [&](int col) {
    return reinterpret_cast<uint4*>(rows.operand + operand_index(row, col, rows.cols) * 2);
  };
  const auto source = [&] {
    return rows.x +
           static_cast<std::size_t>(rows.row_ids == nullptr ? row : rows.row_ids[row]) * rows.cols;
  };
  if (rows.norm_weight != nullptr) {
    const BlockNorm<T> norm(rows.norm_weight, rows.cols, thread);
    wait_for_previous();
    norm.write(
        source(), rows.norm_eps, part_sums, [] { __syncthreads(); }, place);
    return;
  }
  wait_for_previous();
  for (int col = thread * 8; col < padded_cols(rows.cols); col += kNormStride) {
    float v[8];
    load_group(source(), col, rows.cols, v);
    *place(col) = operand_group<T>(v);
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
