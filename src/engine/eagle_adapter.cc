#include "engine/eagle_adapter.h"

#include <algorithm>
#include <utility>

namespace specdec {

EagleAdapter::EagleAdapter(Backend& backend, std::unique_ptr<EagleHead> head, int max_context,
                           int max_pending)
    : backend_(backend),
      head_(std::move(head)),
      max_position_(std::min(max_context, head_->max_position())),
      features_(backend, max_pending, head_->hidden_size()),
      outputs_(backend, head_->hidden_size()) {}

void EagleAdapter::begin(std::span<Sequence* const> sequences) {
  sequences_ = sequences;
  outputs_.begin(sequences);
}

void EagleAdapter::keep(Sequence& sequence, int first_entry, std::span<const std::int32_t> rows) {
  features_.append(sequence.features, first_entry, head_->features(), rows, Stream{});
}

void EagleAdapter::restore(const Sequence& sequence, std::span<const std::int32_t> rows) {
  std::vector<std::int32_t> from;
  for (int entry = sequence.features.begin(); entry < sequence.features.end(); ++entry)
    from.push_back(sequence.features.row(entry));
  backend_.copy_rows({.num_rows = static_cast<int>(rows.size()),
                      .cols = head_->hidden_size(),
                      .source = features_.data(),
                      .source_rows = from.data(),
                      .destination = head_->features(),
                      .destination_rows = rows.data()},
                     Stream{});
}

std::span<const float> EagleAdapter::forward(std::span<const DraftRows> batch) {
  batch_.clear();
  from_features_ = {};
  from_outputs_ = {};
  for (const DraftRows& rows : batch) {
    const auto index = static_cast<std::size_t>(rows.sequence);
    const Sequence& sequence = *sequences_[index];
    batch_.begin_sequence(rows.context_len, sequence.kv.block_table());
    for (const DraftRow& row : rows.rows) {
      const int at = batch_.add_row(row);
      const bool committed = row.position < sequence.size();
      // The path begins below the root, whose slot is its position.
      const int parent_slot =
          row.path_slots.size() < 2 ? row.position - 1 : *(row.path_slots.end() - 2);
      Gather& gather = committed ? from_features_ : from_outputs_;
      gather.from.push_back(committed ? sequence.features.row(row.position)
                                      : outputs_.row(index, parent_slot));
      gather.to.push_back(at);
    }
  }
  fill_hidden();
  const std::span<const float> logits = head_->forward(batch_, Stream{});
  if (batch_.num_outputs() == 0) return {};
  outputs_.keep(batch, head_->hidden(), batch_.output_rows(), Stream{});
  return logits;
}

void EagleAdapter::fill_hidden() {
  const auto copy = [&](const Gather& gather, const float* source) {
    backend_.copy_rows({.num_rows = static_cast<int>(gather.from.size()),
                        .cols = head_->hidden_size(),
                        .source = source,
                        .source_rows = gather.from.data(),
                        .destination = head_->hidden(),
                        .destination_rows = gather.to.data()},
                       Stream{});
  };
  if (!from_features_.to.empty()) copy(from_features_, features_.data());
  if (!from_outputs_.to.empty()) copy(from_outputs_, outputs_.data());
}

}  // namespace specdec
