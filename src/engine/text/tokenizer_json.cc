#include "engine/text/tokenizer_json.h"

#include <algorithm>
#include <fstream>
#include <iterator>
#include <unordered_map>

#include "engine/text/json_value.h"
#include "specdec/error.h"

namespace specdec {
namespace {

namespace fs = std::filesystem;

// Ids past this many unused ones are taken for a mistake in the file.
constexpr std::size_t kMostUnusedIds = 65536;

constexpr std::string_view kLlama3 =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
constexpr std::string_view kQwen2 =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
constexpr const char* kKnownPreTokenizers =
    " is not a pre-tokenizer that specdec knows: those of GPT-2, SmolLM2, Llama 3 and Qwen2";

// A Sequence as its parts, anything else as itself.
std::vector<JsonValue> parts(const JsonValue& value, const char* key) {
  if (value.is_null()) return {};
  if (value["type"].string() != "Sequence") return {value};
  return value[key].elements();
}

bool is_byte_level(const JsonValue& value, bool with_regex) {
  if (value["type"].string() != "ByteLevel") return false;
  if (value["add_prefix_space"].boolean(true)) {
    value["add_prefix_space"].unsupported("is true; specdec supports false alone");
  }
  return value["use_regex"].boolean(true) == with_regex;
}

std::string read_pre_tokenizer(const JsonValue& value) {
  const std::vector<JsonValue> sequence = parts(value, "pretokenizers");
  if (sequence.size() == 1 && is_byte_level(sequence[0], true)) return "gpt2";
  if (sequence.size() == 2) {
    const JsonValue& first = sequence[0];
    const std::string& type = first["type"].string();
    if (type == "Digits" && first["individual_digits"].boolean(false) &&
        is_byte_level(sequence[1], true)) {
      return "smollm";
    }
    if (type == "Split" && first["behavior"].string() == "Isolated" &&
        !first["invert"].boolean(false) && is_byte_level(sequence[1], false)) {
      const std::string_view regex = first["pattern"]["Regex"].string_or_empty();
      if (regex == kLlama3) return "llama3";
      if (regex == kQwen2) return "qwen2";
    }
  }
  value.unsupported(kKnownPreTokenizers);
}

bool read_normalizer(const JsonValue& value) {
  const std::vector<JsonValue> sequence = parts(value, "normalizers");
  for (const JsonValue& step : sequence) {
    const std::string& type = step["type"].string();
    if (type != "NFC") step.unsupported("is normalizer \"" + type + "\"; specdec knows NFC alone");
  }
  return !sequence.empty();
}

// The token that the post-processor puts first, if it puts one.
std::string_view read_first_token(const JsonValue& value) {
  for (const JsonValue& step : parts(value, "processors")) {
    if (step["type"].string() != "TemplateProcessing") continue;
    const std::vector<JsonValue> single = step["single"].elements();
    if (single.size() < 2) continue;
    const JsonValue token = single.front()["SpecialToken"];
    if (!token.is_null()) return token["id"].string();
  }
  return {};
}

class Reader {
 public:
  Reader(const JsonValue& root, TokenizerData& data) : root_(root), data_(data) {}

  void read() {
    read_model(root_["model"]);
    if (!root_["added_tokens"].is_null()) read_added(root_["added_tokens"]);
    data_.pretokenizer = read_pre_tokenizer(root_["pre_tokenizer"]);
    data_.normalize_nfc = read_normalizer(root_["normalizer"]);
    const std::string_view first = read_first_token(root_["post_processor"]);
    if (first.empty()) return;
    data_.bos_token = find(first);
    data_.add_bos = true;
    if (data_.bos_token < 0) {
      root_["post_processor"].fail("puts \"" + std::string(first) +
                                   "\" first, which is no token of the file");
    }
  }

  // The id of a token's text, or -1.
  TokenId find(std::string_view text) const {
    const auto found = std::ranges::find(data_.tokens, text);
    return text.empty() || found == data_.tokens.end()
               ? -1
               : static_cast<TokenId>(found - data_.tokens.begin());
  }

 private:
  void read_model(const JsonValue& model) {
    if (!model.is_object()) model.fail("must be an object");
    const std::string_view type =
        model["type"].is_null() ? std::string_view("BPE") : model["type"].string();
    if (type != "BPE") {
      model["type"].unsupported("is \"" + std::string(type) +
                                "\"; specdec supports byte-level BPE alone");
    }
    if (model["byte_fallback"].boolean(false)) {
      model["byte_fallback"].unsupported(
          "is true (SentencePiece-style BPE); specdec supports byte-level BPE alone");
    }
    for (const char* key : {"continuing_subword_prefix", "end_of_word_suffix"}) {
      if (!model[key].string_or_empty().empty()) model[key].unsupported("is not supported");
    }
    if (!model["dropout"].is_null()) model["dropout"].unsupported("is not supported");
    data_.ignore_merges = model["ignore_merges"].boolean(false);
    read_vocabulary(model["vocab"]);
    read_merges(model["merges"]);
    const std::string_view unknown = model["unk_token"].string_or_empty();
    if (unknown.empty()) return;
    data_.unknown_token = find(unknown);
    if (data_.unknown_token < 0) {
      model["unk_token"].fail("\"" + std::string(unknown) + "\" is not in the vocabulary");
    }
    if (model["fuse_unk"].boolean(false)) model["fuse_unk"].unsupported("is not supported");
  }

  void read_vocabulary(const JsonValue& vocab) {
    const auto& members = vocab.members();
    if (members.empty()) vocab.fail("is empty");
    data_.tokens.resize(members.size());
    for (const auto& [text, id] : members) {
      const TokenId token = JsonValue(id, data_.source, "model.vocab." + text).id();
      if (text.empty()) vocab.fail("has an empty token, id " + std::to_string(token));
      // n tokens with n different ids below n leave no gap.
      if (static_cast<std::size_t>(token) >= members.size()) {
        vocab.fail("gives token \"" + text + "\" id " + std::to_string(token) + ", but has " +
                   std::to_string(members.size()) + " tokens: the ids have a gap");
      }
      std::string& slot = data_.tokens[static_cast<std::size_t>(token)];
      if (!slot.empty()) {
        vocab.fail("gives id " + std::to_string(token) + " to \"" + slot + "\" and to \"" + text +
                   "\"");
      }
      slot = text;
    }
  }

  void read_merges(const JsonValue& merges) {
    if (merges.is_null()) merges.fail("is missing");
    std::vector<JsonValue> elements = merges.elements();
    data_.merges.reserve(elements.size());
    for (const JsonValue& merge : elements) {
      if (merge.is_string()) {
        data_.merges.push_back(merge.string());
        continue;
      }
      const std::vector<JsonValue> pair = merge.elements();
      if (pair.size() != 2) merge.fail("must be two tokens");
      for (const JsonValue& token : pair) {
        // The byte-level alphabet has a stand-in for the blank.
        if (token.string().find(' ') != std::string::npos) {
          token.fail("has a blank: no byte-level token");
        }
      }
      data_.merges.push_back(pair[0].string() + " " + pair[1].string());
    }
  }

  void read_added(const JsonValue& added) {
    const std::vector<JsonValue> elements = added.elements();
    const std::size_t most = data_.tokens.size() + elements.size() + kMostUnusedIds;
    for (const JsonValue& token : elements) {
      const auto id = static_cast<std::size_t>(token["id"].id());
      const std::string& text = token["content"].string();
      if (text.empty()) token["content"].fail("is empty");
      if (id >= most) {
        token["id"].fail(std::to_string(id) + " is far out of the vocabulary of " +
                         std::to_string(data_.tokens.size()) + " tokens");
      }
      if (id >= data_.tokens.size()) data_.tokens.resize(id + 1);
      std::string& slot = data_.tokens[id];
      if (!slot.empty() && slot != text) {
        token["id"].fail(std::to_string(id) + " is \"" + slot + "\" already, not \"" + text + "\"");
      }
      slot = text;
      for (const char* key : {"single_word", "lstrip", "rstrip"}) {
        if (token[key].boolean(false)) token[key].unsupported("is true; it is not supported");
      }
      auto& list = token["special"].boolean(false) ? data_.special_tokens : data_.added_tokens;
      list.push_back(static_cast<TokenId>(id));
    }
  }

  const JsonValue& root_;
  TokenizerData& data_;
};

// "<s>" or {"content": "<s>", ...}.
std::string_view token_text(const JsonValue& value) {
  return value.is_object() ? value["content"].string_or_empty() : value.string_or_empty();
}

std::string read_chat_template(const JsonValue& value) {
  if (value.is_null()) return {};
  if (value.is_string()) return value.string();
  std::string chosen;
  for (const JsonValue& entry : value.elements()) {
    const std::string& name = entry["name"].string();
    if (name == "default" || chosen.empty()) chosen = entry["template"].string();
  }
  return chosen;
}

void add_end_token(TokenizerData& data, TokenId token) {
  if (std::ranges::find(data.eos_tokens, token) == data.eos_tokens.end()) {
    data.eos_tokens.push_back(token);
  }
}

void read_tokenizer_config(const JsonValue& config, const Reader& reader, TokenizerData& data) {
  data.chat_template = read_chat_template(config["chat_template"]);
  const auto id_of = [&](const char* key) {
    const std::string_view text = token_text(config[key]);
    const TokenId token = reader.find(text);
    if (token < 0 && !text.empty()) {
      config[key].fail("\"" + std::string(text) + "\" is no token of tokenizer.json");
    }
    return token;
  };
  if (const TokenId bos = id_of("bos_token"); bos >= 0) data.bos_token = bos;
  data.add_bos = config["add_bos_token"].boolean(data.add_bos) && data.bos_token >= 0;
  if (const TokenId eos = id_of("eos_token"); eos >= 0) add_end_token(data, eos);
}

void read_generation_config(const JsonValue& config, TokenizerData& data) {
  const JsonValue eos = config["eos_token_id"];
  if (eos.is_null()) return;
  for (const JsonValue& value : eos.is_array() ? eos.elements() : std::vector{eos}) {
    const TokenId token = value.id();
    if (static_cast<std::size_t>(token) >= data.tokens.size()) {
      value.fail(std::to_string(token) + " is outside the vocabulary of " +
                 std::to_string(data.tokens.size()) + " tokens");
    }
    add_end_token(data, token);
  }
}

std::string read_file(const fs::path& path, bool required) {
  std::error_code none;
  if (!required && !fs::exists(path, none)) return {};
  std::ifstream file(path, std::ios::binary);
  std::string text{std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
  if (!file.is_open() || file.bad()) {
    throw Error(ErrorCode::io, path.string() + ": cannot be read" +
                                   (required ? "; a Hugging Face folder needs it" : ""));
  }
  return text;
}

}  // namespace

TokenizerData parse_tokenizer_files(const TokenizerFiles& files, const std::string& folder) {
  const auto name = [&](const char* file) { return (fs::path(folder) / file).string(); };
  TokenizerData data;
  data.source = name("tokenizer.json");
  const nlohmann::json tokenizer = parse_json_document(files.tokenizer_json, data.source);
  const JsonValue root(tokenizer, data.source);
  Reader reader(root, data);
  reader.read();
  if (!files.tokenizer_config.empty()) {
    const std::string file = name("tokenizer_config.json");
    const nlohmann::json config = parse_json_document(files.tokenizer_config, file);
    read_tokenizer_config({config, file}, reader, data);
  }
  if (!files.generation_config.empty()) {
    const std::string file = name("generation_config.json");
    const nlohmann::json config = parse_json_document(files.generation_config, file);
    read_generation_config({config, file}, data);
  }
  if (!files.chat_template.empty()) data.chat_template = files.chat_template;
  return data;
}

TokenizerData read_tokenizer_json(const fs::path& folder) {
  const std::string tokenizer = read_file(folder / "tokenizer.json", true);
  const std::string config = read_file(folder / "tokenizer_config.json", false);
  const std::string generation = read_file(folder / "generation_config.json", false);
  const std::string chat_template = read_file(folder / "chat_template.jinja", false);
  return parse_tokenizer_files({tokenizer, config, generation, chat_template}, folder.string());
}

}  // namespace specdec
