#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "draft/draft_model.h"
#include "engine/backend/backend.h"
#include "engine/sequence.h"

namespace specdec {

/// The hidden states that a step's draft rows came out with, found by sequence and slot, in a
/// backend's memory. Belongs to the stepping thread.
class SlotStates {
 public:
  /// `room`: for so many rows at once; more are found room for when they come.
  SlotStates(Backend& backend, int width, int room = 0);

  /// A new step for these: what was kept is forgotten. They stay as long as they are when keep() is
  /// called.
  void begin(std::span<Sequence* const> sequences);
  /// Keeps the state of each row of `batch` that wants logits: in order, `rows` of `source`
  /// [*, width].
  void keep(std::span<const DraftRows> batch, const float* source,
            std::span<const std::int32_t> rows, Stream stream);
  /// Keeps the first `count` rows of `source` for no slot in particular; the first one's row.
  std::int32_t append(const float* source, int count, Stream stream);

  /// By slot, from the root's on: the row of data() that has its state; -1, or no entry: none was
  /// kept.
  std::span<const std::int32_t> rows(std::size_t sequence) const {
    return sequences_[sequence].rows;
  }
  /// The same of one slot.
  std::int32_t row(std::size_t sequence, int slot) const;
  const float* data() const noexcept { return states_.as<float>(); }  // [rows kept, width]

 private:
  struct OfSequence {
    int root_slot = 0;
    std::vector<std::int32_t> rows;
  };
  void make_room(int count, Stream stream);

  Backend& backend_;
  int width_;
  std::vector<OfSequence> sequences_;
  DeviceBuffer states_;
  int num_kept_ = 0;
};

}  // namespace specdec
