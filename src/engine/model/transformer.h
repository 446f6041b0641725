#pragma once

#include <memory>
#include <span>
#include <vector>

#include "draft/draft_model.h"
#include "engine/backend/backend.h"
#include "engine/backend/kv_pool.h"
#include "engine/model/model_config.h"
#include "engine/model/pass_graphs.h"
#include "engine/model/rope_table.h"
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

  /// Packs every matrix and lets go of the file's pages as it goes. With `tokens` (rising) the head
  /// has rows for them alone.
  TransformerWeights(Backend& backend, const ModelSource& source,
                     std::span<const TokenId> tokens = {});

  ModelConfig config;
  kernels::PackedMatrix embedding;
  kernels::PackedMatrix head;
  std::vector<TokenId> head_tokens;  // [head.rows] whose logits they give; empty: 0, 1, ...
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

  int add_row(const DraftRow& row);
  /// Becomes those rows of `whole` (rising), none of which asks for logits. Its block tables must
  /// outlive the pass.
  void assign_rows(const ForwardBatch& whole, std::span<const std::int32_t> rows);

  int num_rows() const noexcept { return static_cast<int>(tokens_.size()); }
  int num_outputs() const noexcept { return static_cast<int>(output_rows_.size()); }

  /// The batch in host memory, for Backend::stage; valid until the batch changes.
  kernels::BatchView view() const noexcept;
  std::span<const std::int32_t> positions() const noexcept { return positions_; }
  std::span<const std::int32_t> output_rows() const noexcept { return output_rows_; }

 private:
  std::vector<TokenId> tokens_;
  std::vector<std::int32_t> positions_;
  std::vector<std::int32_t> slots_;
  std::vector<std::int32_t> path_offsets_;
  std::vector<std::int32_t> path_slots_;
  std::vector<std::int32_t> output_rows_;
  std::vector<kernels::SequenceRows> sequences_;
};

/// Sees the residual stream of a pass as it goes by, without a pass of its own.
class HiddenStateTap {
 public:
  virtual ~HiddenStateTap() = default;

  /// x [num_rows, hidden] is the input of `layer`; after the last one, its output, under the number
  /// that a further layer would have. Backend memory, to be read by operations on `stream`. Where
  /// passes are graphs it is called when one is captured, and holds for all later ones: what it
  /// enqueues runs with each of them, for rows that may be padding in part.
  virtual void observe(int layer, const float* x, int num_rows, Stream stream) = 0;
};

/// A Llama forward over any ragged batch: prefill, decoding and tree verification are the same
/// call.
class Transformer {
 public:
  /// `max_rows`: the most rows that one pass may have.
  Transformer(Backend& backend, TransformerWeights weights, KvPoolStorage pool, int max_rows);

  /// Runs the batch, appends its K and V to the cache and returns logits [num_outputs, head rows]
  /// of the rows that asked for them, in row order; valid until the next call. `tap` may be null.
  std::span<const float> forward(const ForwardBatch& batch, Stream stream,
                                 HiddenStateTap* tap = nullptr);
  /// The same, but the logits stay in the backend's memory, where operations on `stream` find them.
  std::span<const float> forward_on_device(const ForwardBatch& batch, Stream stream,
                                           HiddenStateTap* tap = nullptr);
  /// The same through the first `num_layers` layers alone, then the final norm and the head: what
  /// the model would say if it ended there. K and V of those layers, at the rows that both run,
  /// have the bits of forward().
  std::span<const float> forward_early(const ForwardBatch& batch, int num_layers, Stream stream);
  /// What follows forward_early(): forward() from `first_layer` on. `states` [*, hidden], backend
  /// memory, hold what hidden() was for each row of the batch behind the layers before, in its row
  /// state_rows[row]; their K and V of those layers are in place, at the slots that the batch
  /// names. The logits stay there too; all else has the bits of forward().
  std::span<const float> forward_late(const ForwardBatch& batch, int first_layer,
                                      const float* states, std::span<const std::int32_t> state_rows,
                                      Stream stream);
  /// The residual stream that the latest pass ended with: [its rows, hidden], backend memory.
  const float* hidden() const noexcept { return x_.as<float>(); }

  /// The same without the host: `batch` is what Backend::stage would make of one, and the logits
  /// are left in the backend's memory. Once reserve() has made room it neither allocates nor
  /// synchronises, so that a graph can be captured of it.
  const float* enqueue(const kernels::BatchView& batch, Stream stream,
                       HiddenStateTap* tap = nullptr);
  /// ... and leaves them at `logits` [outputs, head rows]; angles are the caller's to fill in.
  void enqueue_to(float* logits, const kernels::BatchView& batch, Stream stream,
                  HiddenStateTap* tap);
  /// Makes room for the logits that enqueue() leaves, of `outputs` rows at most, and fills in the
  /// angles of every position. Once, before the first enqueue().
  void reserve(int outputs, Stream stream);

  /// From now on passes through all layers go through `graphs` where it takes them.
  void set_graphs(std::unique_ptr<PassGraphs> graphs) { graphs_ = std::move(graphs); }
  /// Passes that ran as a graph of the device's so far.
  std::int64_t num_graph_passes() const noexcept { return graphs_ ? graphs_->num_runs() : 0; }

  const ModelConfig& config() const noexcept { return weights_.config; }
  int num_logits() const noexcept { return weights_.head.rows; }  // of a row
  const KvPoolStorage& pool() const noexcept { return pool_; }
  const kernels::PackedMatrix& embedding() const noexcept { return weights_.embedding; }
  /// Whose logits forward() returns; empty: those of the whole vocabulary.
  std::span<const TokenId> head_tokens() const noexcept { return weights_.head_tokens; }
  int max_rows() const noexcept { return max_rows_; }

 private:
  kernels::BatchView stage(const ForwardBatch& batch, Stream stream);
  void embed(const kernels::BatchView& view, Stream stream);
  void run_layers(const kernels::BatchView& view, int begin, int end, Stream stream,
                  HiddenStateTap* tap);
  std::span<const float> logits(const kernels::BatchView& view, Stream stream);
  kernels::NormHeadParams head_params(const kernels::BatchView& batch) const;

  Backend& backend_;
  TransformerWeights weights_;
  KvPoolStorage pool_;
  int max_rows_;
  RopeTable rope_;
  DeviceBuffer x_;                      // [max_rows, hidden]
  DeviceBuffer q_;                      // [max_rows, heads * head_dim]
  DeviceBuffer attention_;              // [max_rows, heads * head_dim]
  DeviceBuffer ffn_;                    // [max_rows, ffn]
  DeviceBuffer logits_;                 // [most outputs so far, head rows]
  DeviceBuffer enqueued_logits_;        // [outputs that reserve() was told, head rows]
  std::unique_ptr<PassGraphs> graphs_;  // null: every pass is launched op by op
};

}  // namespace specdec
