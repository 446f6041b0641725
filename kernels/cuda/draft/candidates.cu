#include "kernels/cuda/draft/candidates.h"

#include "kernels/cuda/device.cuh"
#include "kernels/cuda/sampling/row_sums.cuh"
#include "kernels/cuda/sampling/scan.cuh"
#include "kernels/cuda/sampling/stages.h"
#include "kernels/cuda/sampling/survivors.cuh"

namespace specdec::kernels::cuda {
namespace {

// What the row's winners become: scores less the log of what the kept tokens add up to.
__device__ void write_candidates(const DraftCandidatesParams& params, int row, const Noisy* winners,
                                 int found, double total) {
  const double log_total = fixed_log(total);
  const bool sure =
      !(params.min_confidence > 0) || !(static_cast<float>(1.0 / total) < params.min_confidence);
  const int count = sure ? found : 0;
  if (threadIdx.x == 0) params.counts[row] = count;
  for (int i = static_cast<int>(threadIdx.x); i < count; i += kSelectThreads) {
    params.tokens[row * params.k + i] = winners[i].token;
    params.scores[row * params.k + i] = static_cast<float>(winners[i].score - log_total);
  }
}

__device__ Scale draft_scale(const RowSampling& options, std::uint32_t max_key) {
  RowSampling scaled = options;
  if (scaled.inverse_temperature <= 0) scaled.inverse_temperature = 1;
  return {scaled, max_key};
}

// Whether the row's normaliser takes in every token, whatever the rest of the row says.
__device__ bool sums_all(const RowSampling& options, int vocab) {
  return !(options.inverse_temperature > 0) ||
         (!has_top_k(options, vocab) && options.top_p >= 1 && !(options.min_p > 0));
}

// grid: [slices, rows]; half a warp a chunk: what row_math::sum_exp adds up for it, where no filter
// has to be waited for. One block a row takes some 30 us for all chunks of a large vocabulary.
__global__ void __launch_bounds__(kScanThreads) sum_chunks(DraftCandidatesParams params) {
  static_assert(kScanThreads == kSliceChunks * row_math::kSumLanes);
  wait_for_previous();
  let_next_start();
  const SampleRowsParams& rows = params.rows;
  const RowView view = view_row(rows, static_cast<int>(blockIdx.y));
  if (!view.there() || !sums_all(*view.options, rows.vocab)) return;
  const RowState& state = rows.scratch.states[view.row];
  if (status_of(state, view.edited) != RowStatus::ok) return;
  const int lane = static_cast<int>(threadIdx.x) % row_math::kSumLanes;
  const int chunk = static_cast<int>(blockIdx.x) * kSliceChunks +
                    static_cast<int>(threadIdx.x) / row_math::kSumLanes;
  const float sum =
      sum_chunk(scores_of(rows, view), rows.vocab, draft_scale(*view.options, key_of(state.best)),
                Cutoff{}, -INFINITY, chunk, lane);
  const int chunks = num_chunks(rows.vocab);
  if (lane == 0 && chunk < chunks)
    params.chunk_sums[static_cast<std::size_t>(view.row) * static_cast<std::size_t>(chunks) +
                      static_cast<std::size_t>(chunk)] = sum;
}

// The row's normaliser, of what `kept` and `lowest` leave. Overwrites shared.order.
__device__ double normaliser(const DraftCandidatesParams& params, const RowView& view,
                             const Scale& scale, const Cutoff& kept, double lowest,
                             SelectShared& shared) {
  const SampleRowsParams& rows = params.rows;
  const int chunks = num_chunks(rows.vocab);
  if (!sums_all(*view.options, rows.vocab))
    return sum_exp(scores_of(rows, view),
                   chunk_keys_of(rows.scratch.chunk_keys, rows.vocab, view.row), rows.vocab, scale,
                   kept, lowest, shared);
  const float* const sums =
      params.chunk_sums + static_cast<std::size_t>(view.row) * static_cast<std::size_t>(chunks);
  return add_chunks(
      chunks,
      [&](int begin, int end, float* to) {
        for (int i = begin + static_cast<int>(threadIdx.x); i < end; i += kSelectThreads)
          to[i - begin] = sums[i];
      },
      shared);
}

// grid: [rows]; a block picks the candidates of a row whose survivors it can hold.
__global__ void __launch_bounds__(kSelectThreads)
    pick_candidates(DraftCandidatesParams params, bool dense_follows) {
  wait_for_previous();
  let_next_start();
  __shared__ SelectShared shared;
  __shared__ Noisy winners[kMostCandidates];
  const SampleRowsParams& rows = params.rows;
  const int row = static_cast<int>(blockIdx.x);
  const RowView view = view_row(rows, row);
  if (!view.there()) {
    if (threadIdx.x == 0) params.counts[row] = 0;
    return;
  }
  RowState& state = rows.scratch.states[row];
  const RowState seen = state;
  __syncthreads();
  const RowSampling& options = *view.options;
  const bool nucleus = is_nucleus(options, rows.vocab);
  unsigned long long* const digits =
      rows.scratch.digits + static_cast<std::size_t>(row) * kDigitBins;
  bool dense = false;
  if (threadIdx.x == 0) params.counts[row] = 0;
  if (status_of(seen, view.edited) == RowStatus::ok) {
    const Scale scale = draft_scale(options, key_of(seen.best));
    const float* const scores = scores_of(rows, view);
    const std::uint32_t* const keys = chunk_keys_of(rows.scratch.chunk_keys, rows.vocab, row);
    Cutoff kept;  // what the normaliser sums over
    int found = 0;
    if (options.inverse_temperature > 0) {
      const Survivors left =
          find_survivors(options, scale, scores, keys, rows.vocab, digits, shared);
      dense = left.dense;
      if (dense) {
        if (threadIdx.x == 0) {
          state.dense = 1;
          state.cutoff_key = left.cutoff.key;
          state.cutoff_token = left.cutoff.token;
          state.lowest = left.lowest;
        }
      } else {
        const unsigned long long last = shared.order[left.count - 1];
        kept = {key_of(last), token_of(last)};
        const RandomStream stream(options.seed, view.position, RandomPurpose::token_noise);
        found = k_best<kSelectThreads>(
            left.count, params.k,
            [&](int i) {
              const unsigned long long item = shared.order[i];
              return noisy(scale, stream, row_math::float_of_key(key_of(item)), token_of(item));
            },
            winners);
      }
    } else if (!params.scores_wanted) {
      found = 1;
      if (threadIdx.x == 0) winners[0] = {0.0, token_of(seen.best)};
      __syncthreads();
    } else {
      const int most = min(params.k, rows.vocab);
      Cutoff cutoff;
      const int chunks = num_chunks(rows.vocab);
      if (most <= chunks) cutoff.key = max(kLowestKey, kth_chunk_key(keys, chunks, most));
      int count = gather(scores, keys, rows.vocab, cutoff, shared);
      if (count > kMostSelected) {
        cutoff = radix_select(
            scores, keys, rows.vocab, cutoff, static_cast<unsigned long long>(most),
            [](float) { return 1ull; }, shared);
        count = gather(scores, keys, rows.vocab, cutoff, shared);
      }
      sort_gathered(count, shared);
      found = min(count, most);
      if (static_cast<int>(threadIdx.x) < found) {
        const unsigned long long item = shared.order[threadIdx.x];
        winners[threadIdx.x] = {scale.relative(row_math::float_of_key(key_of(item))),
                                token_of(item)};
      }
      __syncthreads();
    }
    if (!dense) {
      const double total =
          params.scores_wanted ? normaliser(params, view, scale, kept, -INFINITY, shared) : 1.0;
      write_candidates(params, row, winners, found, total);
    }
  }
  __syncthreads();
  if (nucleus)
    for (int i = static_cast<int>(threadIdx.x); i < kDigitBins; i += kSelectThreads) digits[i] = 0;
  if (threadIdx.x == 0 && !(dense && dense_follows)) state = RowState{};
}

// grid: [rows]; a block settles a dense row from the best of its slices.
__global__ void __launch_bounds__(kSelectThreads) settle_candidates(DraftCandidatesParams params) {
  wait_for_previous();
  let_next_start();
  __shared__ SelectShared shared;
  __shared__ Noisy winners[kMostCandidates];
  const SampleRowsParams& rows = params.rows;
  const int row = static_cast<int>(blockIdx.x);
  const RowView view = view_row(rows, row);
  if (!view.there()) return;
  const RowState state = rows.scratch.states[row];
  if (state.dense == 0) return;
  const Scale scale = draft_scale(*view.options, key_of(state.best));
  const int count = num_slices(rows.vocab) * params.k;
  const SliceBest* const best =
      rows.scratch.slice_best + static_cast<std::size_t>(row) * static_cast<std::size_t>(count);
  const int found = k_best<kSelectThreads>(
      count, params.k,
      [&](int i) {
        return Noisy{best[i].score, best[i].token};
      },
      winners);
  const double total = params.scores_wanted
                           ? normaliser(params, view, scale, {state.cutoff_key, state.cutoff_token},
                                        state.lowest, shared)
                           : 1.0;
  write_candidates(params, row, winners, found, total);
  if (threadIdx.x == 0) rows.scratch.states[row] = RowState{};
}

}  // namespace

cudaError_t draft_candidates(const DraftCandidatesParams& params, const SamplingNeeds& needs,
                             const Launch& to) {
  DraftCandidatesParams draft = params;
  if (!needs.edits) draft.rows.scratch.scores = nullptr;
  const dim3 grid(static_cast<unsigned>(params.rows.tree.num_rows));
  cudaError_t error = launch_scan(draft.rows, needs, to);
  if (error == cudaSuccess && params.scores_wanted)
    error =
        launch(to, &sum_chunks, dim3(static_cast<unsigned>(num_slices(params.rows.vocab)), grid.x),
               kScanThreads, 0, draft);
  if (error == cudaSuccess && needs.nucleus) error = launch_digits(draft.rows, to);
  if (error == cudaSuccess)
    error = launch(to, &pick_candidates, grid, kSelectThreads, 0, draft, needs.dense);
  if (!needs.dense || error != cudaSuccess) return error;
  error = launch_dense(draft.rows, draft.k, to);
  if (error == cudaSuccess) error = launch(to, &settle_candidates, grid, kSelectThreads, 0, draft);
  return error;
}

}  // namespace specdec::kernels::cuda
