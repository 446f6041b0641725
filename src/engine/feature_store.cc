#include "engine/feature_store.h"

#include <algorithm>
#include <numeric>
#include <utility>

namespace specdec {

FeatureRows& FeatureRows::operator=(FeatureRows&& other) noexcept {
  if (this == &other) return *this;
  clear();
  store_ = std::exchange(other.store_, nullptr);
  begin_ = std::exchange(other.begin_, 0);
  rows_ = std::exchange(other.rows_, {});
  return *this;
}

void FeatureRows::drop_before(int entry) noexcept {
  const int count = std::clamp(entry - begin_, 0, size());
  for (int i = 0; i < count; ++i) store_->free_.push_back(rows_[static_cast<std::size_t>(i)]);
  rows_.erase(rows_.begin(), rows_.begin() + count);
  begin_ += count;
}

void FeatureRows::clear() noexcept {
  drop_before(end());
  begin_ = 0;  // it reaches up to no entry, and nobody may take it for features that do
}

FeatureStore::FeatureStore(Backend& backend, int capacity, int width)
    : backend_(backend),
      width_(width),
      buffer_(backend.allocate(
          static_cast<std::size_t>(capacity) * static_cast<std::size_t>(width) * sizeof(float),
          MemoryUse::scratch)),
      free_(static_cast<std::size_t>(capacity)) {
  std::iota(free_.rbegin(), free_.rend(), 0);
}

void FeatureStore::append(FeatureRows& features, int first_entry, const float* source,
                          std::span<const std::int32_t> source_rows, Stream stream) {
  if (features.end() != first_entry || features.size() == 0) {
    features.clear();
    features.begin_ = first_entry;
  }
  if (source_rows.size() > free_.size()) {
    features.clear();
    return;
  }
  features.store_ = this;
  const std::size_t old_size = features.rows_.size();
  features.rows_.insert(features.rows_.end(), free_.rbegin(),
                        free_.rbegin() + static_cast<std::ptrdiff_t>(source_rows.size()));
  free_.resize(free_.size() - source_rows.size());
  backend_.copy_rows({.num_rows = static_cast<int>(source_rows.size()),
                      .cols = width_,
                      .source = source,
                      .source_rows = source_rows.data(),
                      .destination = buffer_.as<float>(),
                      .destination_rows = features.rows_.data() + old_size},
                     stream);
}

}  // namespace specdec
