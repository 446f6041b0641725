#include "kernels/cuda/cuda_ops.h"

#include "kernels/cuda/attention.h"
#include "kernels/cuda/operand.h"
#include "kernels/cuda/packing.h"
#include "kernels/cuda/product.h"
#include "kernels/cuda/rows.h"

namespace specdec::kernels::cuda {
namespace {

/// rms_norm(x) as the operand of `weight`, in the workspace.
cudaError_t write_normed(const float* x, const std::int32_t* row_ids, int num_rows,
                         const float* norm_weight, float norm_eps, const PackedMatrix& weight,
                         const Launch& to) {
  if (operand_bytes(num_rows, weight.cols) > to.workspace.operand_bytes)
    return cudaErrorInvalidConfiguration;
  return write_operand({.num_rows = num_rows,
                        .row_ids = row_ids,
                        .x = x,
                        .cols = weight.cols,
                        .norm_weight = norm_weight,
                        .norm_eps = norm_eps,
                        .type = operand_type(weight.type),
                        .operand = to.workspace.operand},
                       to);
}

}  // namespace

cudaError_t norm_qkv_rope_append(const NormQkvRopeAppendParams& params, const Launch& to) {
  if (params.batch.device == nullptr || params.qkv.pair_distance != params.kv.head_dim / 2 ||
      params.kv.type != DataType::f16)
    return cudaErrorInvalidValue;
  const DeviceBatch& batch = *params.batch.device;
  const cudaError_t status = write_normed(params.x, nullptr, batch.num_rows, params.norm_weight,
                                          params.norm_eps, params.qkv, to);
  if (status != cudaSuccess) return status;
  Product product;
  product.weight = params.qkv;
  product.tokens = to.workspace.operand;
  product.num_tokens = batch.num_rows;
  product.output = ProductOutput::qkv;
  product.batch = batch;
  product.kv = params.kv;
  product.num_heads = params.num_heads;
  product.q = params.q;
  product.rope_cos = params.rope_cos;
  product.rope_sin = params.rope_sin;
  return multiply(product, to);
}

cudaError_t tree_attention(const TreeAttentionParams& params, const Launch& to) {
  return tree_attention(params, AttentionSplit::automatic, to);
}

cudaError_t project_residual(const ProjectResidualParams& params, const Launch& to) {
  Product product;
  product.weight = params.weight;
  product.tokens = reinterpret_cast<const std::byte*>(params.in);
  product.num_tokens = params.num_rows;
  product.output = ProductOutput::add;
  product.out = params.x;
  return multiply(product, to);
}

cudaError_t norm_gate_up(const NormGateUpParams& params, const Launch& to) {
  if (params.gate_up.pair_distance != params.gate_up.rows / 2 || params.out_type == DataType::f32)
    return cudaErrorInvalidValue;
  const cudaError_t status = write_normed(params.x, nullptr, params.num_rows, params.norm_weight,
                                          params.norm_eps, params.gate_up, to);
  if (status != cudaSuccess) return status;
  Product product;
  product.weight = params.gate_up;
  product.tokens = to.workspace.operand;
  product.num_tokens = params.num_rows;
  product.output = ProductOutput::gated;
  product.operand = reinterpret_cast<std::byte*>(params.out);
  product.gated_type = params.out_type;
  return multiply(product, to);
}

cudaError_t norm_head(const NormHeadParams& params, const Launch& to) {
  const cudaError_t status = write_normed(params.x, params.row_ids, params.num_outputs,
                                          params.norm_weight, params.norm_eps, params.head, to);
  if (status != cudaSuccess) return status;
  Product product;
  product.weight = params.head;
  product.tokens = to.workspace.operand;
  product.num_tokens = params.num_outputs;
  product.output = ProductOutput::store;
  product.out = params.logits;
  return multiply(product, to);
}

}  // namespace specdec::kernels::cuda
