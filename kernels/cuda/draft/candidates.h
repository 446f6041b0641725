#pragma once

#include "kernels/cuda/launch.h"
#include "kernels/cuda/sampling/params.h"

namespace specdec::kernels::cuda {

/// The k best next tokens of each draft row, as RowSampler::coupled_candidates: at temperature 0 by
/// log-probability, else by log-probability + the noise that the target will draw with.
struct DraftCandidatesParams {
  SampleRowsParams rows;     // over the draft's logits; `tokens` and `status` are not written
  std::int32_t k = 1;        // <= kMostCandidates
  float min_confidence = 0;  // no candidates where the best token has less probability; 0: off
  std::int32_t* counts = nullptr;  // out [rows] <= k; 0 where the row has a fault
  std::int32_t* tokens = nullptr;  // out [rows, k] best first
  float* scores = nullptr;         // out [rows, k]
  float* chunk_sums = nullptr;     // scratch [rows, num_chunks(vocab)], where scores are wanted
  /// False: nobody compares candidates (a chain that ends nowhere early); scores are then short of
  /// the row's normaliser, or 0. Takes k = 1 and min_confidence = 0.
  bool scores_wanted = true;
};

cudaError_t draft_candidates(const DraftCandidatesParams& params, const SamplingNeeds& needs,
                             const Launch& to);

}  // namespace specdec::kernels::cuda
