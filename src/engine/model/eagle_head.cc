#include "engine/model/eagle_head.h"

#include <cmath>
#include <utility>

#include "engine/model/row_buffers.h"
#include "sampling/mutation.h"

namespace specdec {

EagleHead::EagleHead(Backend& backend, const EagleSource& source,
                     const kernels::PackedMatrix& target_embedding, KvPoolStorage pool,
                     int max_rows)
    : backend_(backend),
      config_(source.layer),
      norm_before_residual_(source.norm_before_residual != mutant_active("residual_of_other_kind")),
      feature_layers_(source.feature_layers),
      target_tokens_(source.target_tokens),
      pool_(std::move(pool)),
      max_rows_(max_rows),
      rope_(backend, source.layer, pool_.capacity(), -1),
      embedding_(target_embedding),
      fc_(source.fc.size()) {
  std::vector<std::pair<const MatrixSource*, kernels::PackedMatrix*>> matrices = {
      {&source.qkv, &qkv_},         {&source.attention_output, &attention_output_},
      {&source.gate_up, &gate_up_}, {&source.down, &down_},
      {&source.head, &head_},
  };
  for (std::size_t i = 0; i < fc_.size(); ++i) matrices.emplace_back(&source.fc[i], &fc_[i]);
  if (source.embedding) matrices.emplace_back(&*source.embedding, &embedding_);
  std::size_t bytes = 0;
  for (const auto& [from, to] : matrices) bytes += backend.packed_bytes(*from);
  weights_ = backend.allocate(bytes, MemoryUse::weights);
  std::byte* next = weights_.as<std::byte>();
  for (const auto& [from, to] : matrices) {
    *to = backend.pack(*from, next);
    next += backend.packed_bytes(*from);
  }

  const auto hidden = static_cast<std::size_t>(config_.hidden_size);
  norms_ = backend.allocate(4 * hidden * sizeof(float), MemoryUse::weights);
  float* next_norm = norms_.as<float>();
  for (const auto& [from, to] : {std::pair{&source.input_norm, &input_norm_},
                                 {&source.hidden_norm, &hidden_norm_},
                                 {&source.ffn_norm, &ffn_norm_},
                                 {&source.output_norm, &output_norm_}}) {
    backend.write(next_norm, from->data(), hidden * sizeof(float), Stream{});
    *to = next_norm;
    next_norm += hidden;
  }

  const auto rows_of = [&](int width) { return allocate_rows(backend, max_rows, width); };
  features_ = rows_of(config_.hidden_size);
  x_ = rows_of(config_.hidden_size);
  joined_ = rows_of(2 * config_.hidden_size);
  q_ = rows_of(config_.num_heads * config_.head_dim);
  attention_ = rows_of(config_.num_heads * config_.head_dim);
  ffn_ = rows_of(config_.ffn_size);
}

void EagleHead::observe(int layer, const float* x, int num_rows, Stream stream) {
  if (mutant_active("features_off_by_one")) --layer;
  for (std::size_t i = 0; i < feature_layers_.size(); ++i) {
    if (feature_layers_[i] != layer) continue;
    if (i == 0)
      backend_.project(
          {.num_rows = num_rows, .in = x, .weight = fc_[i], .out = features_.as<float>()}, stream);
    else
      backend_.project_residual(
          {.num_rows = num_rows, .in = x, .weight = fc_[i], .x = features_.as<float>()}, stream);
  }
}

std::span<const float> EagleHead::forward(const ForwardBatch& batch, Stream stream) {
  rope_.fill(batch.positions(), stream);
  if (graphs_ != nullptr)
    if (const auto found = graphs_->forward(batch, stream, nullptr))
      return read_rows(backend_, *found, stream);
  const kernels::BatchView view = backend_.stage(batch.view(), stream);
  // Planted: the angles of the position after the right one.
  const bool shifted =
      mutant_active("draft_position_off_by_one") && view.num_rows == view.num_outputs;
  append_entries(view, {hidden()}, hidden(), shifted, stream);
  if (view.num_outputs == 0) return {};
  finish_layer(view, hidden(), stream);
  return read_rows(backend_, make_logits(backend_, head_params(view, hidden()), logits_, stream),
                   stream);
}

void EagleHead::reserve(int outputs, Stream stream) {
  rope_.fill_all(stream);
  enqueued_logits_ = allocate_rows(backend_, outputs, head_.rows);
}

const float* EagleHead::enqueue(const kernels::BatchView& batch, const States& states,
                                float* hidden, Stream stream) {
  enqueue_to(enqueued_logits_.as<float>(), batch, states, hidden, stream);
  return enqueued_logits_.as<float>();
}

void EagleHead::enqueue_to(float* logits, const kernels::BatchView& batch, const States& states,
                           float* hidden, Stream stream) {
  append_entries(batch, states, hidden, false, stream);
  finish_layer(batch, hidden, stream);
  kernels::NormHeadParams params = head_params(batch, hidden);
  params.logits = logits;
  backend_.norm_head(params, stream);
}

/// K and V of the rows' entries, and queries; `hidden` becomes the residual.
void EagleHead::append_entries(const kernels::BatchView& batch, const States& states, float* hidden,
                               bool shifted, Stream stream) {
  const kernels::DataType joined_type = backend_.operand_type(qkv_);
  const int first_angle = shifted ? config_.head_dim / 2 : 0;
  const bool in_place = states.states == hidden && !norm_before_residual_;
  backend_.join_entries({.num_rows = batch.num_rows,
                         .tokens = batch.tokens,
                         .table = embedding_,
                         .states = states.states,
                         .state_rows = states.rows,
                         .token_norm_weight = input_norm_,
                         .state_norm_weight = hidden_norm_,
                         .norm_eps = config_.norm_eps,
                         .out = joined_.as<float>(),
                         .residual = in_place ? nullptr : hidden,
                         .normed_residual = norm_before_residual_,
                         .out_type = joined_type},
                        stream);
  backend_.norm_qkv_rope_append({.batch = batch,
                                 .x = joined_.as<float>(),
                                 .x_type = joined_type,
                                 .qkv = qkv_,
                                 .num_heads = config_.num_heads,
                                 .rope_cos = rope_.cosines() + first_angle,
                                 .rope_sin = rope_.sines() + first_angle,
                                 .kv = pool_.layer(0),
                                 .q = q_.as<float>()},
                                stream);
}

/// The rest of the layer: `hidden` becomes its output.
void EagleHead::finish_layer(const kernels::BatchView& batch, float* hidden, Stream stream) {
  const int rows = batch.num_rows;
  const kernels::DataType attention_type = backend_.operand_type(attention_output_);
  const kernels::DataType ffn_type = backend_.operand_type(down_);
  backend_.tree_attention({.batch = batch,
                           .q = q_.as<float>(),
                           .num_heads = config_.num_heads,
                           .scale = 1.0f / std::sqrt(static_cast<float>(config_.head_dim)),
                           .kv = pool_.layer(0),
                           .out = attention_.as<float>(),
                           .out_type = attention_type,
                           .first_position = 1},
                          stream);
  backend_.project_residual({.num_rows = rows,
                             .in = attention_.as<float>(),
                             .weight = attention_output_,
                             .x = hidden,
                             .in_type = attention_type},
                            stream);
  backend_.norm_gate_up({.num_rows = rows,
                         .x = hidden,
                         .norm_weight = ffn_norm_,
                         .norm_eps = config_.norm_eps,
                         .gate_up = gate_up_,
                         .out = ffn_.as<float>(),
                         .out_type = ffn_type},
                        stream);
  backend_.project_residual(
      {.num_rows = rows, .in = ffn_.as<float>(), .weight = down_, .x = hidden, .in_type = ffn_type},
      stream);
}

kernels::NormHeadParams EagleHead::head_params(const kernels::BatchView& batch,
                                               const float* hidden) const {
  return {.num_outputs = batch.num_outputs,
          .row_ids = batch.output_rows,
          .x = hidden,
          .norm_weight = output_norm_,
          .norm_eps = config_.norm_eps,
          .head = head_};
}

}  // namespace specdec
