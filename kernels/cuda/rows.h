#pragma once

#include "kernels/cuda/batch.h"
#include "kernels/cuda/launch.h"
#include "kernels/ops.h"

namespace specdec::kernels::cuda {

/// out[r] = table[tokens[r]] in floats, from the packed table.
cudaError_t embed_rows(const EmbedRowsParams& params, const Launch& to);

/// Activations into the operand of a product: rms_norm(x[row]) * weight, or x[row] as it is when
/// `norm_weight` is null; padding columns become zero.
struct OperandRows {
  int num_rows = 0;
  const std::int32_t* row_ids = nullptr;  // [num_rows] rows of x; null: 0, 1, ..
  const float* x = nullptr;               // [rows, cols]
  int cols = 0;
  const float* norm_weight = nullptr;  // [cols]
  float norm_eps = 0;
  DataType type = DataType::f16;  // f16, bf16, or f32: TF32
  bool full_precision = false;    // of f32: the floats as they are, not TF32
  std::byte* operand = nullptr;
};
cudaError_t write_operand(const OperandRows& rows, const Launch& to);

/// kernels/ops.h; the table's columns are a multiple of 8. state_rows is device memory.
cudaError_t join_entries(const JoinEntriesParams& params, const Launch& to);
/// Row ids are host memory.
cudaError_t copy_rows(const CopyRowsParams& params, const Launch& to);

}  // namespace specdec::kernels::cuda
