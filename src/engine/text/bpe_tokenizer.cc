#include "engine/text/bpe_tokenizer.h"

#include <bit>
#include <limits>

#include "engine/text/byte_level.h"
#include "engine/text/nfc.h"
#include "specdec/error.h"

namespace specdec {
namespace {

[[noreturn]] void fail(const TokenizerData& data, const std::string& what) {
  throw Error(ErrorCode::invalid_model, data.source + ": " + what);
}

// Token ids by their text: open addressing, half full at most. It lives while merges are resolved.
class VocabularyIndex {
 public:
  explicit VocabularyIndex(const std::vector<std::string>& tokens)
      : tokens_(tokens), table_(std::bit_ceil(tokens.size() * 2 + 2), -1) {}

  // The id that has this text already, or -1 after adding it.
  TokenId add(TokenId token) {
    TokenId& entry = table_[slot(tokens_[static_cast<std::size_t>(token)], {})];
    if (entry >= 0) return entry;
    entry = token;
    return -1;
  }
  // The id of the text `head` + `tail`, or -1.
  TokenId find(std::string_view head, std::string_view tail = {}) const {
    return table_[slot(head, tail)];
  }

 private:
  static std::uint64_t hash(std::string_view text, std::uint64_t state) {
    for (const char c : text) {  // FNV-1a
      state = (state ^ static_cast<unsigned char>(c)) * 0x100000001B3u;
    }
    return state;
  }
  std::size_t slot(std::string_view head, std::string_view tail) const {
    const std::uint64_t h = hash(tail, hash(head, 0xCBF29CE484222325u));
    std::size_t at = (h ^ h >> 32) & (table_.size() - 1);
    while (table_[at] >= 0) {
      const std::string_view token = tokens_[static_cast<std::size_t>(table_[at])];
      if (token.size() == head.size() + tail.size() && token.starts_with(head) &&
          token.ends_with(tail)) {
        break;
      }
      at = (at + 1) & (table_.size() - 1);
    }
    return at;
  }

  const std::vector<std::string>& tokens_;
  std::vector<TokenId> table_;
};

std::string in_quotes(std::string_view text) { return std::string("\"").append(text).append("\""); }

}  // namespace

BpeTokenizer::BpeTokenizer(TokenizerData data)
    : kinds_(data.tokens.size(), Kind::text),
      pretokenizer_(data.pretokenizer, data.source),
      normalize_nfc_(data.normalize_nfc.value_or(data.pretokenizer == "qwen2")) {
  if (data.tokens.empty()) fail(data, "the tokenizer has no tokens");
  if (data.tokens.size() > std::numeric_limits<std::int32_t>::max() / 4) {
    fail(data, "the tokenizer has " + std::to_string(data.tokens.size()) + " tokens, too many");
  }
  for (const TokenId token : data.eos_tokens) {
    if (!in_vocabulary(token)) fail(data, "eos token " + name(token, data));
  }
  if (data.add_bos) {
    if (!in_vocabulary(data.bos_token)) fail(data, "bos token " + name(data.bos_token, data));
    bos_token_ = data.bos_token;
  }
  eos_tokens_ = data.eos_tokens;
  const auto text_of = [&](TokenId token) {
    return in_vocabulary(token) ? data.tokens[static_cast<std::size_t>(token)] : std::string();
  };
  chat_template_ = ChatTemplate(data.chat_template, text_of(data.bos_token),
                                text_of(eos_tokens_.empty() ? -1 : eos_tokens_.front()));
  mark_special(data);
  store_bytes(data);
  resolve_merges(data);
}

std::string BpeTokenizer::name(TokenId token, const TokenizerData& data) const {
  const std::string number = std::to_string(token) + " ";
  if (in_vocabulary(token)) return number + in_quotes(data.tokens[static_cast<std::size_t>(token)]);
  return number + "is outside the vocabulary of " + std::to_string(data.tokens.size()) + " tokens";
}

void BpeTokenizer::mark_special(const TokenizerData& data) {
  const auto mark = [&](const std::vector<TokenId>& tokens, Kind kind) {
    for (const TokenId token : tokens) {
      if (!in_vocabulary(token)) fail(data, "special token " + name(token, data));
      kinds_[static_cast<std::size_t>(token)] = kind;
    }
  };
  mark(data.special_tokens, Kind::special);
  mark(data.added_tokens, Kind::added);
  for (std::size_t i = 0; i < kinds_.size(); ++i) {
    if (data.tokens[i].empty()) kinds_[i] = Kind::unused;
    if (kinds_[i] != Kind::added && kinds_[i] != Kind::special) continue;
    const auto token = static_cast<TokenId>(i);
    if (!special_.add(data.tokens[i], token, kinds_[i] == Kind::added)) {
      fail(data, "special token " + name(token, data) + " is there twice");
    }
  }
}

void BpeTokenizer::store_bytes(const TokenizerData& data) {
  std::size_t total = 0;
  for (const std::string& token : data.tokens) total += token.size();
  if (total > std::numeric_limits<std::uint32_t>::max()) fail(data, "the tokens exceed 4 GiB");
  bytes_.reserve(total);
  offsets_.reserve(data.tokens.size() + 1);
  if (data.unknown_token != -1 && !in_vocabulary(data.unknown_token)) {
    fail(data, "unknown token " + name(data.unknown_token, data));
  }
  byte_token_.fill(data.unknown_token);
  for (std::size_t i = 0; i < data.tokens.size(); ++i) {
    const std::size_t begin = bytes_.size();
    offsets_.push_back(static_cast<std::uint32_t>(begin));
    // A token outside the byte-level alphabet can only be an added one: its text is literal.
    if (kinds_[i] != Kind::text || !append_byte_level_decoded(data.tokens[i], bytes_)) {
      bytes_ += data.tokens[i];
    } else if (bytes_.size() == begin + 1) {
      byte_token_[static_cast<unsigned char>(bytes_.back())] = static_cast<TokenId>(i);
    }
  }
  offsets_.push_back(static_cast<std::uint32_t>(bytes_.size()));
  bytes_.shrink_to_fit();
  if (!data.ignore_merges) return;
  std::string decoded;
  for (std::size_t i = 0; i < kinds_.size(); ++i) {
    decoded.clear();
    if (kinds_[i] != Kind::text || !append_byte_level_decoded(data.tokens[i], decoded)) continue;
    const auto token = static_cast<TokenId>(i);
    whole_.emplace(token_bytes(token, true), token);
  }
}

void BpeTokenizer::resolve_merges(const TokenizerData& data) {
  VocabularyIndex index(data.tokens);
  for (std::size_t i = 0; i < data.tokens.size(); ++i) {
    if (kinds_[i] == Kind::unused) continue;
    const TokenId other = index.add(static_cast<TokenId>(i));
    if (other >= 0) {
      fail(data, "token " + name(static_cast<TokenId>(i), data) + " has the text of token " +
                     std::to_string(other) + " too");
    }
  }
  std::vector<BpeMerge> merges;
  merges.reserve(data.merges.size());
  for (std::size_t i = 0; i < data.merges.size(); ++i) {
    const std::string_view merge = data.merges[i];
    const auto what = [&] { return "merge " + std::to_string(i) + " " + in_quotes(merge); };
    const std::size_t space = merge.find(' ');
    if (space == std::string_view::npos || space == 0 || space + 1 == merge.size() ||
        merge.find(' ', space + 1) != std::string_view::npos) {
      fail(data, what() + " is not two tokens with one space between them");
    }
    const std::string_view left = merge.substr(0, space);
    const std::string_view right = merge.substr(space + 1);
    const BpeMerge resolved{index.find(left), index.find(right), index.find(left, right)};
    if (resolved.left < 0 || resolved.right < 0 || resolved.merged < 0) {
      const std::string missing = resolved.left < 0    ? std::string(left)
                                  : resolved.right < 0 ? std::string(right)
                                                       : std::string(left) + std::string(right);
      fail(data, what() + " needs token " + in_quotes(missing) + ", which the vocabulary lacks");
    }
    merges.push_back(resolved);
  }
  merges_ = std::make_unique<BpeMerges>(std::move(merges));
  if (merges_->first_duplicate() != BpeMerges::kNone) {
    const std::size_t i = merges_->first_duplicate();
    fail(data, "merge " + std::to_string(i) + " " + in_quotes(data.merges[i]) + " is there twice");
  }
}

std::vector<TokenId> BpeTokenizer::encode(std::string_view text, bool parse_special) const {
  if (text.size() > std::numeric_limits<std::int32_t>::max()) {
    throw Error(ErrorCode::invalid_argument,
                "a text of " + std::to_string(text.size()) + " bytes is too long to tokenise");
  }
  std::vector<TokenId> tokens;
  if (bos_token_ >= 0) tokens.push_back(bos_token_);
  for (std::size_t at = 0; at < text.size();) {
    const SpecialTokens::Match match = special_.find(text, at, !parse_special);
    encode_text(text.substr(at, match.begin - at), tokens);
    at = match.end;
    // A chat template writes the first token itself: never two of them.
    const bool second_bos = match.begin == 0 && match.token == bos_token_;
    if (match.token >= 0 && !second_bos) tokens.push_back(match.token);
  }
  return tokens;
}

void BpeTokenizer::encode_text(std::string_view text, std::vector<TokenId>& tokens) const {
  std::string normalized;
  if (normalize_nfc_ && !is_trivially_nfc(text)) text = normalized = to_nfc(text);
  std::vector<std::size_t> ends;
  pretokenizer_.split(text, ends);
  std::vector<TokenId> symbols;
  std::size_t begin = 0;
  for (const std::size_t end : ends) {
    const std::string_view piece = text.substr(begin, end - begin);
    begin = end;
    if (!whole_.empty()) {
      if (const auto found = whole_.find(piece); found != whole_.end()) {
        tokens.push_back(found->second);
        continue;
      }
    }
    symbols.clear();
    for (const char c : piece) {
      const TokenId token = byte_token_[static_cast<unsigned char>(c)];
      if (token >= 0) symbols.push_back(token);
    }
    merges_->apply(symbols, tokens);
  }
}

std::string_view BpeTokenizer::token_bytes(TokenId token, bool special) const {
  if (!in_vocabulary(token)) return {};
  const auto i = static_cast<std::size_t>(token);
  if (kinds_[i] == Kind::special && !special) return {};
  return std::string_view(bytes_).substr(offsets_[i], offsets_[i + 1] - offsets_[i]);
}

std::string BpeTokenizer::decode(std::span<const TokenId> tokens, bool special) const {
  std::string text;
  for (const TokenId token : tokens) text += token_bytes(token, special);
  return text;
}

bool BpeTokenizer::is_special(TokenId token) const {
  return in_vocabulary(token) && kinds_[static_cast<std::size_t>(token)] == Kind::special;
}

std::string BpeTokenizer::apply_chat_template(std::span<const ChatMessage> messages,
                                              bool add_generation_prompt) const {
  return chat_template_.render(messages, add_generation_prompt);
}

std::unique_ptr<Tokenizer> make_bpe_tokenizer(TokenizerData data) {
  return std::make_unique<BpeTokenizer>(std::move(data));
}

}  // namespace specdec
