#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "engine/backend/backend.h"

namespace specdec {

class FeatureStore;

/// The features of one sequence that its EAGLE head has not turned into KV yet: rows of a store,
/// one for each of the entries [begin, end). Move-only; gives its rows back on destruction. Must
/// not outlive its store.
class FeatureRows {
 public:
  FeatureRows() = default;
  FeatureRows(FeatureRows&& other) noexcept { *this = std::move(other); }
  FeatureRows& operator=(FeatureRows&& other) noexcept;
  ~FeatureRows() { clear(); }

  int begin() const noexcept { return begin_; }
  int end() const noexcept { return begin_ + size(); }
  int size() const noexcept { return static_cast<int>(rows_.size()); }
  /// The store's row for an entry in [begin, end).
  std::int32_t row(int entry) const { return rows_[static_cast<std::size_t>(entry - begin_)]; }
  void drop_before(int entry) noexcept;
  void clear() noexcept;

 private:
  friend class FeatureStore;
  FeatureStore* store_ = nullptr;
  int begin_ = 0;
  std::vector<std::int32_t> rows_;
};

/// A fixed number of feature rows in a backend's memory. Belongs to the stepping thread.
class FeatureStore {
 public:
  FeatureStore(Backend& backend, int capacity, int width);
  FeatureStore(const FeatureStore&) = delete;
  FeatureStore& operator=(const FeatureStore&) = delete;

  const float* data() const noexcept { return buffer_.as<float>(); }  // [capacity, width]
  int num_free() const noexcept { return static_cast<int>(free_.size()); }

  /// Copies rows of `source` [*, width] behind what `features` holds: they belong to the entries
  /// from `first_entry` on. Features that do not reach up to there are forgotten first; when no
  /// room is left, all are: the sequence then decodes plainly.
  void append(FeatureRows& features, int first_entry, const float* source,
              std::span<const std::int32_t> source_rows, Stream stream);

 private:
  friend class FeatureRows;
  Backend& backend_;
  int width_;
  DeviceBuffer buffer_;
  std::vector<std::int32_t> free_;
};

}  // namespace specdec
