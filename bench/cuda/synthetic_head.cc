#include "synthetic_head.h"

#include <cmath>
#include <limits>

#include "kernels/cuda/cuda_ops.h"
#include "kernels/cuda/draft/eagle.h"
#include "kernels/cuda/packing.h"
#include "kernels/cuda/rows.h"

namespace specdec::kernels::bench {

SyntheticHead::SyntheticHead(SyntheticModel& model, int draft_vocab, int max_rows, int max_outputs)
    : model_(model) {
  const ModelShape& shape = model.shape();
  const int attention_cols = shape.heads * shape.head_dim;
  const auto weight = [&](int rows, int cols, int pair_distance) {
    weight_bytes_ += cuda::packed_bytes(shape.type, rows, cols, pair_distance);
    return model.matrix(shape.type, rows, cols, pair_distance);
  };
  for (int i = 0; i < 3; ++i)
    fc_.push_back(model.matrix(shape.type, shape.hidden, shape.hidden, 0));
  qkv_ = weight((shape.heads + 2 * shape.kv_heads) * shape.head_dim, 2 * shape.hidden,
                shape.head_dim / 2);
  output_ = weight(shape.hidden, attention_cols, 0);
  gate_up_ = weight(2 * shape.ffn, shape.hidden, shape.ffn);
  down_ = weight(shape.hidden, shape.ffn, 0);
  head_ = weight(draft_vocab, shape.hidden, 0);
  kv_ = model.kv_layer();

  const std::vector<float> ones(static_cast<std::size_t>(shape.hidden), 1.0f);
  norm_ = model.floats(1, shape.hidden);
  require(cudaMemcpy(norm_, ones.data(), ones.size() * 4, cudaMemcpyHostToDevice));
  const auto rows = static_cast<std::size_t>(max_rows);
  features_ = model.floats(rows, shape.hidden);
  for (float*& hidden : hidden_) hidden = model.floats(rows, shape.hidden);
  joined_ = model.floats(rows, 2 * shape.hidden);
  q_ = model.floats(rows, attention_cols);
  attention_ = model.floats(rows, attention_cols);
  ffn_ = model.floats(rows, shape.ffn);
  draft_logits_ = model.floats(static_cast<std::size_t>(max_outputs), draft_vocab);
  logits_ = model.floats(static_cast<std::size_t>(max_outputs), shape.vocab);
  const std::vector<float> unknown(
      static_cast<std::size_t>(max_outputs) * static_cast<std::size_t>(shape.vocab),
      -std::numeric_limits<float>::infinity());
  require(cudaMemcpy(logits_, unknown.data(), unknown.size() * 4, cudaMemcpyHostToDevice));
  std::vector<std::int32_t> tokens;
  for (int i = 0; i < draft_vocab; ++i)
    tokens.push_back(static_cast<std::int32_t>(std::int64_t{i} * shape.vocab / draft_vocab));
  tokens_ = reinterpret_cast<std::int32_t*>(model.take(tokens.size() * sizeof(std::int32_t)));
  require(cudaMemcpy(tokens_, tokens.data(), tokens.size() * sizeof(std::int32_t),
                     cudaMemcpyHostToDevice));
}

void SyntheticHead::observe(int layer, const float* x, int rows, cudaStream_t stream) {
  const int layers = model_.shape().layers;
  cuda::Launch to = model_.launch();
  to.stream = stream;
  if (layer == 2) require(cuda::project({rows, x, fc_[0], features_}, to));
  if (layer == layers / 2) require(cuda::project_residual({rows, x, fc_[1], features_}, to));
  if (layer == layers - 3) require(cuda::project_residual({rows, x, fc_[2], features_}, to));
}

const float* SyntheticHead::forward(const BatchView& batch, const std::int32_t* sources,
                                    bool at_roots, cudaStream_t stream) {
  const ModelShape& shape = model_.shape();
  const int rows = batch.num_rows;
  const DataType operand = cuda::operand_type(shape.type);
  cuda::Launch to = model_.launch();
  to.stream = stream;
  const float* const from = at_roots ? features_ : hidden_[last_];
  last_ = 1 - last_;
  float* const hidden = hidden_[last_];
  require(cuda::join_entries({.num_rows = rows,
                              .tokens = batch.device->tokens,
                              .table = model_.embedding(),
                              .states = from,
                              .state_rows = sources,
                              .token_norm_weight = norm_,
                              .state_norm_weight = norm_,
                              .norm_eps = 1e-5f,
                              .out = joined_,
                              .residual = hidden,
                              .out_type = operand},
                             to));
  require(cuda::norm_qkv_rope_append({.batch = batch,
                                      .x = joined_,
                                      .x_type = operand,
                                      .qkv = qkv_,
                                      .num_heads = shape.heads,
                                      .rope_cos = model_.angles(),
                                      .rope_sin = model_.angles(),
                                      .kv = kv_,
                                      .q = q_},
                                     to));
  require(cuda::tree_attention({.batch = batch,
                                .q = q_,
                                .num_heads = shape.heads,
                                .scale = 1.0f / std::sqrt(static_cast<float>(shape.head_dim)),
                                .kv = kv_,
                                .out = attention_,
                                .out_type = operand,
                                .first_position = 1},
                               to));
  require(cuda::project_residual({rows, attention_, output_, hidden, operand}, to));
  require(cuda::norm_gate_up({rows, hidden, norm_, 1e-5f, gate_up_, ffn_, operand}, to));
  require(cuda::project_residual({rows, ffn_, down_, hidden, operand}, to));
  require(cuda::norm_head({.num_outputs = batch.num_outputs,
                           .row_ids = batch.device->output_rows,
                           .x = hidden,
                           .norm_weight = norm_,
                           .norm_eps = 1e-5f,
                           .head = head_,
                           .logits = draft_logits_},
                          to));
  return draft_logits_;
}

const float* SyntheticHead::spread(const float* logits, int outputs, cudaStream_t stream) {
  cuda::Launch to = model_.launch();
  to.stream = stream;
  require(cuda::spread_logits({outputs, head_.rows, model_.shape().vocab, logits, tokens_, logits_},
                              to));
  return logits_;
}

}  // namespace specdec::kernels::bench
