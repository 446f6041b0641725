#pragma once

#include <functional>
#include <span>
#include <string>
#include <vector>

#include "specdec/config.h"
#include "specdec/types.h"
#include "tools/specdec_bench/prompts.h"

namespace specdec::tune {

/// The tokens that a draft model should know, for draft.vocabulary_list.
struct Vocabulary {
  std::vector<TokenId> tokens;  ///< most frequent first
  std::size_t num_seen = 0;     ///< of them, in prompts or answers
  std::size_t num_prompts = 0;  ///< that were answered before the time was over
  /// Share of the tokens of every fourth prompt's answer that a list made without those prompts
  /// would hold; 0 with fewer than four.
  double coverage = 0;
};

/// The `size` tokens that come most often in `texts`; `always` (the ends of sequence) stand first.
/// Ties, and what never comes, by number: byte-pair vocabularies number what is frequent low.
std::vector<TokenId> frequent_tokens(std::span<const std::vector<TokenId>> texts,
                                     std::span<const TokenId> always, int size, int vocab_size);

/// Lets the target answer the prompts, as `config` says, and takes the tokens of prompts and
/// answers. `progress` is called with the share of the prompts that are done; true ends it. Throws
/// Error.
Vocabulary make_vocabulary(const Config& config, const std::vector<bench::Prompt>& prompts,
                           int size, const std::function<bool(double)>& progress);

/// As draft.vocabulary_list reads it.
std::string vocabulary_text(const Vocabulary& vocabulary, const std::string& prompts);

}  // namespace specdec::tune
