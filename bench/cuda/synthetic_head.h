#pragma once

#include <vector>

#include "synthetic_model.h"

namespace specdec::kernels::bench {

/// A one-layer EAGLE-3 head of a model's shape, with random weights and a reduced vocabulary; its
/// passes are those of src/engine/model/eagle_head.cc and src/engine/device_eagle.cc. It shares the
/// model's memory, embedding and angles.
class SyntheticHead {
 public:
  SyntheticHead(SyntheticModel& model, int draft_vocab, int max_rows, int max_outputs);

  /// Projects what layers 2, L / 2 and L - 3 read, as the model's pass goes by.
  void observe(int layer, const float* x, int rows, cudaStream_t stream);
  /// Rows go on from the features (at_roots) or the outputs of the pass before. Returns logits
  /// [batch.num_outputs, draft_vocab()].
  const float* forward(const BatchView& batch, const std::int32_t* sources, bool at_roots,
                       cudaStream_t stream);
  /// ... under the model's numbers.
  const float* spread(const float* logits, int outputs, cudaStream_t stream);
  const std::int32_t* tokens() const { return tokens_; }  // [draft_vocab()]
  int draft_vocab() const { return head_.rows; }
  std::size_t weight_bytes() const { return weight_bytes_; }  // that a pass reads

 private:
  SyntheticModel& model_;
  std::vector<PackedMatrix> fc_;
  PackedMatrix qkv_, output_, gate_up_, down_, head_;
  KvLayer kv_;
  std::size_t weight_bytes_ = 0;
  float *norm_ = nullptr, *features_ = nullptr, *hidden_[2] = {};
  float *joined_ = nullptr, *q_ = nullptr, *attention_ = nullptr, *ffn_ = nullptr;
  float *draft_logits_ = nullptr, *logits_ = nullptr;
  std::int32_t* tokens_ = nullptr;
  int last_ = 0;
};

/// Sets logits so that the acceptance walk goes as far as it is told: each turn, level after level
/// of the tree is accepted with probability `rate`. One sequence, greedy.
struct ForceParams {
  const std::int32_t* tokens = nullptr;  // the batch's, as are those below
  const std::int32_t* positions = nullptr;
  const std::int32_t* slots = nullptr;
  const std::int32_t* path_offsets = nullptr;
  const std::int32_t* path_slots = nullptr;
  int num_rows = 0;  // at most 64
  int vocab = 0;
  float rate = 0;
  float* logits = nullptr;        // [num_rows, vocab]
  std::uint32_t* turn = nullptr;  // [1] counts up
};
cudaError_t force_acceptance(const ForceParams& params, const cuda::Launch& to);

}  // namespace specdec::kernels::bench
