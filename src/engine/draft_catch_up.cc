#include "engine/draft_catch_up.h"

#include <algorithm>
#include <numeric>
#include <utility>
#include <vector>

#include "sampling/mutation.h"

namespace specdec {

/// A sequence that a draft comes back to.
struct DraftCatchUp::Again {
  Sequence* sequence = nullptr;
  int next = 0;       // position that the target has yet to run again
  int first_row = 0;  // of its rows in the pass
  int num_rows = 0;   // 0: it has no part in the pass

  int left() const { return sequence->size() - 1 - next; }
};

DraftCatchUp::DraftCatchUp(DraftAdapter& adapter) : adapter_(adapter) {}

DraftCatchUp::DraftCatchUp(FeatureAdapter& adapter, Transformer& target)
    : adapter_(adapter), features_(&adapter), target_(&target) {}

void DraftCatchUp::run(std::span<Sequence* const> sequences, int left) {
  adapter_.begin(sequences);
  std::vector<DraftRows> batch;
  do {
    batch.clear();
    int room = adapter_.max_rows();
    for (std::size_t i = 0; i < sequences.size() && room > 0; ++i) {
      Sequence& sequence = *sequences[i];
      int& length = sequence.draft_length;
      if (sequence.uses_features) length = std::max({1, length, sequence.features.begin()});
      const int end = sequence.uses_features ? sequence.features.end() : sequence.size();
      const int count = std::min(end - left - length, room);
      if (count <= 0) continue;
      DraftRows& rows = batch.emplace_back(
          DraftRows{.sequence = static_cast<int>(i), .context_len = length, .rows = {}});
      for (int entry = length; entry < length + count; ++entry)
        rows.rows.push_back({.token = sequence.tokens[static_cast<std::size_t>(entry)],
                             .position = entry,
                             .path_slots = {},
                             .wants_logits = false});
      length += count;
      room -= count;
    }
    if (!batch.empty()) adapter_.forward(batch);
  } while (!batch.empty());
  for (Sequence* sequence : sequences)
    if (sequence->uses_features) sequence->features.drop_before(sequence->draft_length);
}

void DraftCatchUp::flush(std::span<Sequence* const> sequences) {
  if (features_ == nullptr || adapter_.pool() == nullptr) return;
  std::vector<Sequence*> full;
  for (Sequence* sequence : sequences) {
    if (sequence->features.size() <= kMostPending || !sequence->reservation.claim_draft()) continue;
    // Claiming may have found more.
    sequence->draft_length = std::max(sequence->draft_length, sequence->kv.length(KvPool::draft));
    full.push_back(sequence);
  }
  run(full, 1);
}

bool DraftCatchUp::has_gap(const FeatureRows& features, int draft_length) const {
  return adapter_.pool() != nullptr && features.begin() > std::max(1, draft_length);
}

bool DraftCatchUp::has_lost(const Sequence& sequence) const {
  if (features_ == nullptr) return false;
  const FeatureRows& features = sequence.features;
  return !sequence.uses_features || features.size() == 0 || features.end() != sequence.size() ||
         has_gap(features, std::max(sequence.draft_length, sequence.kv.length(KvPool::draft)));
}

int DraftCatchUp::num_missed(const Sequence& sequence) const {
  // Heads without KV begin with the hidden state that the coming step leaves.
  if (features_ == nullptr || adapter_.pool() == nullptr) return 0;
  return sequence.size() - std::max(1, sequence.kv.length(KvPool::draft));
}

void DraftCatchUp::bring_back(std::span<Sequence* const> sequences) {
  if (features_ == nullptr) return;
  std::vector<Again> all;
  for (Sequence* sequence : sequences) {
    sequence->uses_features = true;
    if (adapter_.pool() == nullptr) continue;  // it begins with what the coming step leaves
    if (mutant_active("returned_entries_stale")) sequence->draft_length = sequence->size() - 1;
    sequence->draft_length = std::max(1, sequence->draft_length);
    // An entry is made of the hidden state of the position before.
    all.push_back({.sequence = sequence, .next = sequence->draft_length - 1});
  }
  for (;;) {
    fill(all);
    if (batch_.num_rows() == 0) return;
    target_->forward_on_device(batch_, Stream{}, &features_->tap());
    num_run_again_ += batch_.num_rows();
    std::vector<Sequence*> ran;
    for (Again& again : all) {
      if (again.num_rows == 0) continue;
      std::vector<std::int32_t> rows(static_cast<std::size_t>(again.num_rows));
      std::iota(rows.begin(), rows.end(), again.first_row);
      if (mutant_active("returned_features_shifted") && rows.size() > 1)
        std::rotate(rows.begin(), rows.begin() + 1, rows.end());
      features_->keep(*again.sequence, again.next + 1, rows);
      again.next += again.num_rows;
      if (again.sequence->features.end() == again.next + 1)
        ran.push_back(again.sequence);
      else
        again.next = again.sequence->size() - 1;  // no room: it goes on without
    }
    run(ran, 1);
  }
}

/// The next pass: as many of their rows as it may have.
void DraftCatchUp::fill(std::span<Again> sequences) {
  batch_.clear();
  int room = std::min(target_->max_rows(), adapter_.max_rows());
  const int block_size = target_->pool().layer(0).block_size;
  // Rows of two sequences must not write one slot. What a reservation has claimed is its own, but
  // the first of these positions lies before that, and two may share it.
  std::vector<std::pair<BlockId, int>> firsts;
  for (Again& again : sequences) {
    again.num_rows = 0;
    const std::span<const BlockId> table = again.sequence->kv.block_table();
    const int count = std::min(again.left(), room);
    if (count == 0) continue;
    const std::pair first{table[static_cast<std::size_t>(again.next / block_size)], again.next};
    if (std::ranges::find(firsts, first) != firsts.end()) continue;
    firsts.push_back(first);
    again.num_rows = count;
    again.first_row = batch_.num_rows();
    room -= count;
    batch_.begin_sequence(again.next, table);
    const int shift = mutant_active("returned_rows_misplaced") ? 1 : 0;
    for (int position = again.next; position < again.next + count; ++position)
      batch_.add_row(again.sequence->tokens[static_cast<std::size_t>(position)], position + shift,
                     false);
  }
}

void DraftCatchUp::run_again(const ForwardBatch& batch) {
  target_->forward(batch, Stream{}, &features_->tap());
  adapter_.run(batch);
}

}  // namespace specdec
