#include "engine/slot_states.h"

#include <utility>

namespace specdec {

SlotStates::SlotStates(Backend& backend, int width, int room) : backend_(backend), width_(width) {
  if (room > 0)
    states_ = backend.allocate(
        static_cast<std::size_t>(room) * static_cast<std::size_t>(width) * sizeof(float),
        MemoryUse::scratch);
}

void SlotStates::begin(std::span<Sequence* const> sequences) {
  num_kept_ = 0;
  sequences_.clear();
  for (const Sequence* sequence : sequences)
    sequences_.push_back({.root_slot = sequence->size() - 1, .rows = {}});
}

std::int32_t SlotStates::row(std::size_t sequence, int slot) const {
  const OfSequence& of = sequences_[sequence];
  const auto at = static_cast<std::size_t>(slot - of.root_slot);
  return at < of.rows.size() ? of.rows[at] : -1;
}

void SlotStates::make_room(int count, Stream stream) {
  const std::size_t row_bytes = static_cast<std::size_t>(width_) * sizeof(float);
  const std::size_t bytes = static_cast<std::size_t>(num_kept_ + count) * row_bytes;
  if (states_.bytes() >= bytes) return;
  DeviceBuffer larger = backend_.allocate(2 * bytes, MemoryUse::scratch);
  if (num_kept_ > 0)
    backend_.copy_rows({.num_rows = num_kept_,
                        .cols = width_,
                        .source = states_.as<float>(),
                        .destination = larger.as<float>()},
                       stream);
  states_ = std::move(larger);
}

void SlotStates::keep(std::span<const DraftRows> batch, const float* source,
                      std::span<const std::int32_t> rows, Stream stream) {
  make_room(static_cast<int>(rows.size()), stream);
  std::vector<std::int32_t> to;
  for (const DraftRows& of : batch) {
    OfSequence& sequence = sequences_[static_cast<std::size_t>(of.sequence)];
    for (const DraftRow& row : of.rows) {
      if (!row.wants_logits) continue;
      const int slot = row.path_slots.empty() ? row.position : row.path_slots.back();
      const auto at = static_cast<std::size_t>(slot - sequence.root_slot);
      if (sequence.rows.size() <= at) sequence.rows.resize(at + 1, -1);
      sequence.rows[at] = num_kept_;
      to.push_back(num_kept_++);
    }
  }
  backend_.copy_rows({.num_rows = static_cast<int>(to.size()),
                      .cols = width_,
                      .source = source,
                      .source_rows = rows.data(),
                      .destination = states_.as<float>(),
                      .destination_rows = to.data()},
                     stream);
}

std::int32_t SlotStates::append(const float* source, int count, Stream stream) {
  make_room(count, stream);
  const std::int32_t first = num_kept_;
  backend_.copy_rows({.num_rows = count,
                      .cols = width_,
                      .source = source,
                      .destination = states_.as<float>() + static_cast<std::size_t>(first) *
                                                               static_cast<std::size_t>(width_)},
                     stream);
  num_kept_ += count;
  return first;
}

}  // namespace specdec
