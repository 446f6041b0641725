#pragma once

#include "engine/backend/cuda_backend.h"
#include "engine/device_loop.h"

namespace specdec {

/// Which of the target's tokens a draft's logits are of, in the device loop.
class DeviceVocabulary {
 public:
  /// `tokens`: the target's for each of a row's logits; empty: all `vocab`, in order. `outputs`:
  /// the most rows of a pass. Throws Error(out_of_memory, device).
  DeviceVocabulary(CudaBackend& backend, std::span<const TokenId> tokens, int vocab, int outputs);

  /// A pass's logits as the loop takes them.
  DraftLogits of(const float* logits, int outputs, cudaStream_t stream);
  /// Enqueues what puts logits of a reduced vocabulary under the target's numbers.
  const float* spread(const DraftLogits& logits, int outputs, cudaStream_t stream);

 private:
  CudaBackend& backend_;
  int vocab_;              // the target's
  int draft_vocab_;        // logits of a row
  bool ascending_ = true;  // the tokens are
  DeviceBuffer tokens_;    // [draft vocabulary]; empty: the same numbers as the target's
  DeviceBuffer logits_;    // [outputs, the target's vocabulary]
};

}  // namespace specdec
