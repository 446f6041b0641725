#include <algorithm>
#include <array>
#include <utility>

#include "engine/model/gguf_model.h"
#include "specdec/error.h"

namespace specdec {
namespace {

constexpr std::string_view kTokens = "tokenizer.ggml.tokens";

[[noreturn]] void fail(const GgufFile& file, ErrorCode code, std::string_view key,
                       const std::string& what) {
  throw Error(code, file.name() + ": key " + in_quotes(key) + ": " + what);
}

/// llama.cpp's names of pre-tokenizers, by ours.
std::string pretokenizer(const GgufFile& file) {
  constexpr std::string_view kKey = "tokenizer.ggml.pre";
  constexpr std::array<std::pair<std::string_view, std::string_view>, 9> kNames = {{
      {"default", "gpt2"},
      {"gpt-2", "gpt2"},
      {"gpt2", "gpt2"},
      {"smollm", "smollm"},
      {"llama-bpe", "llama3"},
      {"llama3", "llama3"},
      {"llama-v3", "llama3"},
      {"qwen2", "qwen2"},
      {"deepseek-r1-qwen", "qwen2"},
  }};
  const std::string_view name = file.string(kKey).value_or("default");
  const auto* found = std::ranges::find(kNames, name, [](const auto& pair) { return pair.first; });
  if (found == kNames.end()) {
    fail(file, ErrorCode::unsupported, kKey,
         "pre-tokenizer " + in_quotes(name) +
             " is not supported; specdec knows gpt-2, smollm, llama-bpe and qwen2");
  }
  return std::string(found->second);
}

std::optional<TokenId> token_id(const GgufFile& file, std::string_view key, std::size_t count) {
  const auto id = file.integer(key);
  if (!id.has_value() || *id == -1) return std::nullopt;  // -1: some writers' "none"
  if (*id < 0 || static_cast<std::uint64_t>(*id) >= count) {
    fail(file, ErrorCode::invalid_model, key,
         "token " + std::to_string(*id) + " is outside the vocabulary of " + std::to_string(count));
  }
  return static_cast<TokenId>(*id);
}

/// Kinds of tokens as llama.cpp numbers them: 3 (control) is special, and 2 (unknown) stands for no
/// bytes either; 4 (user-defined) is what Hugging Face calls an added token that is not special; 5
/// is unused.
void read_token_types(const GgufFile& file, TokenizerData& data) {
  constexpr std::string_view kKey = "tokenizer.ggml.token_type";
  const auto types = file.integers(kKey);
  if (!types.has_value()) return;
  if (types->size() != data.tokens.size()) {
    fail(file, ErrorCode::invalid_model, kKey,
         "has " + std::to_string(types->size()) + " entries for " +
             std::to_string(data.tokens.size()) + " tokens");
  }
  for (std::size_t i = 0; i < types->size(); ++i) {
    const std::int64_t type = (*types)[i];
    if (type < 0 || type > 6) {
      fail(file, ErrorCode::invalid_model, kKey,
           "token " + std::to_string(i) + " has type " + std::to_string(type) +
               ", 0 to 6 are known");
    }
    if (type == 2 || type == 3) data.special_tokens.push_back(static_cast<TokenId>(i));
    if (type == 4) data.added_tokens.push_back(static_cast<TokenId>(i));
    if (type == 5) data.tokens[i].clear();
  }
}

void read_end_tokens(const GgufFile& file, TokenizerData& data) {
  const auto add = [&](TokenId id) {
    if (std::ranges::find(data.eos_tokens, id) == data.eos_tokens.end()) {
      data.eos_tokens.push_back(id);
    }
  };
  for (const std::string_view key : {"tokenizer.ggml.eos_token_id", "tokenizer.ggml.eot_token_id",
                                     "tokenizer.ggml.eom_token_id"}) {
    if (const auto id = token_id(file, key, data.tokens.size())) add(*id);
  }
  // Base models' files often name <|endoftext|> alone while the template ends turns with another
  // token; an answer ends there too.
  constexpr std::array<std::string_view, 6> kEndsOfTurn = {
      "<|im_end|>", "<|eot_id|>", "<|end|>", "<|endoftext|>", "<end_of_turn>", "</s>"};
  for (const TokenId id : data.special_tokens) {
    const std::string& text = data.tokens[static_cast<std::size_t>(id)];
    if (std::ranges::find(kEndsOfTurn, text) != kEndsOfTurn.end() &&
        data.chat_template.find(text) != std::string::npos) {
      add(id);
    }
  }
}

}  // namespace

TokenizerData read_gguf_tokenizer(const GgufFile& file, int vocab_size) {
  constexpr std::string_view kModel = "tokenizer.ggml.model";
  const auto model = file.string(kModel);
  if (!model.has_value()) {
    fail(file, ErrorCode::invalid_model, kModel, "is missing: the file has no tokenizer");
  }
  if (*model != "gpt2") {
    fail(
        file, ErrorCode::unsupported, kModel,
        in_quotes(*model) + " tokenizers are not supported; specdec reads byte-level BPE ('gpt2')");
  }
  TokenizerData data;
  data.source = file.name();
  data.pretokenizer = pretokenizer(file);
  auto tokens = file.strings(kTokens);
  if (!tokens.has_value()) fail(file, ErrorCode::invalid_model, kTokens, "is missing");
  data.tokens = std::move(*tokens);
  if (data.tokens.size() > static_cast<std::size_t>(vocab_size)) {
    fail(file, ErrorCode::invalid_model, kTokens,
         "has " + std::to_string(data.tokens.size()) + " tokens, the embedding " +
             std::to_string(vocab_size) + " rows");
  }
  constexpr std::string_view kMerges = "tokenizer.ggml.merges";
  auto merges = file.strings(kMerges);
  if (!merges.has_value()) fail(file, ErrorCode::invalid_model, kMerges, "is missing");
  data.merges = std::move(*merges);
  read_token_types(file, data);
  if (const auto text = file.string("tokenizer.chat_template")) {
    if (!is_utf8(*text)) {
      fail(file, ErrorCode::invalid_model, "tokenizer.chat_template", "is not UTF-8");
    }
    data.chat_template = *text;
  }
  data.bos_token = token_id(file, "tokenizer.ggml.bos_token_id", data.tokens.size()).value_or(-1);
  const bool llama3 = data.pretokenizer == "llama3";
  data.ignore_merges = llama3;
  // Llama 3 files written before the key existed expect the token.
  data.add_bos =
      file.boolean("tokenizer.ggml.add_bos_token").value_or(llama3) && data.bos_token >= 0;
  read_end_tokens(file, data);
  // Embedding rows past the tokenizer's vocabulary are padding: ids that no text has.
  data.tokens.resize(static_cast<std::size_t>(vocab_size));
  return data;
}

}  // namespace specdec
