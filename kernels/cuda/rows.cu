#include "kernels/cuda/rows.h"

#include <algorithm>
#include <type_traits>

#include "kernels/cuda/norm.cuh"
#include "kernels/cuda/operand.h"
#include "kernels/cuda/packing.h"
#include "kernels/cuda/weights.cuh"

namespace specdec::kernels::cuda {
namespace {

constexpr int kThreads = 256;

/// Dequantises a row of the table, by a block.
template <DataType kType>
__device__ __forceinline__ void unpack_row(const PackedMatrix& table, int token, float* out) {
  using Format = Weights<kType>;
  const int units = ceil_div(table.cols, kUnitCols);
  const int in_tile = token % kTileRows;
  const std::byte* tile = static_cast<const std::byte*>(table.data) +
                          static_cast<std::size_t>(token / kTileRows) * units * Format::kUnitBytes;
  for (int col = static_cast<int>(threadIdx.x); col < table.cols; col += kThreads)
    out[col] =
        Format::element(tile + static_cast<std::size_t>(col / kUnitCols) * Format::kUnitBytes,
                        in_tile, col % kUnitCols);
}

/// grid: [num_rows]; a block dequantises one row of the table. The first kernel of a pass: it lets
/// the next one start only when all before it are done, so that what lay in memory before the pass
/// (the batch, committed keys and values) may be read by the pass's kernels without waiting.
template <DataType kType>
__global__ void __launch_bounds__(kThreads) embed_kernel(EmbedRowsParams params) {
  wait_for_previous();
  let_next_start();
  const int row = static_cast<int>(blockIdx.x);
  unpack_row<kType>(params.table, params.tokens[row],
                    params.out + static_cast<std::size_t>(row) * params.table.cols);
}

/// grid: [num_rows]; a block writes one row, normalised where there are weights.
template <class T>
__global__ void __launch_bounds__(kThreads) operand_kernel(OperandRows rows) {
  static_assert(kThreads == kNormParts * 32);
  __shared__ float part_sums[kNormParts];
  let_next_start();
  const int row = static_cast<int>(blockIdx.x);
  const int num_rows = static_cast<int>(gridDim.x);
  const int thread = static_cast<int>(threadIdx.x);
  const auto place = [&](int col) {
    constexpr int kElement = sizeof(T);
    return reinterpret_cast<uint4*>(
        rows.operand + operand_index<kElement>(row, col, rows.cols, num_rows) * kElement);
  };
  const auto source = [&] {
    return rows.x +
           static_cast<std::size_t>(rows.row_ids == nullptr ? row : rows.row_ids[row]) * rows.cols;
  };
  if (rows.norm_weight != nullptr) {
    const BlockNorm norm(rows.norm_weight, rows.cols, thread);
    wait_for_previous();
    norm.write<T>(
        source(), rows.norm_eps, part_sums, [] { __syncthreads(); }, place);
    return;
  }
  wait_for_previous();
  for (int col = thread * 8; col < padded_cols(rows.cols); col += kNormStride) {
    float v[8];
    load_group(source(), col, rows.cols, v);
    put_columns<T>(place, col, v);
  }
}

/// Where join_entries puts 8 columns of a row: floats, or a place in an operand.
template <class T>
__device__ __forceinline__ void put_group(T* out, int row, int col, int cols, const float (&v)[8]) {
  const auto num_rows = static_cast<int>(gridDim.x);
  *reinterpret_cast<uint4*>(out + operand_index(row, col, cols, num_rows)) = operand_group<T>(v);
}
__device__ __forceinline__ void put_floats(float* to, const float (&v)[8]) {
#pragma unroll
  for (int i = 0; i < 2; ++i)
    reinterpret_cast<float4*>(to)[i] = {v[i * 4], v[i * 4 + 1], v[i * 4 + 2], v[i * 4 + 3]};
}
template <>
__device__ __forceinline__ void put_group<float>(float* out, int row, int col, int cols,
                                                 const float (&v)[8]) {
  put_floats(out + static_cast<std::size_t>(row) * cols + col, v);
}

/// grid: [num_rows, 2]; a block normalises one half of one row. The first kernel of a pass, like
/// embed_kernel. shared: float[cols], the embedding.
template <DataType kType, class T>
__global__ void __launch_bounds__(kThreads) join_kernel(JoinEntriesParams params) {
  extern __shared__ __align__(16) float embedded[];
  __shared__ float part_sums[kNormParts];
  const int row = static_cast<int>(blockIdx.x);
  const int thread = static_cast<int>(threadIdx.x);
  const bool of_state = blockIdx.y == 1;
  const int hidden = params.table.cols;
  const BlockNorm norm(of_state ? params.state_norm_weight : params.token_norm_weight, hidden,
                       thread);
  wait_for_previous();
  let_next_start();
  const float* x = embedded;
  float* residual = nullptr;
  if (of_state) {
    const int state_row = params.state_rows == nullptr ? row : params.state_rows[row];
    x = params.states + static_cast<std::size_t>(state_row) * hidden;
    if (params.residual != nullptr)
      residual = params.residual + static_cast<std::size_t>(row) * hidden;
  } else {
    unpack_row<kType>(params.table, params.tokens[row], embedded);
    __syncthreads();
  }
  T* const out = reinterpret_cast<T*>(params.out);
  norm.each(
      x, params.norm_eps, part_sums, [] { __syncthreads(); },
      [&](int col, const float(&v)[8]) {
        if (col >= hidden) return;  // padding of half a row
        put_group(out, row, of_state ? hidden + col : col, 2 * hidden, v);
        if (residual == nullptr) return;
        if (params.normed_residual) {
          put_floats(residual + col, v);
        } else if (residual != x) {
          float raw[8];
          load_group(x, col, hidden, raw);
          put_floats(residual + col, raw);
        }
      });
  if constexpr (sizeof(T) < sizeof(float))  // an operand's padding
    if (of_state)
      for (int col = 2 * hidden + thread * 8; col < padded_cols(2 * hidden); col += kNormStride)
        put_group(out, row, col, 2 * hidden, {});
}

template <DataType kType>
cudaError_t launch_join(const JoinEntriesParams& params, const Launch& to) {
  const auto kernel = params.out_type == DataType::bf16  ? join_kernel<kType, __nv_bfloat16>
                      : params.out_type == DataType::f16 ? join_kernel<kType, __half>
                                                         : join_kernel<kType, float>;
  const std::size_t shared = static_cast<std::size_t>(params.table.cols) * sizeof(float);
  constexpr std::size_t kAlwaysThere = std::size_t{47} << 10;
  if (shared > kAlwaysThere)
    if (const cudaError_t status = allow_shared(to, kernel); status != cudaSuccess) return status;
  return launch(to, kernel, dim3(static_cast<unsigned>(params.num_rows), 2), kThreads, shared,
                params);
}

/// Row ids travel with the launch (4 KiB of parameters).
struct RowCopies {
  static constexpr int kMost = 480;
  std::int32_t from[kMost];
  std::int32_t to[kMost];
};

/// grid: [copies, ceil(cols / kThreads / Vector)]; a block copies a part of one row.
template <class Vector>
__global__ void __launch_bounds__(kThreads)
    copy_kernel(const Vector* source, Vector* destination, int row_size,
                const __grid_constant__ RowCopies copies) {
  let_next_start();
  wait_for_previous();
  const int at = static_cast<int>(blockIdx.y * kThreads + threadIdx.x);
  if (at >= row_size) return;
  const auto first = [&](int row) { return static_cast<std::size_t>(row) * row_size; };
  destination[first(copies.to[blockIdx.x]) + at] = source[first(copies.from[blockIdx.x]) + at];
}

template <class Vector>
cudaError_t copy_some(const CopyRowsParams& params, const RowCopies& copies, int count,
                      const Launch& to) {
  const int row_size = params.cols / static_cast<int>(sizeof(Vector) / sizeof(float));
  const dim3 grid(static_cast<unsigned>(count),
                  static_cast<unsigned>(ceil_div(row_size, kThreads)));
  return launch(to, copy_kernel<Vector>, grid, kThreads, 0,
                reinterpret_cast<const Vector*>(params.source),
                reinterpret_cast<Vector*>(params.destination), row_size, copies);
}

/// body(std::integral_constant<DataType, type>).
template <class Body>
cudaError_t with_type(DataType type, const Body& body) {
  switch (type) {
    case DataType::f16:
      return body(std::integral_constant<DataType, DataType::f16>());
    case DataType::bf16:
      return body(std::integral_constant<DataType, DataType::bf16>());
    case DataType::q8_0:
      return body(std::integral_constant<DataType, DataType::q8_0>());
    case DataType::q4_0:
      return body(std::integral_constant<DataType, DataType::q4_0>());
    case DataType::q4_1:
      return body(std::integral_constant<DataType, DataType::q4_1>());
    case DataType::f32:
      return body(std::integral_constant<DataType, DataType::f32>());
  }
  return cudaErrorInvalidValue;
}

}  // namespace

cudaError_t embed_rows(const EmbedRowsParams& params, const Launch& to) {
  return with_type(params.table.type, [&](auto type) {
    return launch(to, embed_kernel<decltype(type)::value>,
                  dim3(static_cast<unsigned>(params.num_rows)), kThreads, 0, params);
  });
}

cudaError_t write_operand(const OperandRows& rows, const Launch& to) {
  const auto kernel = rows.type == DataType::bf16  ? operand_kernel<__nv_bfloat16>
                      : rows.type == DataType::f16 ? operand_kernel<__half>
                      : rows.full_precision        ? operand_kernel<SplitFloat>
                                                   : operand_kernel<Tf32>;
  return launch(to, kernel, dim3(static_cast<unsigned>(rows.num_rows)), kThreads, 0, rows);
}

cudaError_t join_entries(const JoinEntriesParams& params, const Launch& to) {
  if (params.table.cols % 8 != 0) return cudaErrorInvalidValue;
  return with_type(params.table.type,
                   [&](auto type) { return launch_join<decltype(type)::value>(params, to); });
}

cudaError_t copy_rows(const CopyRowsParams& params, const Launch& to) {
  RowCopies copies{};
  for (int first = 0; first < params.num_rows; first += RowCopies::kMost) {
    const int count = std::min(RowCopies::kMost, params.num_rows - first);
    for (int i = 0; i < count; ++i) {
      const int row = first + i;
      copies.from[i] = params.source_rows == nullptr ? row : params.source_rows[row];
      copies.to[i] = params.destination_rows == nullptr ? row : params.destination_rows[row];
    }
    const cudaError_t status = params.cols % 4 == 0 ? copy_some<float4>(params, copies, count, to)
                                                    : copy_some<float>(params, copies, count, to);
    if (status != cudaSuccess) return status;
  }
  return cudaSuccess;
}

}  // namespace specdec::kernels::cuda
