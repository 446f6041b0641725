#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "engine/text/bpe_merges.h"
#include "engine/text/chat_template.h"
#include "engine/text/pretokenizer.h"
#include "engine/text/special_tokens.h"
#include "engine/text/tokenizer_data.h"
#include "specdec/tokenizer.h"

namespace specdec {

/// Byte-level BPE (GPT-2) as Python's `tokenizers` computes it: special tokens are cut out first,
/// then the pre-tokenizer cuts the text, then merges run within each piece. A byte that the
/// vocabulary has no token for is dropped, as there.
class BpeTokenizer final : public Tokenizer {
 public:
  /// See make_bpe_tokenizer().
  explicit BpeTokenizer(TokenizerData data);

  int vocab_size() const noexcept override { return static_cast<int>(kinds_.size()); }
  std::vector<TokenId> encode(std::string_view text, bool parse_special) const override;
  std::string_view token_bytes(TokenId token, bool special) const override;
  std::string decode(std::span<const TokenId> tokens, bool special) const override;
  bool is_special(TokenId token) const override;
  std::span<const TokenId> eos_tokens() const noexcept override { return eos_tokens_; }
  std::string apply_chat_template(std::span<const ChatMessage> messages,
                                  bool add_generation_prompt) const override;

 private:
  // text: an ordinary token; added: matched whole, but its text shows; special: matched whole,
  // without bytes; unused: an id without text.
  enum class Kind : std::uint8_t { text, added, special, unused };

  void mark_special(const TokenizerData& data);
  void store_bytes(const TokenizerData& data);
  void resolve_merges(const TokenizerData& data);
  std::string name(TokenId token, const TokenizerData& data) const;
  bool in_vocabulary(TokenId token) const noexcept {
    return token >= 0 && static_cast<std::size_t>(token) < kinds_.size();
  }
  void encode_text(std::string_view text, std::vector<TokenId>& tokens) const;

  std::string bytes_;                   // of all tokens, one after the other
  std::vector<std::uint32_t> offsets_;  // [vocab + 1] into bytes_
  std::vector<Kind> kinds_;             // [vocab]
  std::array<TokenId, 256> byte_token_{};
  std::unique_ptr<BpeMerges> merges_;
  std::unordered_map<std::string_view, TokenId> whole_;  // by bytes; filled for ignore_merges
  SpecialTokens special_;
  Pretokenizer pretokenizer_;
  bool normalize_nfc_ = false;
  TokenId bos_token_ = -1;  // -1: encode() adds none
  std::vector<TokenId> eos_tokens_;
  ChatTemplate chat_template_;
};

}  // namespace specdec
