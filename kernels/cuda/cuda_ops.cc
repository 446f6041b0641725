#include "kernels/cuda/cuda_ops.h"

#include "kernels/cuda/attention.h"
#include "kernels/cuda/operand.h"
#include "kernels/cuda/packing.h"
#include "kernels/cuda/product.h"
#include "kernels/cuda/rows.h"

namespace specdec::kernels::cuda {
namespace {

/// The tokens of a product are rows of floats, normed where there are weights: the product's own
/// affair while they are few, else written to the workspace as its operand.
cudaError_t set_rows(const NormedRows& rows, int num_rows, const Launch& to, Product& product) {
  product.num_tokens = num_rows;
  if (rows.norm_weight != nullptr && normalises(product.weight, num_rows)) {
    product.normed = rows;
    return cudaSuccess;
  }
  if (operand_bytes(num_rows, product.weight.cols, operand_element_bytes(product.weight.type)) >
      to.workspace.operand_bytes)
    return cudaErrorInvalidConfiguration;
  product.tokens = to.workspace.operand;
  return write_operand({.num_rows = num_rows,
                        .row_ids = rows.row_ids,
                        .x = rows.x,
                        .cols = product.weight.cols,
                        .norm_weight = rows.norm_weight,
                        .norm_eps = rows.norm_eps,
                        .type = operand_type(product.weight.type),
                        .full_precision = product.weight.full_precision,
                        .operand = to.workspace.operand},
                       to);
}

/// ... or what an op before it wrote as `type` says.
cudaError_t set_tokens(const float* in, DataType type, int num_rows, const Launch& to,
                       Product& product) {
  if (type == DataType::f32) return set_rows({.x = in}, num_rows, to, product);
  if (type != operand_type(product.weight.type)) return cudaErrorInvalidValue;
  product.tokens = reinterpret_cast<const std::byte*>(in);
  product.num_tokens = num_rows;
  return cudaSuccess;
}

}  // namespace

cudaError_t norm_qkv_rope_append(const NormQkvRopeAppendParams& params, const Launch& to) {
  if (params.batch.device == nullptr || params.qkv.pair_distance != params.kv.head_dim / 2 ||
      !attention_supported(params.num_heads, params.kv))
    return cudaErrorInvalidValue;
  const DeviceBatch& batch = *params.batch.device;
  Product product;
  product.weight = params.qkv;
  if (params.norm_weight != nullptr && params.x_type != DataType::f32) return cudaErrorInvalidValue;
  const cudaError_t status =
      params.norm_weight == nullptr
          ? set_tokens(params.x, params.x_type, batch.num_rows, to, product)
          : set_rows(
                {.x = params.x, .norm_weight = params.norm_weight, .norm_eps = params.norm_eps},
                batch.num_rows, to, product);
  if (status != cudaSuccess) return status;
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

cudaError_t project(const ProjectParams& params, const Launch& to) {
  Product product;
  product.weight = params.weight;
  const cudaError_t status = set_rows({.x = params.in}, params.num_rows, to, product);
  if (status != cudaSuccess) return status;
  product.output = ProductOutput::store;
  product.out = params.out;
  return multiply(product, to);
}

cudaError_t project_residual(const ProjectResidualParams& params, const Launch& to) {
  Product product;
  product.weight = params.weight;
  const cudaError_t status = set_tokens(params.in, params.in_type, params.num_rows, to, product);
  if (status != cudaSuccess) return status;
  product.output = ProductOutput::add;
  product.out = params.x;
  return multiply(product, to);
}

cudaError_t norm_gate_up(const NormGateUpParams& params, const Launch& to) {
  if (params.gate_up.pair_distance != params.gate_up.rows / 2) return cudaErrorInvalidValue;
  Product product;
  product.weight = params.gate_up;
  const cudaError_t status =
      set_rows({.x = params.x, .norm_weight = params.norm_weight, .norm_eps = params.norm_eps},
               params.num_rows, to, product);
  if (status != cudaSuccess) return status;
  product.output = ProductOutput::gated;
  product.operand = reinterpret_cast<std::byte*>(params.out);
  product.gated_type = params.out_type;
  return multiply(product, to);
}

cudaError_t norm_head(const NormHeadParams& params, const Launch& to) {
  Product product;
  product.weight = params.head;
  const cudaError_t status = set_rows({.x = params.x,
                                       .row_ids = params.row_ids,
                                       .norm_weight = params.norm_weight,
                                       .norm_eps = params.norm_eps},
                                      params.num_outputs, to, product);
  if (status != cudaSuccess) return status;
  product.output = ProductOutput::store;
  product.out = params.logits;
  return multiply(product, to);
}

}  // namespace specdec::kernels::cuda
