#pragma once

#include "kernels/cuda/sampling/row_sums.cuh"
#include "kernels/cuda/sampling/survivors.cuh"

namespace specdec::kernels::cuda {

/// RowSampler::probabilities of one row by a block of kSelectThreads, for temperature > 0.
__device__ inline void write_probabilities(const SampleRowsParams& params, const RowView& view,
                                           std::uint32_t max_key, const unsigned long long* digits,
                                           float* out, SelectShared& shared) {
  const Scale scale(*view.options, max_key);
  const float* const scores = scores_of(params, view);
  const std::uint32_t* const keys =
      chunk_keys_of(params.scratch.chunk_keys, params.vocab, view.row);
  const Survivors left =
      find_survivors(*view.options, scale, scores, keys, params.vocab, digits, shared);
  Cutoff kept = left.cutoff;
  if (!left.dense) {
    const unsigned long long last = shared.order[left.count - 1];
    kept = {key_of(last), token_of(last)};
  }
  const double lowest = left.dense ? left.lowest : -static_cast<double>(INFINITY);
  const double total = sum_exp(scores, keys, params.vocab, scale, kept, lowest, shared);
  const auto inverse = static_cast<float>(1.0 / total);
  for (int token = static_cast<int>(threadIdx.x); token < params.vocab; token += kSelectThreads) {
    const float score = scores[token];
    const bool keeps = kept.keeps(row_math::order_key(score), token) &&
                       !(lowest > -INFINITY && scale.relative(score) < lowest);
    out[token] = keeps ? row_math::exp_one(scale.in_float(score)) * inverse : 0.0f;
  }
}

}  // namespace specdec::kernels::cuda
