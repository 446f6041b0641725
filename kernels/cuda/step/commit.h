#pragma once

#include "kernels/cuda/launch.h"
#include "kernels/cuda/sampling/accept.h"

namespace specdec::kernels::cuda {

/// The keys or the values of one pool. Strides in elements, the same for every layer.
struct KvHalf {
  void* const* layers = nullptr;  // [num_layers] device pointers, in device memory
  std::int64_t block_stride = 0;
  std::int64_t head_stride = 0;
  std::int64_t dim_stride = 0;
  std::int64_t position_stride = 0;
};

/// One model's pool.
struct KvPoolView {
  std::int32_t num_layers = 0;  // 0: no such model
  std::int32_t num_kv_heads = 0;
  std::int32_t head_dim = 0;
  std::int32_t block_size = 0;     // positions
  std::int32_t element_bytes = 2;  // 2 or 4
  KvHalf keys;
  KvHalf values;
};

/// Moves the KV of accepted nodes from the slots of the tree to the slots of their positions: node
/// n of the target lies in slot root + n, of the draft in draft_slots[row of n].
struct CommitKvParams {
  std::int32_t num_sequences = 0;
  KvPoolView target;
  KvPoolView draft;
  const std::int32_t* block_tables = nullptr;  // [sequences, table_stride]
  std::int32_t table_stride = 0;
  const SequenceState* sequences = nullptr;   // [sequences] before the commit
  const std::int32_t* first_rows = nullptr;   // [sequences]
  const std::int32_t* draft_slots = nullptr;  // [rows] -1: the draft did not run the node
  AcceptedPaths paths;
};

/// All layers, both halves and both pools in one launch.
cudaError_t commit_kv(const CommitKvParams& params, const Launch& to);

/// When a sequence's output ends; what emit.cc asks, but for stop strings and callbacks.
struct SequenceLimits {
  std::int32_t max_output = 0;               // output tokens
  std::int32_t max_length = 0;               // prompt and output: the model's context
  std::int32_t reserved = 0;                 // slots that the sequence may use without the host
  const std::int32_t* end_tokens = nullptr;  // [num_end_tokens] EOS and stop ids
  std::int32_t num_end_tokens = 0;
  std::int32_t last_turn = 0;  // the loop is left after it
};

/// What the host reads of one turn: pinned memory, one entry per sequence and turn.
struct TurnEntry {
  static constexpr int kMostTokens = 61;
  std::int32_t turn = 0;          // turn + 1 once the entry is complete
  std::int16_t num_tokens = 0;    // emitted; < 0: the sequence failed, -RowStatus
  std::int16_t num_drafted = 0;   // nodes below the root that the turn verified
  std::int32_t num_accepted = 0;  // of the emitted tokens, those that were drafted; they come first
  std::int32_t tokens[kMostTokens] = {};
};

/// Features of the target's last pass whose entries an EAGLE head has yet to run: those of the last
/// counts[s] committed tokens of a sequence, in order.
struct PendingFeatures {
  std::int32_t capacity = 0;       // of a sequence: the deepest tree + 1
  std::int32_t* counts = nullptr;  // [sequences] < 0: the sequence keeps none
  std::int32_t* rows = nullptr;    // [sequences, capacity] rows of that pass
};

/// Truncates each path at the end of its sequence, appends its tokens, advances the sequence and
/// publishes the turn.
struct AdvanceParams {
  std::int32_t num_sequences = 0;
  SequenceState* sequences = nullptr;            // [sequences]
  const SequenceLimits* limits = nullptr;        // [sequences]
  std::uint32_t* const* token_counts = nullptr;  // [sequences] null entries: no penalties
  AcceptedPaths paths;
  const std::int32_t* tree_sizes = nullptr;   // [sequences]
  const std::int32_t* draft_slots = nullptr;  // [rows]; null: no draft model
  const std::int32_t* first_rows = nullptr;
  std::int32_t* draft_lengths = nullptr;  // [sequences] draft KV in place
  std::int32_t* history = nullptr;        // [sequences, history_stride] committed tokens
  std::int32_t history_stride = 0;
  std::int32_t slots_per_turn = 0;  // that a turn may need beyond the committed tokens
  TurnEntry* ring = nullptr;        // [turns, ring_stride] in pinned memory
  std::int32_t ring_stride = 0;     // at least num_sequences
  std::int32_t* turn = nullptr;     // [1] turns since the loop was entered
  const volatile std::int32_t* leave =
      nullptr;           // [1] in pinned memory: the host wants the loop back
  bool in_loop = false;  // `condition` is a WHILE node's
  cudaGraphConditionalHandle condition = 0;
  /// Set to the features of the nodes on the paths, node n's in row first_rows[s] + n of the pass.
  /// Without counts: nobody wants them.
  PendingFeatures pending = {};
};

cudaError_t advance(const AdvanceParams& params, const Launch& to);

}  // namespace specdec::kernels::cuda
