#include "kernels/cpu/cpu_ops.h"

#include "kernels/cpu/packing.h"
#include "kernels/reference/reference_ops.h"

namespace specdec::kernels {
namespace {

reference::DenseMatrix unpack(const PackedMatrix& matrix) {
  reference::DenseMatrix dense{matrix.rows, matrix.cols, {}};
  dense.data.resize(static_cast<std::size_t>(matrix.rows) * matrix.cols);
  for (int r = 0; r < matrix.rows; ++r) {
    unpack_row(matrix, r, dense.data.data() + static_cast<std::size_t>(r) * matrix.cols);
  }
  return dense;
}

}  // namespace

CpuOps::CpuOps(Isa isa, Executor& executor) : isa_(isa), executor_(&executor) {}
CpuOps::~CpuOps() = default;

std::size_t CpuOps::packed_bytes(DataType type, int rows, int cols) noexcept {
  return static_cast<std::size_t>((rows + kTileRows - 1) / kTileRows) * tile_bytes(type, cols);
}

void CpuOps::pack_rows(DataType type, int cols, int first_row, int count,
                       const std::byte* const* row_pointers, void* packed) const noexcept {
  std::byte* tile = static_cast<std::byte*>(packed) +
                    static_cast<std::size_t>(first_row / kTileRows) * tile_bytes(type, cols);
  for (int i = 0; i < count; i += kTileRows, tile += tile_bytes(type, cols)) {
    const int rows = count - i < kTileRows ? count - i : kTileRows;
    pack_tile(type, cols, rows, row_pointers + i, tile);
  }
}

void CpuOps::embed_rows(const EmbedRowsParams& params) {
  for (int r = 0; r < params.num_rows; ++r) {
    unpack_row(params.table, params.tokens[r],
               params.out + static_cast<std::size_t>(r) * params.table.cols);
  }
}

void CpuOps::norm_qkv_rope_append(const NormQkvRopeAppendParams& params) {
  reference::norm_qkv_rope_append(params, unpack(params.qkv));
}
void CpuOps::tree_attention(const TreeAttentionParams& params) {
  reference::tree_attention(params);
}
void CpuOps::project_residual(const ProjectResidualParams& params) {
  reference::project_residual(params, unpack(params.weight));
}
void CpuOps::norm_gate_up(const NormGateUpParams& params) {
  reference::norm_gate_up(params, unpack(params.gate_up));
}
void CpuOps::norm_head(const NormHeadParams& params) {
  reference::norm_head(params, unpack(params.head));
}
void CpuOps::move_kv(const MoveKvParams& params) { reference::move_kv(params); }

}  // namespace specdec::kernels
