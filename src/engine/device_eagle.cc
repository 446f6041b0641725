#include "engine/device_eagle.h"

#include <algorithm>
#include <limits>
#include <vector>

#include "engine/backend/cuda_error.h"
#include "engine/model/row_buffers.h"
#include "kernels/cuda/draft/eagle.h"
#include "specdec/error.h"

namespace specdec {

namespace cuda = kernels::cuda;

kernels::BatchView view_of(const cuda::DeviceBatch& batch) {
  kernels::BatchView view;
  view.num_rows = batch.num_rows;
  view.tokens = batch.tokens;
  view.num_outputs = batch.num_outputs;
  view.output_rows = batch.output_rows;
  view.device = &batch;
  return view;
}

DeviceEagle::DeviceEagle(CudaBackend& backend, EagleAdapter& adapter, int rows, int outputs)
    : backend_(backend), adapter_(adapter), head_(adapter.head()) {
  head_.reserve(outputs, Stream{});
  for (DeviceBuffer& hidden : hidden_) hidden = allocate_rows(backend, rows, head_.hidden_size());
  const std::span<const TokenId> tokens = head_.target_tokens();
  if (tokens.empty()) return;
  ascending_ = std::is_sorted(tokens.begin(), tokens.end());
  tokens_ = backend.allocate(tokens.size_bytes(), MemoryUse::weights);
  backend.write(tokens_.as<void>(), tokens.data(), tokens.size_bytes(), Stream{});
  // Tokens that the head does not know keep probability 0.
  const auto vocab = static_cast<std::size_t>(head_.vocab_size());
  const std::vector<float> row(vocab, -std::numeric_limits<float>::infinity());
  logits_ = backend.allocate(static_cast<std::size_t>(outputs) * vocab * sizeof(float),
                             MemoryUse::scratch);
  for (int i = 0; i < outputs; ++i)
    backend.write(logits_.as<float>() + static_cast<std::size_t>(i) * vocab, row.data(),
                  vocab * sizeof(float), Stream{});
}

DraftLogits DeviceEagle::forward(const cuda::DeviceBatch& batch, const std::int32_t* sources,
                                 bool at_roots, cudaStream_t stream) {
  const float* const from = at_roots ? head_.features() : hidden_[last_].as<float>();
  last_ = 1 - last_;
  float* const hidden = hidden_[last_].as<float>();
  const DraftLogits own = {
      .logits = head_.enqueue(view_of(batch), {from, sources}, hidden, Stream{stream}),
      .tokens = tokens_.as<std::int32_t>(),
      .vocab = head_.draft_vocab_size()};
  if (ascending_) return own;
  return {.logits = spread(own, batch.num_outputs, stream), .vocab = head_.vocab_size()};
}

const float* DeviceEagle::spread(const DraftLogits& logits, int outputs, cudaStream_t stream) {
  cuda::Launch to;
  to.stream = stream;
  to.device = backend_.device();
  check_cuda(cuda::spread_logits({.num_rows = outputs,
                                  .draft_vocab = logits.vocab,
                                  .vocab = head_.vocab_size(),
                                  .logits = logits.logits,
                                  .tokens = logits.tokens,
                                  .out = logits_.as<float>()},
                                 to),
             "capturing an EAGLE head");
  return logits_.as<float>();
}

}  // namespace specdec
