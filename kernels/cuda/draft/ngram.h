#pragma once

#include "kernels/cuda/launch.h"
#include "kernels/cuda/sampling/params.h"
#include "kernels/cuda/step/commit.h"

namespace specdec::kernels::cuda {

/// A batch's trees where a drafter writes them; TreeRows is what the others read of it. Each
/// sequence has `rows_per_sequence` rows from sequence * rows_per_sequence on.
struct TreeBuffers {
  std::int32_t num_sequences = 0;
  std::int32_t rows_per_sequence = 0;
  std::int32_t* first_rows = nullptr;       // [sequences]
  std::int32_t* sizes = nullptr;            // [sequences]
  std::int32_t* sequence_of_row = nullptr;  // [rows]
  std::int32_t* tokens = nullptr;           // [rows]
  std::int32_t* parents = nullptr;          // [rows]
  std::int32_t* depths = nullptr;           // [rows]

  TreeRows rows() const {
    return {.num_sequences = num_sequences,
            .num_rows = num_sequences * rows_per_sequence,
            .first_rows = first_rows,
            .sizes = sizes,
            .sequence_of_row = sequence_of_row,
            .tokens = tokens,
            .parents = parents,
            .depths = depths};
  }
};

/// Prompt lookup (src/draft/ngram_drafter.h): what followed the latest earlier occurrence of the
/// longest suffix of min_match..max_match tokens, as a chain.
struct NgramParams {
  TreeBuffers trees;
  const SequenceState* sequences = nullptr;  // [sequences]
  const std::int32_t* history = nullptr;     // [sequences, history_stride] committed tokens
  std::int32_t history_stride = 0;
  std::int32_t min_match = 1;
  std::int32_t max_match = 1;
  const std::int32_t* max_tokens = nullptr;  // [sequences] longest draft; < 0: sequence not there
  /// [sequences] a draft and the token behind it end where the sequence does, as those of
  /// DraftStage::limits(); null: wherever.
  const SequenceLimits* limits = nullptr;
};

cudaError_t propose_ngram(const NgramParams& params, const Launch& to);

}  // namespace specdec::kernels::cuda
