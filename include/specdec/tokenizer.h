#pragma once

#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "specdec/export.h"
#include "specdec/request.h"
#include "specdec/types.h"

namespace specdec {

/// Text to tokens and back. Immutable after loading; every member is safe to call from any thread.
class SPECDEC_API Tokenizer {
 public:
  virtual ~Tokenizer() = default;

  virtual int vocab_size() const noexcept = 0;
  /// Any bytes are accepted, invalid UTF-8 included. `parse_special`: the text of a special token
  /// becomes that token. Where the model's tokenizer begins every text with a
  /// first token (bos), it is there, once: a chat template may have written it already.
  virtual std::vector<TokenId> encode(std::string_view text, bool parse_special = true) const = 0;
  /// The bytes that a token stands for; a special token has none unless `special` is set. Empty for
  /// an unused id.
  virtual std::string_view token_bytes(TokenId token, bool special = false) const = 0;
  /// The bytes of a run of tokens; invalid UTF-8 is possible when the run ends inside a character.
  virtual std::string decode(std::span<const TokenId> tokens, bool special = false) const = 0;
  virtual bool is_special(TokenId token) const = 0;
  /// Tokens that end an answer.
  virtual std::span<const TokenId> eos_tokens() const noexcept = 0;
  /// Renders a conversation with the model's chat template, ready for encode(). Throws
  /// Error(unsupported) when the model has no template that specdec knows, Error(invalid_argument)
  /// for a role that the template does not take.
  virtual std::string apply_chat_template(std::span<const ChatMessage> messages,
                                          bool add_generation_prompt) const = 0;
};

}  // namespace specdec
