#include "engine/early_exit.h"

#include <algorithm>
#include <numeric>
#include <vector>

#include "sampling/mutation.h"

namespace specdec {

EarlyExitAdapter::EarlyExitAdapter(Backend& backend, Transformer& target, int exit_layer,
                                   int max_context)
    : target_(target),
      exit_layer_(exit_layer - (mutant_active("exit_layer_off_by_one") ? 1 : 0)),
      max_position_(std::min(max_context, target.config().max_position)),
      states_(backend, target.config().hidden_size, 2 * target.max_rows()) {}

const KvPoolStorage* EarlyExitAdapter::pool() const noexcept {
  return mutant_active("shared_kv_moved_twice") ? &target_.pool() : nullptr;
}

void EarlyExitAdapter::begin(std::span<Sequence* const> sequences) {
  TokenAdapter::begin(sequences);
  states_.begin(sequences);
}

std::span<const float> EarlyExitAdapter::forward(std::span<const DraftRows> batch) {
  const std::span<const float> logits = TokenAdapter::forward(batch);
  states_.keep(batch, target_.hidden(), this->batch().output_rows(), Stream{});
  return logits;
}

std::span<const float> EarlyExitAdapter::run(const ForwardBatch& batch) {
  return target_.forward_early(batch, exit_layer_, Stream{});
}

void EarlyExitAdapter::run_first_layers(const ForwardBatch& batch) {
  std::vector<std::int32_t> rows(static_cast<std::size_t>(batch.num_rows()));
  std::iota(rows.begin(), rows.end(), 0);
  rest_.assign_rows(batch, rows);
  target_.forward_early(rest_, exit_layer_, Stream{});
}

std::span<const float> EarlyExitAdapter::verify(const ForwardBatch& batch,
                                                std::span<const std::int32_t> states) {
  std::vector<std::int32_t> from(states.begin(), states.end());
  std::vector<std::int32_t> not_run;
  for (std::size_t row = 0; row < states.size(); ++row)
    if (states[row] < 0) not_run.push_back(static_cast<std::int32_t>(row));
  if (not_run.size() == states.size()) return target_.forward_on_device(batch, Stream{});
  if (!not_run.empty()) {
    rest_.assign_rows(batch, not_run);
    target_.forward_early(rest_, exit_layer_, Stream{});
    std::int32_t next = states_.append(target_.hidden(), rest_.num_rows(), Stream{});
    for (const std::int32_t row : not_run) from[static_cast<std::size_t>(row)] = next++;
  }
  const int layer = exit_layer_ + (mutant_active("early_state_off_by_layer") ? 1 : 0);
  return target_.forward_late(batch, layer, states_.data(), from, Stream{});
}

}  // namespace specdec
