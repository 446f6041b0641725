#include "engine/device_vocabulary.h"

#include <algorithm>
#include <limits>
#include <vector>

#include "engine/backend/cuda_error.h"
#include "kernels/cuda/draft/eagle.h"

namespace specdec {

namespace cuda = kernels::cuda;

DeviceVocabulary::DeviceVocabulary(CudaBackend& backend, std::span<const TokenId> tokens, int vocab,
                                   int outputs)
    : backend_(backend), vocab_(vocab), draft_vocab_(vocab) {
  if (tokens.empty()) return;
  draft_vocab_ = static_cast<int>(tokens.size());
  ascending_ = std::is_sorted(tokens.begin(), tokens.end());
  tokens_ = backend.allocate(tokens.size_bytes(), MemoryUse::weights);
  backend.write(tokens_.as<void>(), tokens.data(), tokens.size_bytes(), Stream{});
  // Tokens that the draft does not know keep probability 0.
  const auto row_size = static_cast<std::size_t>(vocab);
  const std::vector<float> row(row_size, -std::numeric_limits<float>::infinity());
  logits_ = backend.allocate(static_cast<std::size_t>(outputs) * row_size * sizeof(float),
                             MemoryUse::scratch);
  for (int i = 0; i < outputs; ++i)
    backend.write(logits_.as<float>() + static_cast<std::size_t>(i) * row_size, row.data(),
                  row_size * sizeof(float), Stream{});
}

DraftLogits DeviceVocabulary::of(const float* logits, int outputs, cudaStream_t stream) {
  const DraftLogits own = {
      .logits = logits, .tokens = tokens_.as<std::int32_t>(), .vocab = draft_vocab_};
  if (ascending_) return own;
  return {.logits = spread(own, outputs, stream), .vocab = vocab_};
}

const float* DeviceVocabulary::spread(const DraftLogits& logits, int outputs, cudaStream_t stream) {
  cuda::Launch to;
  to.stream = stream;
  to.device = backend_.device();
  check_cuda(cuda::spread_logits({.num_rows = outputs,
                                  .draft_vocab = logits.vocab,
                                  .vocab = vocab_,
                                  .logits = logits.logits,
                                  .tokens = logits.tokens,
                                  .out = logits_.as<float>()},
                                 to),
             "capturing a draft");
  return logits_.as<float>();
}

}  // namespace specdec
