#include "engine/model/transformer.h"

#include <cmath>

#include "engine/model/row_buffers.h"
#include "engine/model/token_list.h"

namespace specdec {

TransformerWeights::TransformerWeights(Backend& backend, const ModelSource& source,
                                       std::span<const TokenId> tokens)
    : config(source.config()), head_tokens(tokens.begin(), tokens.end()) {
  const SelectedRows trimmed = select_rows(source.head(), tokens);
  const MatrixSource& head_source = tokens.empty() ? source.head() : trimmed.matrix;
  const bool own_head = !config.tied_head || !tokens.empty();
  std::vector<const MatrixSource*> matrices = {&source.embedding()};
  if (own_head) matrices.push_back(&head_source);
  for (const LayerSource& layer : source.layers())
    for (const MatrixSource* matrix :
         {&layer.qkv, &layer.attention_output, &layer.gate_up, &layer.down})
      matrices.push_back(matrix);

  // One allocation for all: the weights are streamed through once a step, so large pages pay.
  std::size_t bytes = 0;
  for (const MatrixSource* matrix : matrices) bytes += backend.packed_bytes(*matrix);
  storage_ = backend.allocate(bytes, MemoryUse::weights);

  const auto hidden = static_cast<std::size_t>(config.hidden_size);
  norms_ = backend.allocate((2 * source.layers().size() + 1) * hidden * sizeof(float),
                            MemoryUse::weights);
  float* next_norm = norms_.as<float>();
  const auto put_norm = [&](std::span<const float> norm) {
    backend.write(next_norm, norm.data(), norm.size_bytes(), Stream{});
    next_norm += hidden;
    return next_norm - hidden;
  };

  std::byte* next = storage_.as<std::byte>();
  const auto pack = [&](const MatrixSource& matrix) {
    const kernels::PackedMatrix packed = backend.pack(matrix, next);
    next += backend.packed_bytes(matrix);
    if (&matrix != &trimmed.matrix) source.release(matrix);
    return packed;
  };
  for (const LayerSource& from : source.layers()) {
    Layer layer;
    layer.attention_norm = put_norm(from.attention_norm);
    layer.ffn_norm = put_norm(from.ffn_norm);
    layer.qkv = pack(from.qkv);
    layer.attention_output = pack(from.attention_output);
    layer.gate_up = pack(from.gate_up);
    layer.down = pack(from.down);
    layers.push_back(std::move(layer));
  }
  output_norm = put_norm(source.output_norm());
  embedding = pack(source.embedding());
  head = own_head ? pack(head_source) : embedding;
}

void ForwardBatch::clear() {
  tokens_.clear();
  positions_.clear();
  slots_.clear();
  path_offsets_.clear();
  path_slots_.clear();
  output_rows_.clear();
  sequences_.clear();
}

void ForwardBatch::begin_sequence(int context_len, std::span<const BlockId> block_table) {
  sequences_.push_back({.row_begin = num_rows(),
                        .num_rows = 0,
                        .context_len = context_len,
                        .block_table = block_table.data(),
                        .num_blocks = static_cast<int>(block_table.size())});
}

int ForwardBatch::add_row(TokenId token, int position, bool wants_logits) {
  const int row = num_rows();
  tokens_.push_back(token);
  positions_.push_back(position);
  slots_.push_back(position);
  path_offsets_.push_back(-1);
  if (wants_logits) output_rows_.push_back(row);
  ++sequences_.back().num_rows;
  return row;
}

int ForwardBatch::add_row(TokenId token, int position, std::span<const std::int32_t> path_slots,
                          bool wants_logits) {
  const int row = add_row(token, position, wants_logits);
  slots_.back() = path_slots.back();
  path_offsets_.back() = static_cast<std::int32_t>(path_slots_.size());
  path_slots_.insert(path_slots_.end(), path_slots.begin(), path_slots.end());
  return row;
}

int ForwardBatch::add_row(const DraftRow& row) {
  return row.path_slots.empty()
             ? add_row(row.token, row.position, row.wants_logits)
             : add_row(row.token, row.position, row.path_slots, row.wants_logits);
}

void ForwardBatch::assign_rows(const ForwardBatch& whole, std::span<const std::int32_t> rows) {
  clear();
  auto next = rows.begin();
  for (const kernels::SequenceRows& from : whole.sequences_) {
    const int end = from.row_begin + from.num_rows;
    if (next == rows.end() || *next >= end) continue;
    begin_sequence(from.context_len, {from.block_table, static_cast<std::size_t>(from.num_blocks)});
    for (; next != rows.end() && *next < end; ++next) {
      const auto row = static_cast<std::size_t>(*next);
      const int offset = whole.path_offsets_[row];
      const int position = whole.positions_[row];
      if (offset < 0)
        add_row(whole.tokens_[row], position, false);
      else
        add_row(whole.tokens_[row], position,
                std::span(whole.path_slots_)
                    .subspan(static_cast<std::size_t>(offset),
                             static_cast<std::size_t>(position - from.context_len + 1)),
                false);
    }
  }
}

kernels::BatchView ForwardBatch::view() const noexcept {
  return {.num_rows = num_rows(),
          .positions = positions_.data(),
          .slots = slots_.data(),
          .path_offsets = path_offsets_.data(),
          .path_slots = path_slots_.data(),
          .sequences = sequences_,
          .tokens = tokens_.data(),
          .num_outputs = num_outputs(),
          .output_rows = output_rows_.data()};
}

Transformer::Transformer(Backend& backend, TransformerWeights weights, KvPoolStorage pool,
                         int max_rows)
    : backend_(backend),
      weights_(std::move(weights)),
      pool_(std::move(pool)),
      max_rows_(max_rows),
      rope_(backend, weights_.config, pool_.capacity()) {
  const ModelConfig& config = weights_.config;
  const auto rows_of = [&](int width) { return allocate_rows(backend, max_rows, width); };
  x_ = rows_of(config.hidden_size);
  q_ = rows_of(config.num_heads * config.head_dim);
  attention_ = rows_of(config.num_heads * config.head_dim);
  ffn_ = rows_of(config.ffn_size);
}

kernels::BatchView Transformer::stage(const ForwardBatch& batch, Stream stream) {
  const kernels::BatchView view = backend_.stage(batch.view(), stream);
  rope_.fill(batch.positions(), stream);
  return view;
}

std::span<const float> Transformer::forward(const ForwardBatch& batch, Stream stream,
                                            HiddenStateTap* tap) {
  return read_rows(backend_, forward_on_device(batch, stream, tap), stream);
}

std::span<const float> Transformer::forward_on_device(const ForwardBatch& batch, Stream stream,
                                                      HiddenStateTap* tap) {
  if (graphs_ != nullptr) {
    rope_.fill(batch.positions(), stream);
    if (const auto found = graphs_->forward(batch, stream, tap)) return *found;
  }
  const kernels::BatchView view = stage(batch, stream);
  embed(view, stream);
  run_layers(view, 0, weights_.config.num_layers, stream, tap);
  return logits(view, stream);
}

std::span<const float> Transformer::forward_early(const ForwardBatch& batch, int num_layers,
                                                  Stream stream) {
  const kernels::BatchView view = stage(batch, stream);
  embed(view, stream);
  run_layers(view, 0, num_layers, stream, nullptr);
  return read_rows(backend_, logits(view, stream), stream);
}

std::span<const float> Transformer::forward_late(const ForwardBatch& batch, int first_layer,
                                                 const float* states,
                                                 std::span<const std::int32_t> state_rows,
                                                 Stream stream) {
  // Behind the copy that stages the batch, as embed_rows is: nothing of the pass starts before it.
  const kernels::BatchView view = stage(batch, stream);
  backend_.copy_rows({.num_rows = view.num_rows,
                      .cols = weights_.config.hidden_size,
                      .source = states,
                      .source_rows = state_rows.data(),
                      .destination = x_.as<float>()},
                     stream);
  run_layers(view, first_layer, weights_.config.num_layers, stream, nullptr);
  return logits(view, stream);
}

std::span<const float> Transformer::logits(const kernels::BatchView& view, Stream stream) {
  if (view.num_outputs == 0) return {};
  return make_logits(backend_, head_params(view), logits_, stream);
}

void Transformer::reserve(int outputs, Stream stream) {
  rope_.fill_all(stream);
  const std::size_t count =
      static_cast<std::size_t>(outputs) * static_cast<std::size_t>(weights_.head.rows);
  enqueued_logits_ = backend_.allocate(count * sizeof(float), MemoryUse::scratch);
}

const float* Transformer::enqueue(const kernels::BatchView& batch, Stream stream,
                                  HiddenStateTap* tap) {
  enqueue_to(enqueued_logits_.as<float>(), batch, stream, tap);
  return enqueued_logits_.as<float>();
}

void Transformer::enqueue_to(float* logits, const kernels::BatchView& batch, Stream stream,
                             HiddenStateTap* tap) {
  embed(batch, stream);
  run_layers(batch, 0, weights_.config.num_layers, stream, tap);
  kernels::NormHeadParams params = head_params(batch);
  params.logits = logits;
  backend_.norm_head(params, stream);
}

kernels::NormHeadParams Transformer::head_params(const kernels::BatchView& batch) const {
  return {.num_outputs = batch.num_outputs,
          .row_ids = batch.output_rows,
          .x = x_.as<float>(),
          .norm_weight = weights_.output_norm,
          .norm_eps = weights_.config.norm_eps,
          .head = weights_.head};
}

void Transformer::embed(const kernels::BatchView& view, Stream stream) {
  backend_.embed_rows({.num_rows = view.num_rows,
                       .tokens = view.tokens,
                       .table = weights_.embedding,
                       .out = x_.as<float>()},
                      stream);
}

void Transformer::run_layers(const kernels::BatchView& view, int begin, int end, Stream stream,
                             HiddenStateTap* tap) {
  const ModelConfig& config = weights_.config;
  const int rows = view.num_rows;
  float* const x = x_.as<float>();
  float* const q = q_.as<float>();
  float* const attention = attention_.as<float>();
  float* const ffn = ffn_.as<float>();

  for (int i = begin; i < end; ++i) {
    if (tap != nullptr) tap->observe(i, x, rows, stream);
    const TransformerWeights::Layer& layer = weights_.layers[static_cast<std::size_t>(i)];
    backend_.norm_qkv_rope_append({.batch = view,
                                   .x = x,
                                   .norm_weight = layer.attention_norm,
                                   .norm_eps = config.norm_eps,
                                   .qkv = layer.qkv,
                                   .num_heads = config.num_heads,
                                   .rope_cos = rope_.cosines(),
                                   .rope_sin = rope_.sines(),
                                   .kv = pool_.layer(i),
                                   .q = q},
                                  stream);
    const kernels::DataType attention_type = backend_.operand_type(layer.attention_output);
    const kernels::DataType ffn_type = backend_.operand_type(layer.down);
    backend_.tree_attention({.batch = view,
                             .q = q,
                             .num_heads = config.num_heads,
                             .scale = 1.0f / std::sqrt(static_cast<float>(config.head_dim)),
                             .kv = pool_.layer(i),
                             .out = attention,
                             .out_type = attention_type},
                            stream);
    backend_.project_residual({.num_rows = rows,
                               .in = attention,
                               .weight = layer.attention_output,
                               .x = x,
                               .in_type = attention_type},
                              stream);
    backend_.norm_gate_up({.num_rows = rows,
                           .x = x,
                           .norm_weight = layer.ffn_norm,
                           .norm_eps = config.norm_eps,
                           .gate_up = layer.gate_up,
                           .out = ffn,
                           .out_type = ffn_type},
                          stream);
    backend_.project_residual(
        {.num_rows = rows, .in = ffn, .weight = layer.down, .x = x, .in_type = ffn_type}, stream);
  }
  if (tap != nullptr) tap->observe(end, x, rows, stream);
}

}  // namespace specdec
