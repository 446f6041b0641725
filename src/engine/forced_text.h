#pragma once

#include <span>
#include <unordered_map>
#include <vector>

#include "engine/sequence.h"
#include "specdec/tokenizer.h"

namespace specdec {

/// Drafts the text that a grammar leaves no choice about, as tokens to be verified like others: the
/// model may spell it otherwise, and where it did, its spelling is drafted the next time. Stepping
/// thread only. Members that follow a grammar throw what GrammarMatcher throws.
class ForcedText {
 public:
  explicit ForcedText(const Tokenizer& tokenizer) : tokenizer_(tokenizer) {}

  /// Sets sequence.forced to the tokens of what must come next, up to what the step may draft;
  /// empty where that is not worth a draft of its own.
  void begin(Sequence& sequence) const;
  /// Goes on from each leaf of a tree that prune_by_grammar() has seen with the text that must
  /// follow it, as far as the step's nodes and depth go, the likeliest leaves first. A draft that
  /// was drawn at random takes no strangers. The tree is valid whatever is thrown.
  void extend(Sequence& sequence) const;
  /// Takes note of how the model spelt what was forced. After acceptance.
  void learn(const Sequence& sequence);

 private:
  std::vector<TokenId> tokens_of(const GrammarMatcher& grammar, int most) const;
  void extend(Sequence& sequence, int leaf) const;

  const Tokenizer& tokenizer_;
  /// Where the tokenizer has the first, the model had the second, a beginning of it.
  std::unordered_map<TokenId, TokenId> spelling_;
};

}  // namespace specdec
