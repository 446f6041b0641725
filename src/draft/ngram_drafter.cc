#include "draft/ngram_drafter.h"

#include <algorithm>

namespace specdec {

std::span<const TokenId> lookup_ngram(std::span<const TokenId> tokens, int min_match, int max_match,
                                      int max_tokens) {
  const int size = static_cast<int>(tokens.size());
  int best_match = 0;
  int best_end = 0;  // one past the matched occurrence
  // Latest occurrence first; a later one loses only to a longer match.
  for (int end = size - 1; end >= min_match && best_match < max_match; --end) {
    int match = 0;
    const int longest = std::min(max_match, end);
    while (match < longest && tokens[static_cast<std::size_t>(end - 1 - match)] ==
                                  tokens[static_cast<std::size_t>(size - 1 - match)])
      ++match;
    if (match >= min_match && match > best_match) {
      best_match = match;
      best_end = end;
    }
  }
  if (best_match == 0) return {};
  return tokens.subspan(static_cast<std::size_t>(best_end),
                        static_cast<std::size_t>(std::min(max_tokens, size - best_end)));
}

void NgramDrafter::propose(std::span<const DraftContext> contexts,
                           std::span<DraftProposal> proposals) {
  for (std::size_t i = 0; i < contexts.size(); ++i) {
    const std::span<const TokenId> found =
        lookup_ngram(contexts[i].tokens, options_.prompt_lookup_min, options_.prompt_lookup_max,
                     contexts[i].max_depth);
    // The longer the match behind a token, the likelier it is; each token lengthens it.
    float match = static_cast<float>(options_.prompt_lookup_min);
    for (const TokenId token : found) {
      proposals[i].append(token, match / (match + 1.0f));
      match += 1.0f;
    }
  }
}

}  // namespace specdec
