#pragma once

#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "specdec/tokenizer.h"

namespace specdec {

/// What a byte-level BPE tokenizer is made of, from GGUF metadata or tokenizer.json. Tokens and
/// merges are in the byte-level alphabet (GPT-2's printable stand-ins), as both formats store them.
struct TokenizerData {
  std::string source;               // file name, for messages
  std::string pretokenizer;         // gpt2 | smollm | llama3 | qwen2 (GGUF: "llama-bpe" = llama3,
                                    // "default"/"gpt-2" = gpt2)
  std::vector<std::string> tokens;  // [vocab]; an unused id is empty
  std::vector<std::string> merges;  // "left right", best first
  std::vector<TokenId> special_tokens;  // never split; their text is literal, not byte-level (GGUF
                                        // types control and user-defined)
  std::vector<TokenId> added_tokens;    // matched whole like special ones, even where special
                                        // tokens are not parsed, but text: decode() shows them
  std::optional<bool> normalize_nfc;    // text is brought to NFC first; unset: as the
                                        // pre-tokenizer's family does (qwen2)
  TokenId bos_token = -1;
  bool add_bos = false;
  TokenId unknown_token = -1;  // stands for a byte that has no token; -1: such bytes are dropped
  bool ignore_merges = false;  // a pretoken that is a whole token is taken as it is (llama3)
  std::vector<TokenId> eos_tokens;
  std::string chat_template;  // Jinja text; empty = none
};

/// Builds the tokenizer. Throws Error (invalid_model, unsupported) naming `source` and what is
/// wrong.
std::unique_ptr<Tokenizer> make_bpe_tokenizer(TokenizerData data);

/// Reads a Hugging Face tokenizer.json (and tokenizer_config.json and generation_config.json beside
/// it, where present).
TokenizerData read_tokenizer_json(const std::filesystem::path& folder);

}  // namespace specdec
