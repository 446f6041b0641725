#pragma once

#include <cuda_runtime_api.h>

#include <functional>
#include <string>
#include <vector>

#include "kernels/cuda/batch_buffers.h"
#include "kernels/cuda/launch.h"
#include "kernels/cuda/step/commit.h"
#include "kernels/ops.h"

namespace specdec::kernels::bench {

struct ModelShape {
  std::string name;
  int hidden = 0, layers = 0, heads = 0, kv_heads = 0, head_dim = 0, ffn = 0, vocab = 0;
  DataType type = DataType::bf16;
  DataType head_type = DataType::bf16;
};

/// What a forward pass runs over: `sequences` times `rows` rows after `context` positions. A tree's
/// rows have paths of their own (a binary tree).
struct Workload {
  int sequences = 1;
  int rows = 1;
  int context = 512;
  bool tree = false;
  bool all_logits = true;  // else of each sequence's last row
};

/// Throws std::runtime_error with the runtime's message.
void require(cudaError_t status);

/// A Llama model with random weights on the device, and the memory that forward passes of up to
/// `max_rows` rows over `max_positions` positions take.
class SyntheticModel {
 public:
  static constexpr std::size_t kMostOutputs = 128;  // rows of a pass that have logits

  SyntheticModel(const ModelShape& shape, const cuda::DeviceInfo& device, int max_rows,
                 int max_positions);
  ~SyntheticModel();

  /// Ops that forward() enqueues; a profile leaves all but one out.
  enum Part { embed = 1, qkv = 2, attention = 4, output = 8, gate_up = 16, down = 32, head = 64 };
  static constexpr int kAll = 127;

  void stage(const Workload& work);
  void forward(cudaStream_t stream, int parts = kAll) { forward(view_, stream, parts); }
  /// A batch that lies on the device; observe(layer, x) sees the input of every layer.
  using Observe = std::function<void(int layer, const float* x)>;
  void forward(const BatchView& batch, cudaStream_t stream, int parts = kAll,
               const Observe& observe = {});

  const ModelShape& shape() const { return shape_; }
  const cuda::Launch& launch() const { return launch_; }
  const BatchView& view() const { return view_; }
  float* logits() const { return logits_; }  // [kMostOutputs, vocab]
  const PackedMatrix& embedding() const { return head_; }
  const float* angles() const { return rope_; }
  /// All layers, for kernels that move KV.
  cuda::KvPoolView pool();

  /// Memory and weights that live as long as the model.
  std::byte* take(std::size_t bytes);
  PackedMatrix matrix(DataType type, int rows, int cols, int pair_distance);
  float* floats(std::size_t rows, int cols);
  KvLayer kv_layer();
  std::size_t weight_bytes() const { return weight_bytes_; }
  /// Bytes of keys and values that the staged batch reads.
  std::size_t kv_bytes(const Workload& work) const;

 private:
  struct Layer {
    PackedMatrix qkv, output, gate_up, down;
    KvLayer kv;
  };
  ModelShape shape_;
  cuda::Launch launch_;
  std::vector<std::byte*> memory_;
  std::vector<Layer> layers_;
  PackedMatrix head_;
  std::size_t weight_bytes_ = 0;
  float *norm_ = nullptr, *rope_ = nullptr, *x_ = nullptr, *q_ = nullptr;
  float *attention_ = nullptr, *ffn_ = nullptr, *logits_ = nullptr;
  std::byte* pinned_ = nullptr;
  cuda::BatchCapacity capacity_;
  cuda::BatchBuffers batch_;
  BatchView view_;
  int max_positions_ = 0;
};

}  // namespace specdec::kernels::bench
