#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "engine/model/model_config.h"

namespace specdec {

/// Cosines and sines of RoPE angles, looked up by position; grows to the largest position seen.
class RopeTable {
 public:
  explicit RopeTable(const ModelConfig& config);

  /// Gathers the rows of positions[i] + offset, none of them negative.
  void fill(std::span<const std::int32_t> positions, int offset = 0);
  const float* cosines() const noexcept {
    return row_cosines_.data();
  }                                                                  // [positions, head_dim / 2]
  const float* sines() const noexcept { return row_sines_.data(); }  // [positions, head_dim / 2]

 private:
  std::vector<double> inverse_frequencies_;
  std::vector<float> cosines_;  // [positions seen, head_dim / 2]
  std::vector<float> sines_;
  std::vector<float> row_cosines_;
  std::vector<float> row_sines_;
};

}  // namespace specdec
