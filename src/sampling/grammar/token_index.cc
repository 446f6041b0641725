#include "sampling/grammar/token_index.h"

#include <algorithm>
#include <utility>

#include "sampling/grammar/utf8.h"

namespace specdec::grammar {
namespace {

// Characters of a plain token; 0 for others.
std::size_t plain_chars(std::string_view token) {
  std::size_t count = 0;
  for (std::size_t i = 0; i < token.size(); ++count) {
    const auto byte = static_cast<unsigned char>(token[i]);
    const std::size_t length = utf8_length(token.substr(i));
    if (length == 0 || byte < 0x20 || byte == 0x7F || byte == '"' || byte == '\\') return 0;
    i += length;
  }
  return count;
}

}  // namespace

TokenIndex::TokenIndex(std::span<const std::string_view> bytes)
    : words_((bytes.size() + 63) / 64),
      bits_(kMaxShortBytes * words_, 0),
      holding_(kNumByteKinds * words_, 0) {
  std::vector<TokenId> marked, plain, long_marked, long_plain;
  for (std::size_t i = 0; i < bytes.size(); ++i) {
    if (bytes[i].empty()) continue;
    const auto token = static_cast<TokenId>(i);
    const std::size_t chars = plain_chars(bytes[i]);
    if (bytes[i].size() > kMaxShortBytes) {
      (chars == 0 ? long_marked : long_plain).push_back(token);
      continue;
    }
    (chars == 0 ? marked : plain).push_back(token);
    for (std::size_t row = chars; 0 < row && row <= kMaxShortBytes; ++row)
      bits_[(row - 1) * words_ + (i >> 6)] |= 1ull << (i & 63);
    if (chars == 0) continue;
    for (const char byte : bytes[i]) {
      const auto kind = static_cast<std::size_t>(kind_of(static_cast<unsigned char>(byte)));
      holding_[kind * words_ + (i >> 6)] |= 1ull << (i & 63);
    }
  }
  marked_ = TokenTrie(bytes, std::move(marked));
  plain_ = TokenTrie(bytes, std::move(plain));
  long_marked_ = TokenTrie(bytes, std::move(long_marked));
  long_plain_ = TokenTrie(bytes, std::move(long_plain));
}

}  // namespace specdec::grammar
