#pragma once

#include "specdec/config.h"
#include "specdec/drafter.h"

namespace specdec {

/// Prompt lookup decoding: finds the longest suffix of the sequence, between prompt_lookup_min and
/// prompt_lookup_max tokens, that occurred before, and proposes what followed its latest
/// occurrence. Costs no model pass.
class NgramDrafter final : public Drafter {
 public:
  explicit NgramDrafter(const NgramConfig& options) : options_(options) {}

  std::string_view name() const noexcept override { return "ngram"; }
  void propose(std::span<const DraftContext> contexts, std::span<DraftProposal> proposals) override;

 private:
  NgramConfig options_;
};

/// What followed the latest earlier occurrence of the longest matching suffix; empty when there is
/// none.
std::span<const TokenId> lookup_ngram(std::span<const TokenId> tokens, int min_match, int max_match,
                                      int max_tokens);

}  // namespace specdec
