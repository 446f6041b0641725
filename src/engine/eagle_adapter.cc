#include "engine/eagle_adapter.h"

#include <algorithm>
#include <utility>

namespace specdec {

EagleAdapter::EagleAdapter(Backend& backend, std::unique_ptr<EagleHead> head, int max_context,
                           int max_pending)
    : backend_(backend),
      head_(std::move(head)),
      max_position_(std::min(max_context, head_->max_position())),
      features_(backend, max_pending, head_->hidden_size()) {}

void EagleAdapter::begin(std::span<Sequence* const> sequences) {
  sequences_ = sequences;
  num_outputs_ = 0;
  output_rows_.assign(sequences.size(), {});
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

std::int32_t& EagleAdapter::output_at(std::size_t sequence, int slot) {
  std::vector<std::int32_t>& rows = output_rows_[sequence];
  const auto at = static_cast<std::size_t>(slot - (sequences_[sequence]->size() - 1));
  if (rows.size() <= at) rows.resize(at + 1, -1);
  return rows[at];
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
                                      : output_at(index, parent_slot));
      gather.to.push_back(at);
    }
  }
  fill_hidden();
  const std::span<const float> logits = head_->forward(batch_, Stream{});
  if (batch_.num_outputs() == 0) return {};
  keep_outputs(batch);
  return spread_logits(logits, head_->target_tokens(), vocab_size(), logits_);
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
  if (!from_outputs_.to.empty()) copy(from_outputs_, outputs_.as<float>());
}

void EagleAdapter::keep_outputs(std::span<const DraftRows> batch) {
  const auto width = static_cast<std::size_t>(head_->hidden_size());
  const auto needed = static_cast<std::size_t>(num_outputs_ + batch_.num_outputs());
  if (const std::size_t bytes = needed * width * sizeof(float); outputs_.bytes() < bytes) {
    DeviceBuffer larger = backend_.allocate(2 * bytes, MemoryUse::scratch);
    if (num_outputs_ > 0)
      backend_.copy_rows({.num_rows = num_outputs_,
                          .cols = head_->hidden_size(),
                          .source = outputs_.as<float>(),
                          .destination = larger.as<float>()},
                         Stream{});
    outputs_ = std::move(larger);
  }
  std::vector<std::int32_t> to;
  for (const DraftRows& rows : batch)
    for (const DraftRow& row : rows.rows) {
      if (!row.wants_logits) continue;
      const int slot = row.path_slots.empty() ? row.position : row.path_slots.back();
      output_at(static_cast<std::size_t>(rows.sequence), slot) = num_outputs_;
      to.push_back(num_outputs_++);
    }
  backend_.copy_rows({.num_rows = static_cast<int>(to.size()),
                      .cols = head_->hidden_size(),
                      .source = head_->hidden(),
                      .source_rows = batch_.output_rows().data(),
                      .destination = outputs_.as<float>(),
                      .destination_rows = to.data()},
                     Stream{});
}

}  // namespace specdec
