#pragma once

#include <cstddef>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "specdec/tokenizer.h"
#include "specdec/types.h"

namespace specdec {

/// One text in two vocabularies, the target's and a draft's, which meet in nothing but their bytes
/// (string-level exact match: Timor et al., arXiv 2502.05202).
///
/// The draft spells the text itself. What lies before the last place where no tokenizer joins
/// letters (a word's beginning, a special token's end) is settled: its spelling never changes, so
/// the draft's KV of it stays right. The rest is spelled anew whenever the text has grown.
class TwinText {
 public:
  /// Both tokenizers outlive it.
  TwinText(const Tokenizer& target, const Tokenizer& draft) : target_(&target), draft_(&draft) {}

  /// The text is now that of `tokens`, the target's; it begins with the text of the last call.
  void follow(std::span<const TokenId> tokens);

  /// The draft's tokens of the settled text: they only grow.
  std::span<const TokenId> settled() const noexcept { return settled_; }
  /// The draft's tokens of the rest.
  std::span<const TokenId> open() const noexcept { return open_; }

  /// The target's tokens of `text` behind what was followed: as the target spells the last word and
  /// `text` together, or `text` alone where that does not begin with the tokens that are there.
  std::vector<TokenId> continuation(std::string_view text) const;

 private:
  const Tokenizer* target_;
  const Tokenizer* draft_;
  std::size_t num_settled_ = 0;  // of the target's tokens
  std::vector<TokenId> rest_;    // of the target's tokens
  std::vector<TokenId> settled_;
  std::vector<TokenId> open_;
};

}  // namespace specdec
