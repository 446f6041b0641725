#include "engine/model/rope_table.h"

#include <algorithm>
#include <cmath>

namespace specdec {

RopeTable::RopeTable(Backend& backend, const ModelConfig& config, std::int64_t capacity, int offset)
    : backend_(backend),
      inverse_frequencies_(rope_inverse_frequencies(config)),
      offset_(offset),
      capacity_(static_cast<int>(std::min<std::int64_t>(config.max_position, capacity))) {
  const std::size_t bytes =
      static_cast<std::size_t>(capacity_) * inverse_frequencies_.size() * sizeof(float);
  cosines_ = backend.allocate(bytes, MemoryUse::cache);
  sines_ = backend.allocate(bytes, MemoryUse::cache);
}

void RopeTable::fill(std::span<const std::int32_t> positions, Stream stream) {
  if (positions.empty()) return;
  const int last = *std::max_element(positions.begin(), positions.end());
  if (last < filled_) return;
  constexpr int kAtOnce = 256;  // a step far into a sequence adds rows only now and then
  fill_to(std::min(capacity_, (last / kAtOnce + 1) * kAtOnce), stream);
}

void RopeTable::fill_to(int end, Stream stream) {
  if (end <= filled_) return;
  std::vector<float> cosines;
  std::vector<float> sines;
  for (int row = filled_; row < end; ++row) {
    const int position = std::max(0, row + offset_);
    for (const double frequency : inverse_frequencies_) {
      cosines.push_back(static_cast<float>(std::cos(position * frequency)));
      sines.push_back(static_cast<float>(std::sin(position * frequency)));
    }
  }
  const std::size_t from = static_cast<std::size_t>(filled_) * inverse_frequencies_.size();
  const std::size_t bytes = cosines.size() * sizeof(float);
  backend_.write(cosines_.as<float>() + from, cosines.data(), bytes, stream);
  backend_.write(sines_.as<float>() + from, sines.data(), bytes, stream);
  filled_ = end;
}

}  // namespace specdec
