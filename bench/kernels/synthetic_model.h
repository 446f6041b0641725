#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "kernels/cpu/cpu_ops.h"

namespace specdec::kernels::bench {

/// Memory on 2 MiB boundaries that asks for huge pages.
class Pages {
 public:
  explicit Pages(std::size_t bytes);
  std::byte* data() const noexcept { return data_.get(); }

 private:
  struct Free {
    void operator()(std::byte* at) const noexcept;
  };
  std::unique_ptr<std::byte[], Free> data_;
};

/// SmolLM2-135M's shapes with random weights: 30 layers of q4_1 (or `layer_type`), head q8_0.
class SyntheticModel {
 public:
  static constexpr int kLayers = 30;
  static constexpr int kHidden = 576;
  static constexpr int kFfn = 1536;
  static constexpr int kHeads = 9;
  static constexpr int kKvHeads = 3;
  static constexpr int kHeadDim = 64;
  static constexpr int kVocab = 49152;
  static constexpr int kBlockSize = 32;

  SyntheticModel(DataType layer_type, int max_positions, int max_rows);

  /// One forward of `rows` rows at positions [context, context + rows); logits of all rows, or of
  /// the last alone (as prefill wants them).
  void forward(CpuOps& ops, int context, int rows, bool all_logits);

  // The calls that make up a forward, for one layer.
  void qkv(CpuOps& ops, int layer, int context, int rows);
  void attention(CpuOps& ops, int layer, int context, int rows);
  void output(CpuOps& ops, int layer, int rows);
  void gate_up(CpuOps& ops, int layer, int rows);
  void down(CpuOps& ops, int layer, int rows);
  void head(CpuOps& ops, int rows, bool all_logits);
  void embed(CpuOps& ops, int rows);

  std::size_t weight_bytes() const noexcept { return weight_bytes_; }

 private:
  PackedMatrix add(DataType type, int rows, int cols);
  BatchView batch(int context, int rows);

  struct Layer {
    PackedMatrix qkv, output, gate_up, down;
    KvLayer kv;
  };
  std::size_t weight_bytes_ = 0;
  std::vector<Pages> memory_;
  std::vector<Layer> layers_;
  PackedMatrix head_;
  std::vector<float> norm_, cos_, sin_, x_, q_, attention_, ffn_, logits_;
  std::vector<std::int32_t> tokens_, positions_, row_ids_, block_table_;
  SequenceRows sequence_;
};

}  // namespace specdec::kernels::bench
