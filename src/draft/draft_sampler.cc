#include "draft/draft_sampler.h"

#include <limits>

#include "sampling/mutation.h"
#include "sampling/penalties.h"

namespace specdec {

DraftSampler::DraftSampler(int vocab_size, std::span<const TokenId> tokens)
    : tokens_(tokens), whole_(vocab_size), direct_(static_cast<int>(tokens.size())) {
  if (!tokens.empty())
    spread_.assign(static_cast<std::size_t>(vocab_size), -std::numeric_limits<float>::infinity());
}

// Noise, penalties, bias and masks go by the target's numbers.
bool DraftSampler::reads_directly(const RowContext& row) const {
  return !tokens_.empty() && row.options->temperature <= 0 && !has_edits(row);
}

std::span<const float> DraftSampler::spread(std::span<const float> logits) {
  if (tokens_.empty()) return logits;
  const std::size_t shift = mutant_active("draft_tokens_shifted") ? 1 : 0;
  for (std::size_t i = shift; i < tokens_.size(); ++i)
    spread_[static_cast<std::size_t>(tokens_[i - shift])] = logits[i];
  return spread_;
}

void DraftSampler::coupled_candidates(std::span<const float> logits, const RowContext& row, int k,
                                      std::vector<DraftCandidate>& out) {
  if (!reads_directly(row)) {
    whole_.coupled_candidates(spread(logits), row, k, out);
    return;
  }
  direct_.coupled_candidates(logits, row, k, out);
  for (DraftCandidate& candidate : out)
    candidate.token = tokens_[static_cast<std::size_t>(
        mutant_active("draft_tokens_shifted") && candidate.token > 0 ? candidate.token - 1
                                                                     : candidate.token)];
}

float DraftSampler::confidence(std::span<const float> logits, const RowContext& row) {
  return reads_directly(row) ? direct_.confidence(logits, row)
                             : whole_.confidence(spread(logits), row);
}

void DraftSampler::probabilities(std::span<const float> logits, const RowContext& row,
                                 std::span<float> out) {
  whole_.probabilities(spread(logits), row, out);
}

}  // namespace specdec
