#pragma once

#include <span>
#include <vector>

#include "engine/backend/backend.h"
#include "engine/model/medusa_source.h"
#include "engine/model/transformer.h"

namespace specdec {

/// Medusa heads. Their matrices are the backend's; what lies between two of them, a few rows' norms
/// and activations, is the host's, so on a GPU each level of a draft waits for the device.
class MedusaHeads final : public HiddenStateTap {
 public:
  /// `target` and `output_norm` [hidden]: the target's shape and its final norm.
  MedusaHeads(Backend& backend, const MedusaSource& source, const ModelConfig& target,
              std::span<const float> output_norm);

  /// Takes note of where the target's last layer leaves its output.
  void observe(int layer, const float* x, int num_rows, Stream stream) override;
  /// [rows, hidden] of the target's latest pass, before the final norm; valid until its next one.
  const float* features() const noexcept { return features_; }

  /// Logits [rows, vocab] that `head` gives for features in `rows` of `source` [*, hidden]; in host
  /// memory, valid until the next call.
  std::span<const float> forward(int head, const float* source, std::span<const std::int32_t> rows,
                                 Stream stream);

  int num_heads() const noexcept { return static_cast<int>(heads_.size()); }
  int hidden_size() const noexcept { return hidden_size_; }
  int vocab_size() const noexcept { return vocab_size_; }

 private:
  struct Block {
    kernels::PackedMatrix weight;
    std::vector<float> bias;
  };
  struct Head {
    std::vector<Block> blocks;
    kernels::PackedMatrix output;
  };

  void normalise(std::span<float> row) const;
  std::span<const float> project(const kernels::PackedMatrix& weight, int rows, Stream stream);

  Backend& backend_;
  int num_layers_;
  int hidden_size_;
  int vocab_size_;
  float norm_eps_;
  std::vector<float> output_norm_;
  DeviceBuffer weights_;
  std::vector<Head> heads_;
  const float* features_ = nullptr;

  std::vector<float> hidden_;  // [rows, hidden] on the host
  int max_rows_ = 0;           // so far
  DeviceBuffer x_;             // [max_rows, hidden]
  DeviceBuffer out_;           // [max_rows, hidden or vocab]
};

}  // namespace specdec
