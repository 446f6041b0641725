#include "kernels/cuda/draft/eagle.h"

#include "kernels/cuda/device.cuh"
#include "kernels/cuda/draft/growth.cuh"
#include "kernels/cuda/operand.h"
#include "kernels/cuda/step/batch_rows.cuh"

namespace specdec::kernels::cuda {
namespace {

constexpr int kRowThreads = 32;
constexpr int kCopyThreads = 256;

// grid: [sequences]
__global__ void __launch_bounds__(kRowThreads)
    eagle_roots(GrowParams params, PendingFeatures pending, DeviceBatch batch,
                std::int32_t* sources) {
  wait_for_previous();
  let_next_start();
  const int sequence = static_cast<int>(blockIdx.x);
  begin_tree(params, sequence);
  const int length = params.sequences[sequence].length;
  const int count =
      params.max_depths[sequence] < 0 ? 0 : max(0, min(pending.counts[sequence], pending.capacity));
  const int begin = length - count;  // of the entries
  const std::int32_t* const history =
      params.history + static_cast<std::int64_t>(sequence) * params.history_stride;
  if (threadIdx.x == 0) batch.context_lens[sequence] = count > 0 ? begin : 0;
  for (int i = static_cast<int>(threadIdx.x); i < pending.capacity; i += kRowThreads) {
    const int row = sequence * pending.capacity + i;
    const int place = i - (pending.capacity - count);
    if (place < 0) {
      write_padding(batch, row);
      sources[row] = 0;
      continue;
    }
    write_row(batch, row, history[begin + place], begin + place, begin + place);
    sources[row] = pending.rows[sequence * pending.capacity + place];
  }
}

// grid: [rows, ceil(draft_vocab / kCopyThreads)]
__global__ void __launch_bounds__(kCopyThreads) spread(SpreadLogitsParams params) {
  wait_for_previous();
  let_next_start();
  const int at = static_cast<int>(blockIdx.y * kCopyThreads + threadIdx.x);
  if (at >= params.draft_vocab) return;
  const auto row = static_cast<std::size_t>(blockIdx.x);
  params.out[row * params.vocab + params.tokens[at]] = params.logits[row * params.draft_vocab + at];
}

}  // namespace

cudaError_t fill_eagle_roots(const GrowParams& params, const PendingFeatures& pending,
                             const DeviceBatch& batch, std::int32_t* sources, const Launch& to) {
  return launch(to, &eagle_roots, dim3(static_cast<unsigned>(params.growth.num_sequences)),
                kRowThreads, 0, params, pending, batch, sources);
}

cudaError_t spread_logits(const SpreadLogitsParams& params, const Launch& to) {
  const dim3 grid(static_cast<unsigned>(params.num_rows),
                  static_cast<unsigned>(ceil_div(params.draft_vocab, kCopyThreads)));
  return launch(to, &spread, grid, kCopyThreads, 0, params);
}

}  // namespace specdec::kernels::cuda
