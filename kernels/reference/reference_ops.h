#pragma once

#include <vector>

#include "kernels/ops.h"

namespace specdec::kernels::reference {

/// A weight matrix as plain floats, row-major [rows, cols]. It stands in for the PackedMatrix of a
/// params struct, whose `data` the functions below never read.
struct DenseMatrix {
  int rows = 0;
  int cols = 0;
  std::vector<float> data;
};

// Every op of kernels/ops.h as plain loops in double precision, from the params struct's other
// fields: the oracle. Activations are not quantised. K and V go through the KV type, as they must.
// Thread-safe on disjoint outputs.

void embed_rows(const EmbedRowsParams& params, const DenseMatrix& table);
void norm_qkv_rope_append(const NormQkvRopeAppendParams& params, const DenseMatrix& qkv);
void tree_attention(const TreeAttentionParams& params);
void project(const ProjectParams& params, const DenseMatrix& weight);
void project_residual(const ProjectResidualParams& params, const DenseMatrix& weight);
void norm_gate_up(const NormGateUpParams& params, const DenseMatrix& gate_up);
void norm_head(const NormHeadParams& params, const DenseMatrix& head);
void join_entries(const JoinEntriesParams& params, const DenseMatrix& table);
void copy_rows(const CopyRowsParams& params);
void move_kv(const MoveKvParams& params);

}  // namespace specdec::kernels::reference
