#pragma once

#include "kernels/cuda/batch.h"
#include "kernels/cuda/draft/ngram.h"
#include "kernels/cuda/launch.h"
#include "kernels/cuda/sampling/params.h"

namespace specdec::kernels::cuda {

/// Trees that a draft model grows, level by level (src/draft/model_drafter.h): expand the k best
/// nodes of a level by k children each, then keep the best of all. Node 0 is the root; parents come
/// before children. Row sequence * topk + i of a draft pass runs frontier node i.
struct DraftGrowth {
  std::int32_t num_sequences = 0;
  std::int32_t topk = 1;
  std::int32_t capacity = 0;               // nodes of one tree, growth_capacity()
  std::int32_t* first_nodes = nullptr;     // [sequences] sequence * capacity
  std::int32_t* counts = nullptr;          // [sequences] nodes so far
  std::int32_t* frontier_sizes = nullptr;  // [sequences]
  std::int32_t* next_slots = nullptr;      // [sequences]
  std::int32_t* tokens = nullptr;          // [sequences, capacity]
  std::int32_t* parents = nullptr;         // [sequences, capacity]
  std::int32_t* depths = nullptr;          // [sequences, capacity]
  std::int32_t* slots = nullptr;  // [sequences, capacity] draft KV; -1: the draft did not run it
  float* survival = nullptr;      // [sequences, capacity] estimated log-probability
  std::int32_t* sequence_of_row = nullptr;  // [sequences * topk] -1: nothing in this row
  std::int32_t* node_of_row = nullptr;      // [sequences * topk]

  /// The rows of the level that the draft has just run, as draft_candidates() reads them.
  TreeRows rows() const {
    return {.num_sequences = num_sequences,
            .num_rows = num_sequences * topk,
            .first_rows = first_nodes,
            .sizes = counts,
            .sequence_of_row = sequence_of_row,
            .node_of_row = node_of_row,
            .tokens = tokens,
            .parents = parents,
            .depths = depths};
  }
};

constexpr int growth_capacity(int topk, int max_depth) {
  return 1 + (max_depth > 0 ? topk + (max_depth - 1) * topk * topk : 0);
}

struct GrowParams {
  DraftGrowth growth;
  const SequenceState* sequences = nullptr;  // [sequences]
  const RowSampling* options = nullptr;      // [sequences]
  const std::int32_t* history = nullptr;     // [sequences, history_stride] committed tokens
  std::int32_t history_stride = 0;
  const std::int32_t* max_depths = nullptr;  // [sequences] < 0: sequence not there
  const std::int32_t* max_nodes = nullptr;   // [sequences] below the root
  // Of the level that the draft has just run; scores as draft_candidates() leaves them.
  const std::int32_t* candidate_counts = nullptr;  // [rows]
  const std::int32_t* candidate_tokens = nullptr;  // [rows, topk]
  const float* candidate_scores = nullptr;         // [rows, topk]
};

/// Where the draft's rows of a level go: `topk` a sequence, its frontier. What never changes
/// (row_sequences, sequence_begins, output_rows, block_tables) is there already.
struct LevelRows {
  DeviceBatch batch;
  std::int32_t path_stride = 0;  // places of path_slots a row: the deepest tree + 1
  /// For a head whose rows go on from its own outputs: set to the row of the pass before that each
  /// row's parent had; the root had the last of `root_rows` rows a sequence. From the second level
  /// on, `batch` has been filled for the level before. Null: not wanted.
  std::int32_t* sources = nullptr;  // [sequences * topk]
  std::int32_t root_rows = 0;
};
/// Where the target's rows go: row i of the trees is row i of the batch, node n of a sequence takes
/// slot root + n.
struct TargetRows {
  DeviceBatch batch;
  std::int32_t path_stride = 0;
};

/// Adds the children of level `depth`'s frontier, chooses the next one and fills its rows.
cudaError_t grow_level(const GrowParams& params, int depth, const LevelRows& next,
                       const Launch& to);
/// After the last level: adds its children, cuts each tree to its best nodes, hands it over and
/// fills the target's rows; draft_slots [rows of `trees`].
struct GrownTrees {
  TreeBuffers trees;
  std::int32_t* draft_slots = nullptr;  // [rows]
  TargetRows target;
};
cudaError_t finish_growth(const GrowParams& params, int depth, const GrownTrees& grown,
                          const Launch& to);

}  // namespace specdec::kernels::cuda
