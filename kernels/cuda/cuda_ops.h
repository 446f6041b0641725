#pragma once

#include "kernels/cuda/launch.h"
#include "kernels/ops.h"

namespace specdec::kernels::cuda {

/// The operations of kernels/ops.h on a GPU: each enqueues its kernels on `to.stream` and returns
/// the first error of a launch. Pointers are device memory; batches were staged (BatchView::device
/// is set). All kernels of one stream share `to.workspace`, which must be as large as workspace_for
/// says.
cudaError_t norm_qkv_rope_append(const NormQkvRopeAppendParams& params, const Launch& to);
cudaError_t tree_attention(const TreeAttentionParams& params, const Launch& to);
cudaError_t project(const ProjectParams& params, const Launch& to);
cudaError_t project_residual(const ProjectResidualParams& params, const Launch& to);
cudaError_t norm_gate_up(const NormGateUpParams& params, const Launch& to);
cudaError_t norm_head(const NormHeadParams& params, const Launch& to);
// embed_rows, join_entries, copy_rows: kernels/cuda/rows.h; moving and copying KV:
// kernels/cuda/kv.h

}  // namespace specdec::kernels::cuda
