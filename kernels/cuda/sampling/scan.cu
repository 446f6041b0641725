#include "kernels/cuda/sampling/scan.cuh"

#include "kernels/cuda/sampling/stages.h"

namespace specdec::kernels::cuda {
namespace {

// grid: [slices, rows]; a block reads one slice of a row once: edits, chunk maxima, the row's best,
// NaN.
template <bool kEdits>
__global__ void __launch_bounds__(kScanThreads) scan_rows(SampleRowsParams params) {
  wait_for_previous();
  let_next_start();
  const int row = static_cast<int>(blockIdx.y);
  const unsigned lane = threadIdx.x % kWarp;
  const int warp = static_cast<int>(threadIdx.x / kWarp);
  const int chunks = num_chunks(params.vocab);
  const int first_chunk = static_cast<int>(blockIdx.x) * kSliceChunks;
  LaneValues values[kChunksPerWarp];  // asked for before anything that waits
#pragma unroll
  for (int j = 0; j < kChunksPerWarp; ++j)
    values[j] =
        load_lane(raw_row(params, row), params.vocab, first_chunk + warp + j * kScanWarps, lane);
  if (params.tree.sequence_of_row[row] >= 0) {
    const RowView view = kEdits ? view_row(params, row) : RowView{};
    RowState& state = params.scratch.states[row];
    std::uint32_t* const keys = chunk_keys_of(params.scratch.chunk_keys, params.vocab, row);
    if (!kEdits || !view.edited) {
      reduce_chunks(values, first_chunk, chunks, keys, &state.best, &state.flags,
                    RowState::kRawNan);
    } else {
      reduce_chunks(values, first_chunk, chunks,
                    chunk_keys_of(params.scratch.raw_chunk_keys, params.vocab, row),
                    &state.raw_best, &state.flags, RowState::kRawNan);
      __shared__ float slice[kEdits ? kSliceTokens : 1];
      __shared__ std::int32_t path[kMostPath];
      __shared__ int path_length;
      if (threadIdx.x == 0) path_length = collect_path(params.tree, view, path);
      const int begin = first_chunk * row_math::kChunk;
#pragma unroll
      for (int j = 0; j < kChunksPerWarp; ++j) {
        const int chunk = first_chunk + warp + j * kScanWarps;
        for (int i = 0; i < kLaneTokens; ++i)
          slice[lane_token(chunk, lane, i) - begin] = values[j].at[i];
      }
      __syncthreads();
      edit_slice(params, view, begin, slice, path, path_length);
      float* const scores = params.scratch.scores +
                            static_cast<std::size_t>(row) * static_cast<std::size_t>(params.vocab);
#pragma unroll
      for (int j = 0; j < kChunksPerWarp; ++j) {
        const int chunk = first_chunk + warp + j * kScanWarps;
        for (int i = 0; i < kLaneTokens; ++i) {
          const int token = lane_token(chunk, lane, i);
          values[j].at[i] = slice[token - begin];
          if (token < params.vocab) scores[token] = values[j].at[i];
        }
      }
      reduce_chunks(values, first_chunk, chunks, keys, &state.best, &state.flags,
                    RowState::kEditedNan);
    }
  }
}

}  // namespace

cudaError_t launch_scan(const SampleRowsParams& params, const SamplingNeeds& needs,
                        const Launch& to) {
  const dim3 grid(static_cast<unsigned>(num_slices(params.vocab)),
                  static_cast<unsigned>(params.tree.num_rows));
  const auto kernel = needs.edits ? &scan_rows<true> : &scan_rows<false>;
  return launch(to, kernel, grid, kScanThreads, 0, params);
}

}  // namespace specdec::kernels::cuda
