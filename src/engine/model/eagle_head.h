#pragma once

#include <memory>
#include <span>
#include <utility>
#include <vector>

#include "engine/backend/backend.h"
#include "engine/backend/kv_pool.h"
#include "engine/model/eagle_source.h"
#include "engine/model/pass_graphs.h"
#include "engine/model/rope_table.h"
#include "engine/model/transformer.h"

namespace specdec {

/// An EAGLE-3 head on a backend: one decoder layer that reads the target's features.
///
/// An *entry* of its KV joins the feature of position e - 1 with the embedding of token e and lies
/// in slot e: so it depends on tokens 0..e alone, as every block of the cache must. There is no
/// entry 0. In the papers' numbering it is index e - 1, whose RoPE position it has.
class EagleHead final : public HiddenStateTap {
 public:
  /// `target_embedding` is used where the head has none of its own and must outlive it. `max_rows`:
  /// the most rows of a pass, the target's or its own.
  EagleHead(Backend& backend, const EagleSource& source,
            const kernels::PackedMatrix& target_embedding, KvPoolStorage pool, int max_rows);

  /// Projects the target's hidden states as they go by: features() then has a row for each row of
  /// the target's pass.
  void observe(int layer, const float* x, int num_rows, Stream stream) override;
  float* features() noexcept { return features_.as<float>(); }  // [rows, hidden]

  /// [rows, hidden] before forward(): the feature, or the head's own output, that each row joins
  /// with its token. Afterwards: the head's output at each row, before the final norm.
  float* hidden() noexcept { return x_.as<float>(); }
  /// Runs entries: appends their K and V and returns logits [outputs, draft vocabulary] of the rows
  /// that asked for them. Where none did, that is all: K and V of one layer need no attention.
  std::span<const float> forward(const ForwardBatch& batch, Stream stream);

  /// Makes room for `outputs` logits and every angle, so that enqueue() neither allocates nor
  /// writes.
  void reserve(int outputs, Stream stream);
  /// What the rows of a pass join with their tokens.
  struct States {
    const float* states = nullptr;       // [.., hidden]
    const std::int32_t* rows = nullptr;  // [rows] where the batch lies; null: 0, 1, ...
  };
  /// forward() of a batch that the backend's memory holds already, from states to outputs `hidden`
  /// [rows, hidden] of the caller's. Returns where logits [batch.num_outputs, draft vocabulary]
  /// will lie.
  const float* enqueue(const kernels::BatchView& batch, const States& states, float* hidden,
                       Stream stream);
  /// ... and that leaves them at `logits`; angles are the caller's to fill in.
  void enqueue_to(float* logits, const kernels::BatchView& batch, const States& states,
                  float* hidden, Stream stream);

  /// From now on forward() goes through `graphs` where they take a batch.
  void set_graphs(std::unique_ptr<PassGraphs> graphs) { graphs_ = std::move(graphs); }
  /// Passes that ran as a graph of the device's so far.
  std::int64_t num_graph_passes() const noexcept { return graphs_ ? graphs_->num_runs() : 0; }

  int hidden_size() const noexcept { return config_.hidden_size; }
  int vocab_size() const noexcept { return config_.vocab_size; }  // the target's
  int draft_vocab_size() const noexcept { return head_.rows; }
  int max_position() const noexcept { return config_.max_position; }
  int max_rows() const noexcept { return max_rows_; }
  /// [draft vocabulary] the target's tokens; empty: the same numbers.
  std::span<const TokenId> target_tokens() const noexcept { return target_tokens_; }
  const KvPoolStorage& pool() const noexcept { return pool_; }

 private:
  void append_entries(const kernels::BatchView& batch, const States& states, float* hidden,
                      bool shifted, Stream stream);
  void finish_layer(const kernels::BatchView& batch, float* hidden, Stream stream);
  kernels::NormHeadParams head_params(const kernels::BatchView& batch, const float* hidden) const;

  Backend& backend_;
  ModelConfig config_;
  bool norm_before_residual_;
  std::vector<int> feature_layers_;
  std::vector<TokenId> target_tokens_;
  KvPoolStorage pool_;
  int max_rows_;
  RopeTable rope_;

  DeviceBuffer weights_;
  kernels::PackedMatrix embedding_;
  std::vector<kernels::PackedMatrix> fc_;  // [feature layers]
  kernels::PackedMatrix qkv_;
  kernels::PackedMatrix attention_output_;
  kernels::PackedMatrix gate_up_;
  kernels::PackedMatrix down_;
  kernels::PackedMatrix head_;
  DeviceBuffer norms_;
  const float* input_norm_ = nullptr;  // [hidden], like those below
  const float* hidden_norm_ = nullptr;
  const float* ffn_norm_ = nullptr;
  const float* output_norm_ = nullptr;

  DeviceBuffer features_;   // [max_rows, hidden]
  DeviceBuffer x_;          // [max_rows, hidden]
  DeviceBuffer joined_;     // [max_rows, 2 * hidden]
  DeviceBuffer q_;          // [max_rows, heads * head_dim]
  DeviceBuffer attention_;  // [max_rows, heads * head_dim]
  DeviceBuffer ffn_;        // [max_rows, ffn]
  DeviceBuffer logits_;     // [most outputs so far, draft vocabulary]
  DeviceBuffer enqueued_logits_;
  std::unique_ptr<PassGraphs> graphs_;  // null: every pass is launched op by op
};

}  // namespace specdec
