#include "engine/draft_adapter.h"

#include <algorithm>
#include <limits>

#include "sampling/mutation.h"

namespace specdec {

std::span<const float> TokenAdapter::forward(std::span<const DraftRows> batch) {
  batch_.clear();
  for (const DraftRows& rows : batch) {
    batch_.begin_sequence(rows.context_len,
                          sequences_[static_cast<std::size_t>(rows.sequence)]->kv.block_table());
    for (const DraftRow& row : rows.rows) batch_.add_row(row);
  }
  return run(batch_);
}

std::span<const float> spread_logits(std::span<const float> logits, std::span<const TokenId> tokens,
                                     int vocab_size, std::vector<float>& spread) {
  if (tokens.empty()) return logits;
  const auto vocab = static_cast<std::size_t>(vocab_size);
  const std::size_t rows = logits.size() / tokens.size();
  const std::size_t shift = mutant_active("draft_tokens_shifted") ? 1 : 0;
  spread.assign(rows * vocab, -std::numeric_limits<float>::infinity());
  for (std::size_t row = 0; row < rows; ++row)
    for (std::size_t i = shift; i < tokens.size(); ++i)
      spread[row * vocab + static_cast<std::size_t>(tokens[i - shift])] =
          logits[row * tokens.size() + i];
  return spread;
}

TransformerAdapter::TransformerAdapter(std::unique_ptr<Transformer> transformer, int max_context)
    : transformer_(std::move(transformer)),
      max_position_(std::min(max_context, transformer_->config().max_position)) {}

std::span<const float> TransformerAdapter::run(const ForwardBatch& batch) {
  return spread_logits(transformer_->forward(batch, Stream{}), transformer_->head_tokens(),
                       vocab_size(), logits_);
}

}  // namespace specdec
