#include "draft/twin_text.h"

#include <algorithm>

#include "sampling/mutation.h"

namespace specdec {

namespace {

bool is_space(char c) { return c == ' ' || (c >= '\t' && c <= '\r'); }

/// Whether the pre-tokenizers of byte-level BPE cut before `token`: a blank belongs to the word
/// behind it, and special tokens stand alone.
bool begins_word(const Tokenizer& tokenizer, TokenId before, TokenId token) {
  if (tokenizer.is_special(before) || mutant_active("twin_text_cut_in_words")) return true;
  const std::string_view left = tokenizer.token_bytes(before);
  const std::string_view right = tokenizer.token_bytes(token);
  return !left.empty() && !is_space(left.back()) && right.starts_with(' ');
}

/// encode() without the first token that the tokenizer puts before every text.
std::vector<TokenId> spelled(const Tokenizer& tokenizer, std::string_view text) {
  std::vector<TokenId> tokens = tokenizer.encode(text);
  const std::vector<TokenId> first = tokenizer.encode("");
  if (!first.empty() && std::ranges::equal(std::span(tokens).first(first.size()), first))
    tokens.erase(tokens.begin(), tokens.begin() + static_cast<std::ptrdiff_t>(first.size()));
  return tokens;
}

}  // namespace

void TwinText::follow(std::span<const TokenId> tokens) {
  // Text without blanks is cut somewhere all the same, or it would be run again in every step.
  constexpr std::size_t kMostOpen = 64;  // of the target's tokens
  if (num_settled_ == 0 && settled_.empty()) settled_ = draft_->encode("");
  std::size_t end = tokens.size() - 1;
  while (end > num_settled_ && !begins_word(*target_, tokens[end - 1], tokens[end])) --end;
  if (tokens.size() - end > kMostOpen) end = tokens.size() - 1;
  if (end > num_settled_) {
    const std::string text =
        target_->decode(tokens.subspan(num_settled_, end - num_settled_), true);
    const std::vector<TokenId> more = spelled(*draft_, text);
    settled_.insert(settled_.end(), more.begin(), more.end());
    num_settled_ = end;
  }
  rest_.assign(tokens.begin() + static_cast<std::ptrdiff_t>(end), tokens.end());
  open_ = spelled(*draft_, target_->decode(rest_, true));
}

std::vector<TokenId> TwinText::continuation(std::string_view text) const {
  std::vector<TokenId> tokens = spelled(*target_, target_->decode(rest_, true) + std::string(text));
  if (tokens.size() < rest_.size() ||
      !std::ranges::equal(std::span(tokens).first(rest_.size()), rest_))
    return spelled(*target_, text);
  tokens.erase(tokens.begin(), tokens.begin() + static_cast<std::ptrdiff_t>(rest_.size()));
  return tokens;
}

}  // namespace specdec
