#include "engine/device_eagle.h"

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
  if (head_.hidden_size() % 4 != 0)
    throw Error(ErrorCode::unsupported, "the head's hidden size is no multiple of 4");
  head_.reserve(outputs, Stream{});
  for (DeviceBuffer& hidden : hidden_) hidden = allocate_rows(backend, rows, head_.hidden_size());
  const std::span<const TokenId> tokens = head_.target_tokens();
  if (tokens.empty()) return;
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

const float* DeviceEagle::forward(const cuda::DeviceBatch& batch, const std::int32_t* sources,
                                  bool at_roots, cudaStream_t stream) {
  constexpr const char* kDoing = "capturing an EAGLE head";
  cuda::Launch to;
  to.stream = stream;
  to.device = backend_.device();
  const float* const from = at_roots ? head_.features() : hidden_[last_].as<float>();
  last_ = 1 - last_;
  float* const hidden = hidden_[last_].as<float>();
  check_cuda(cuda::gather_rows({.num_rows = batch.num_rows,
                                .cols = head_.hidden_size(),
                                .source = from,
                                .rows = sources,
                                .out = hidden},
                               to),
             kDoing);
  const float* const logits = head_.enqueue(view_of(batch), hidden, Stream{stream});
  if (logits_.bytes() == 0) return logits;
  check_cuda(cuda::spread_logits({.num_rows = batch.num_outputs,
                                  .draft_vocab = head_.draft_vocab_size(),
                                  .vocab = head_.vocab_size(),
                                  .logits = logits,
                                  .tokens = tokens_.as<std::int32_t>(),
                                  .out = logits_.as<float>()},
                                 to),
             kDoing);
  return logits_.as<float>();
}

}  // namespace specdec
