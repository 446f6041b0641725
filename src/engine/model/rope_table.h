#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "engine/backend/backend.h"
#include "engine/model/model_config.h"

namespace specdec {

/// Cosines and sines of RoPE angles in the backend's memory, one row per position.
class RopeTable {
 public:
  /// Room for `capacity` positions. Row p holds the angles of position p + offset (of 0 where that
  /// is negative).
  RopeTable(Backend& backend, const ModelConfig& config, std::int64_t capacity, int offset = 0);

  /// Makes sure that the rows of all `positions` are there.
  void fill(std::span<const std::int32_t> positions, Stream stream);
  /// ... and of every position that there is room for.
  void fill_all(Stream stream) { fill_to(capacity_, stream); }
  const float* cosines() const noexcept { return cosines_.as<float>(); }  // [rows, head_dim / 2]
  const float* sines() const noexcept { return sines_.as<float>(); }      // [rows, head_dim / 2]

 private:
  void fill_to(int end, Stream stream);

  Backend& backend_;
  std::vector<double> inverse_frequencies_;
  int offset_;
  int capacity_;
  int filled_ = 0;  // the first rows are there
  DeviceBuffer cosines_;
  DeviceBuffer sines_;
};

}  // namespace specdec
