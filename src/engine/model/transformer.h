#pragma once

#include <span>
#include <vector>

#include "engine/backend/backend.h"
#include "engine/backend/kv_pool.h"
#include "engine/model/model_config.h"
#include "engine/model/weights.h"

namespace specdec {

/// One model's weights in the backend's layout.
class TransformerWeights {
 public:
  struct Layer {
    const float* attention_norm = nullptr;  // [hidden], like ffn_norm
    kernels::PackedMatrix qkv;
    kernels::PackedMatrix attention_output;
    const float* ffn_norm = nullptr;
    kernels::PackedMatrix gate_up;
    kernels::PackedMatrix down;
  };

  /// Packs every matrix and lets go of the file's pages as it goes.
  TransformerWeights(Backend& backend, const ModelSource& source);

  ModelConfig config;
  kernels::PackedMatrix embedding;
  kernels::PackedMatrix head;
  std::vector<Layer> layers;
  const float* output_norm = nullptr;

 private:
  DeviceBuffer storage_;
  DeviceBuffer norms_;
};

/// The rows of one forward pass, over several sequences. Built on the host.
class ForwardBatch {
 public:
  void clear();
  /// Starts the rows of a sequence. `block_table` must outlive the pass.
  void begin_sequence(int context_len, std::span<const BlockId> block_table);
  /// Adds a row whose path lies at slot = position. Returns its row index.
  int add_row(TokenId token, int position, bool wants_logits);
  /// Adds a row whose path from context_len on lies in `path_slots`; the last is the row's own
  /// slot.
  int add_row(TokenId token, int position, std::span<const std::int32_t> path_slots,
              bool wants_logits);

  int num_rows() const noexcept { return static_cast<int>(tokens_.size()); }
  int num_outputs() const noexcept { return static_cast<int>(output_rows_.size()); }

 private:
  friend class Transformer;
  std::vector<TokenId> tokens_;
  std::vector<std::int32_t> positions_;
  std::vector<std::int32_t> slots_;
  std::vector<std::int32_t> path_offsets_;
  std::vector<std::int32_t> path_slots_;
  std::vector<std::int32_t> output_rows_;
  std::vector<kernels::SequenceRows> sequences_;
};

/// A Llama forward over any ragged batch: prefill, decoding and tree verification are the same
/// call.
class Transformer {
 public:
  /// `max_rows`: the most rows that one pass may have.
  Transformer(Backend& backend, TransformerWeights weights, KvPoolStorage pool, int max_rows);

  /// Runs the batch, appends its K and V to the cache and returns logits [num_outputs, vocab] of
  /// the rows that asked for them, in row order; valid until the next call.
  std::span<const float> forward(const ForwardBatch& batch, Stream stream);

  const ModelConfig& config() const noexcept { return weights_.config; }
  const KvPoolStorage& pool() const noexcept { return pool_; }
  int max_rows() const noexcept { return max_rows_; }

 private:
  void fill_rope(std::span<const std::int32_t> positions, Stream stream);

  Backend& backend_;
  TransformerWeights weights_;
  KvPoolStorage pool_;
  int max_rows_;
  std::vector<double> inverse_frequencies_;
  DeviceBuffer rope_cos_;  // [positions, head_dim / 2]
  DeviceBuffer rope_sin_;
  int rope_positions_ = 0;  // as many as a sequence may have
  int rope_filled_ = 0;     // the first ones are there
  DeviceBuffer x_;          // [max_rows, hidden]
  DeviceBuffer q_;          // [max_rows, heads * head_dim]
  DeviceBuffer attention_;  // [max_rows, heads * head_dim]
  DeviceBuffer ffn_;        // [max_rows, ffn]
  DeviceBuffer logits_;     // [most outputs so far, vocab]
};

}  // namespace specdec
