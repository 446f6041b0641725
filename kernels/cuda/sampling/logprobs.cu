#include "kernels/cuda/device.cuh"
#include "kernels/cuda/sampling/accept.h"
#include "kernels/cuda/sampling/row_sums.cuh"
#include "kernels/cuda/sampling/survivors.cuh"

namespace specdec::kernels::cuda {
namespace {

// grid: [capacity, sequences]; a block serves one emitted token: the row's normaliser, the token's
// log-probability and the row's best, all of the raw logits.
__global__ void __launch_bounds__(kSelectThreads) fill_logprobs(PathLogprobsParams params) {
  wait_for_previous();
  let_next_start();
  __shared__ SelectShared shared;
  const int place = static_cast<int>(blockIdx.x);
  const int sequence = static_cast<int>(blockIdx.y);
  const int wanted = min(params.rows.options[sequence].logprobs, params.most);
  if (place >= params.paths.lengths[sequence] || wanted < 0) return;
  const std::size_t at = static_cast<std::size_t>(sequence) * params.paths.capacity + place;
  const std::size_t turn = params.turn == nullptr ? 0 : static_cast<std::size_t>(*params.turn);
  const std::size_t out = turn * params.turn_entries + at;
  const int row = params.rows.tree.first_rows[sequence] + params.paths.nodes[at];
  const RowView view = view_row(params.rows, row);
  const int vocab = params.rows.vocab;
  const int chunks = num_chunks(vocab);
  const float* const logits = raw_row(params.rows, row);
  const std::uint32_t* const keys = chunk_keys_of(
      view.edited ? params.rows.scratch.raw_chunk_keys : params.rows.scratch.chunk_keys, vocab,
      row);

  RowSampling unscaled;
  unscaled.inverse_temperature = 1;
  const Scale scale(unscaled, best_chunk_key(keys, chunks, shared));
  const double normaliser = fixed_log(sum_exp(logits, keys, vocab, scale, {}, -INFINITY, shared));
  if (threadIdx.x == 0) {
    params.logprobs[out] =
        static_cast<float>(scale.relative(logits[params.paths.tokens[at]]) - normaliser);
    __threadfence_system();
  }
  if (wanted == 0) return;

  const int most = min(wanted, vocab);
  Cutoff cutoff;
  if (most <= chunks) cutoff.key = max(kLowestKey, kth_chunk_key(keys, chunks, most));
  int count = gather(logits, keys, vocab, cutoff, shared);
  if (count > kMostSelected) {
    cutoff = radix_select(
        logits, keys, vocab, cutoff, static_cast<unsigned long long>(most),
        [](float) { return 1ull; }, shared);
    count = gather(logits, keys, vocab, cutoff, shared);
  }
  sort_gathered(count, shared);
  for (int i = static_cast<int>(threadIdx.x); i < params.most; i += kSelectThreads) {
    const bool there = i < min(count, most);
    const std::size_t entry = out * params.most + i;
    params.top_tokens[entry] = there ? token_of(shared.order[i]) : -1;
    params.top_logprobs[entry] =
        there ? static_cast<float>(scale.relative(row_math::float_of_key(key_of(shared.order[i]))) -
                                   normaliser)
              : 0.0f;
  }
  __threadfence_system();
}

}  // namespace

cudaError_t path_logprobs(const PathLogprobsParams& params, const Launch& to) {
  const dim3 grid(static_cast<unsigned>(params.paths.capacity),
                  static_cast<unsigned>(params.rows.tree.num_sequences));
  return launch(to, &fill_logprobs, grid, kSelectThreads, 0, params);
}

}  // namespace specdec::kernels::cuda
