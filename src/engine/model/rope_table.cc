#include "engine/model/rope_table.h"

#include <algorithm>
#include <cmath>

namespace specdec {

RopeTable::RopeTable(const ModelConfig& config)
    : inverse_frequencies_(rope_inverse_frequencies(config)) {}

void RopeTable::fill(std::span<const std::int32_t> positions, int offset) {
  const std::size_t half = inverse_frequencies_.size();
  row_cosines_.resize(positions.size() * half);
  row_sines_.resize(positions.size() * half);
  for (std::size_t row = 0; row < positions.size(); ++row) {
    const auto position = static_cast<std::size_t>(positions[row] + offset);
    while (cosines_.size() <= position * half) {
      const auto next = static_cast<double>(cosines_.size() / half);
      for (const double frequency : inverse_frequencies_) {
        cosines_.push_back(static_cast<float>(std::cos(next * frequency)));
        sines_.push_back(static_cast<float>(std::sin(next * frequency)));
      }
    }
    const std::size_t from = position * half;
    std::copy_n(&cosines_[from], half, &row_cosines_[row * half]);
    std::copy_n(&sines_[from], half, &row_sines_[row * half]);
  }
}

}  // namespace specdec
