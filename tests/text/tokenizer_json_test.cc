#include "engine/text/tokenizer_json.h"

#include <doctest/doctest.h>

#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>

#include "engine/text/byte_level.h"
#include "specdec/error.h"
#include "test_models.h"

using namespace specdec;
using nlohmann::json;

namespace {

const std::string kLlama3Regex =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
const std::string kQwen2Regex =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";

json byte_level(bool use_regex) {
  return {{"type", "ByteLevel"},
          {"add_prefix_space", false},
          {"trim_offsets", true},
          {"use_regex", use_regex}};
}

json sequence(const char* key, std::vector<json> parts) {
  return {{"type", "Sequence"}, {key, std::move(parts)}};
}

json split(const std::string& regex) {
  return {{"type", "Split"},
          {"pattern", {{"Regex", regex}}},
          {"behavior", "Isolated"},
          {"invert", false}};
}

json added(int id, const std::string& text, bool special = true) {
  return {{"id", id},        {"content", text}, {"special", special}, {"single_word", false},
          {"lstrip", false}, {"rstrip", false}, {"normalized", false}};
}

// GPT-2 style, 256 bytes, two merges, two special tokens.
json small_tokenizer() {
  json vocab = json::object();
  for (int byte = 0; byte < 256; ++byte) {
    vocab[byte_level_encoded(std::string(1, static_cast<char>(byte)))] = byte;
  }
  vocab["ab"] = 256;
  vocab["abc"] = 257;
  return {{"version", "1.0"},
          {"added_tokens", {added(258, "<s>"), added(259, "</s>")}},
          {"normalizer", nullptr},
          {"pre_tokenizer", byte_level(true)},
          {"post_processor", byte_level(true)},
          {"decoder", byte_level(true)},
          {"model",
           {{"type", "BPE"},
            {"dropout", nullptr},
            {"unk_token", nullptr},
            {"continuing_subword_prefix", ""},
            {"end_of_word_suffix", ""},
            {"fuse_unk", false},
            {"byte_fallback", false},
            {"vocab", vocab},
            {"merges", {"a b", "ab c"}}}}};
}

TokenizerData parse(const json& tokenizer, const std::string& config = "",
                    const std::string& generation = "", const std::string& chat = "") {
  const std::string text = tokenizer.dump();
  return parse_tokenizer_files({text, config, generation, chat}, "folder");
}

template <class Run>
void refuses(ErrorCode code, const std::string& part, Run run) {
  try {
    run();
    FAIL_CHECK("no error where " << part << " was expected");
  } catch (const Error& error) {
    INFO(std::string(error.what()));
    CHECK(std::string(error.what()).find(part) != std::string::npos);
    CHECK(std::string(error.what()).starts_with("folder/"));
    CHECK(error.code() == code);
  }
}

void refuses_change(ErrorCode code, const std::string& part, void (*change)(json&)) {
  json tokenizer = small_tokenizer();
  change(tokenizer);
  refuses(code, part, [&] { make_bpe_tokenizer(parse(tokenizer)); });
}

constexpr ErrorCode kInvalid = ErrorCode::invalid_model, kUnsupported = ErrorCode::unsupported;

}  // namespace

TEST_CASE("tokenizer.json of SmolLM2's shape gives what the GGUF file gives") {
  const TokenizerData gguf = smollm2_data();
  json tokenizer = small_tokenizer();
  tokenizer["model"]["vocab"] = json::object();
  for (std::size_t i = 0; i < gguf.tokens.size(); ++i)
    tokenizer["model"]["vocab"][gguf.tokens[i]] = i;
  tokenizer["added_tokens"] = json::array();
  for (const TokenId id : gguf.special_tokens) {
    tokenizer["added_tokens"].push_back(added(id, gguf.tokens[static_cast<std::size_t>(id)]));
  }
  tokenizer["pre_tokenizer"] = sequence(
      "pretokenizers", {{{"type", "Digits"}, {"individual_digits", true}}, byte_level(true)});
  json pairs = json::array();
  for (const std::string& merge : gguf.merges) {
    const std::size_t space = merge.find(' ');
    pairs.push_back({merge.substr(0, space), merge.substr(space + 1)});
  }
  for (const json& merges : {json(gguf.merges), pairs}) {
    tokenizer["model"]["merges"] = merges;
    const TokenizerData data = parse(tokenizer, json{{"eos_token", "<|im_end|>"},
                                                     {"bos_token", "<|im_start|>"},
                                                     {"chat_template", gguf.chat_template}}
                                                    .dump());
    CHECK(data.tokens == gguf.tokens);
    CHECK(data.merges == gguf.merges);
    CHECK(data.special_tokens == gguf.special_tokens);
    CHECK(data.pretokenizer == gguf.pretokenizer);
    CHECK(data.bos_token == gguf.bos_token);
    CHECK(data.add_bos == gguf.add_bos);
    CHECK(data.eos_tokens.front() == gguf.eos_tokens.front());
    CHECK(data.chat_template == gguf.chat_template);
  }
}

TEST_CASE("the four pre-tokenizers and the normalizer are recognised") {
  const auto name = [](const json& pre_tokenizer) {
    json tokenizer = small_tokenizer();
    tokenizer["pre_tokenizer"] = pre_tokenizer;
    return parse(tokenizer).pretokenizer;
  };
  CHECK(name(byte_level(true)) == "gpt2");
  CHECK(name({{"type", "ByteLevel"}, {"add_prefix_space", false}}) == "gpt2");
  CHECK(name(sequence("pretokenizers", {byte_level(true)})) == "gpt2");
  CHECK(name(sequence("pretokenizers", {split(kLlama3Regex), byte_level(false)})) == "llama3");
  CHECK(name(sequence("pretokenizers", {split(kQwen2Regex), byte_level(false)})) == "qwen2");

  json tokenizer = small_tokenizer();
  CHECK(parse(tokenizer).normalize_nfc == false);
  tokenizer["normalizer"] = {{"type", "NFC"}};
  CHECK(parse(tokenizer).normalize_nfc == true);
  tokenizer["normalizer"] = sequence("normalizers", {{{"type", "NFC"}}});
  CHECK(parse(tokenizer).normalize_nfc == true);
  // e and a combining acute become one letter, and only then
  CHECK(make_bpe_tokenizer(parse(tokenizer))->encode("e\xCC\x81") ==
        std::vector<TokenId>{0xC3, 0xA9});
}

TEST_CASE("special tokens, first token, end tokens, chat template from the files beside it") {
  json tokenizer = small_tokenizer();
  tokenizer["added_tokens"].push_back(added(262, "<tool>", false));
  TokenizerData data = parse(tokenizer);
  CHECK(data.tokens.size() == 263);
  CHECK(data.tokens[260].empty());
  CHECK(data.special_tokens == std::vector<TokenId>{258, 259});
  CHECK(data.added_tokens == std::vector<TokenId>{262});
  CHECK(!data.add_bos);
  CHECK(data.eos_tokens.empty());
  CHECK(make_bpe_tokenizer(data)->encode("abcab<s><tool>") ==
        std::vector<TokenId>{257, 256, 258, 262});

  const json first = {{"type", "TemplateProcessing"},
                      {"single",
                       {{{"SpecialToken", {{"id", "<s>"}, {"type_id", 0}}}},
                        {{"Sequence", {{"id", "A"}, {"type_id", 0}}}}}}};
  for (const json& processor : {first, sequence("processors", {byte_level(true), first})}) {
    tokenizer["post_processor"] = processor;
    CHECK(parse(tokenizer).add_bos);
    CHECK(parse(tokenizer).bos_token == 258);
    CHECK(!parse(tokenizer, R"({"add_bos_token": false})").add_bos);
  }
  tokenizer["post_processor"] = nullptr;
  data = parse(tokenizer,
               R"({"bos_token": {"content": "<s>"}, "eos_token": "</s>", "add_bos_token": true,
                             "chat_template": [{"name": "tool_use", "template": "T"}, {"name": "default", "template": "D"}]})",
               R"({"eos_token_id": [259, 257, 259]})");
  CHECK(data.bos_token == 258);
  CHECK(data.add_bos);
  CHECK(data.eos_tokens == std::vector<TokenId>{259, 257});
  CHECK(data.chat_template == "D");
  data = parse(tokenizer, R"({"chat_template": "text"})", R"({"eos_token_id": 257})");
  CHECK(data.chat_template == "text");
  CHECK(data.eos_tokens == std::vector<TokenId>{257});
  CHECK(parse(tokenizer, R"({"chat_template": "text"})", "", "file").chat_template == "file");
  CHECK(parse(tokenizer, "{}", R"({"eos_token_id": null})").eos_tokens.empty());
}

TEST_CASE("what is not byte-level BPE is refused, and said so") {
  const auto refused = [](const std::string& part, void (*change)(json&)) {
    refuses_change(kUnsupported, part, change);
  };
  refused("Unigram", [](json& j) { j["model"]["type"] = "Unigram"; });
  refused("byte_fallback", [](json& j) { j["model"]["byte_fallback"] = true; });
  refused("end_of_word_suffix", [](json& j) { j["model"]["end_of_word_suffix"] = "</w>"; });
  refused("dropout", [](json& j) { j["model"]["dropout"] = 0.1; });
  refused("Lowercase", [](json& j) { j["normalizer"] = {{"type", "Lowercase"}}; });
  refused("pre_tokenizer", [](json& j) { j["pre_tokenizer"] = nullptr; });
  refused("pre_tokenizer", [](json& j) { j["pre_tokenizer"] = {{"type", "Metaspace"}}; });
  refused("pre_tokenizer", [](json& j) { j["pre_tokenizer"] = byte_level(false); });
  refused("add_prefix_space", [](json& j) { j["pre_tokenizer"]["add_prefix_space"] = true; });
  refused("pre_tokenizer", [](json& j) {
    j["pre_tokenizer"] = sequence("pretokenizers", {split("\\w+"), byte_level(false)});
  });
  refused("lstrip", [](json& j) { j["added_tokens"][0]["lstrip"] = true; });
}

TEST_CASE("a malformed tokenizer.json is refused by file and key") {
  const auto refused = [](const std::string& part, void (*change)(json&)) {
    refuses_change(kInvalid, part, change);
  };
  refused("model", [](json& j) { j.erase("model"); });
  refused("model", [](json& j) { j["model"] = 3; });
  refused("model.vocab", [](json& j) { j["model"].erase("vocab"); });
  refused("model.vocab", [](json& j) { j["model"]["vocab"] = json::array(); });
  refused("model.vocab", [](json& j) { j["model"]["vocab"] = json::object(); });
  refused("model.vocab.ab", [](json& j) { j["model"]["vocab"]["ab"] = -1; });
  refused("model.vocab.ab", [](json& j) { j["model"]["vocab"]["ab"] = "x"; });
  refused("model.vocab.ab", [](json& j) { j["model"]["vocab"]["ab"] = 1.5; });
  refused("model.vocab.ab", [](json& j) { j["model"]["vocab"]["ab"] = 1ull << 40; });
  refused("have a gap", [](json& j) { j["model"]["vocab"]["ab"] = 1000000000; });
  refused("have a gap", [](json& j) { j["model"]["vocab"].erase("ab"); });
  refused("gives id 257", [](json& j) { j["model"]["vocab"]["ab"] = 257; });
  refused("empty token", [](json& j) { j["model"]["vocab"][""] = 258; });
  refused("model.merges", [](json& j) { j["model"].erase("merges"); });
  refused("model.merges", [](json& j) { j["model"]["merges"] = "a b"; });
  refused("model.merges[0]", [](json& j) { j["model"]["merges"][0] = 7; });
  refused("model.merges[1]", [](json& j) { j["model"]["merges"][1] = {"a", "b", "c"}; });
  refused("model.merges[1][0]", [](json& j) { j["model"]["merges"][1] = {"a b", "c"}; });
  refused("merge 0", [](json& j) { j["model"]["merges"][0] = "abc"; });
  refused("needs token \"ba\"", [](json& j) { j["model"]["merges"][1] = {"b", "a"}; });
  refused("there twice", [](json& j) { j["model"]["merges"][1] = "a b"; });
  refused("model.unk_token", [](json& j) { j["model"]["unk_token"] = "nowhere"; });
  refused("added_tokens", [](json& j) { j["added_tokens"] = 1; });
  refused("added_tokens[0].id", [](json& j) { j["added_tokens"][0]["id"] = 2000000000; });
  refused("added_tokens[0].id", [](json& j) { j["added_tokens"][0].erase("id"); });
  refused("added_tokens[0].id", [](json& j) { j["added_tokens"][0]["id"] = 97; });
  refused("added_tokens[1].content", [](json& j) { j["added_tokens"][1]["content"] = ""; });
  refused("there twice", [](json& j) { j["added_tokens"][1]["content"] = "<s>"; });
  refused("pre_tokenizer.type", [](json& j) { j["pre_tokenizer"].erase("type"); });
  refused("pre_tokenizer", [](json& j) { j["pre_tokenizer"] = "ByteLevel"; });
  refused("post_processor", [](json& j) {
    j["post_processor"] = json::parse(R"({"type": "TemplateProcessing", "single":
        [{"SpecialToken": {"id": "<none>"}}, {"Sequence": {"id": "A"}}]})");
  });
}

TEST_CASE("hostile JSON, hostile side files") {
  const auto bytes = [](const std::string& text) {
    return [text] { parse_tokenizer_files({text, "", "", ""}, "folder"); };
  };
  refuses(kInvalid, "tokenizer.json", bytes(""));
  refuses(kInvalid, "tokenizer.json", bytes("[]"));
  refuses(kInvalid, "tokenizer.json", bytes("null"));
  refuses(kInvalid, "tokenizer.json", bytes("{\"model\": {"));
  refuses(kInvalid, "tokenizer.json", bytes("{\"model\": \"\xFF\"}"));
  refuses(kInvalid, "nested", bytes(std::string(1'000'000, '[')));
  std::string objects;
  for (int i = 0; i < 100'000; ++i) objects += "{\"a\":";
  refuses(kInvalid, "nested", bytes(objects));
  refuses(kInvalid, "there twice", bytes(R"({"model": {}, "model": {}})"));

  const auto beside = [](const std::string& config, const std::string& generation) {
    return [=] { parse(small_tokenizer(), config, generation); };
  };
  refuses(kInvalid, "tokenizer_config.json", beside("{", ""));
  refuses(kInvalid, "eos_token", beside(R"({"eos_token": "nowhere"})", ""));
  refuses(kInvalid, "bos_token", beside(R"({"bos_token": 3})", ""));
  refuses(kInvalid, "chat_template", beside(R"({"chat_template": 3})", ""));
  refuses(kInvalid, "chat_template[0].name", beside(R"({"chat_template": [{}]})", ""));
  refuses(kInvalid, "generation_config.json", beside("", "[1"));
  refuses(kInvalid, "eos_token_id", beside("", R"({"eos_token_id": "2"})"));
  refuses(kInvalid, "eos_token_id[1]", beside("", R"({"eos_token_id": [1, 300]})"));
  refuses(kInvalid, "eos_token_id", beside("", R"({"eos_token_id": -1})"));
}

TEST_CASE("a folder is read; a missing tokenizer.json is named") {
  namespace fs = std::filesystem;
  const fs::path folder = fs::temp_directory_path() / "specdec_tokenizer_json_test";
  fs::remove_all(folder);
  fs::create_directories(folder);
  CHECK_THROWS_WITH_AS(read_tokenizer_json(folder), doctest::Contains("tokenizer.json"), Error);
  std::ofstream(folder / "tokenizer.json") << small_tokenizer();
  std::ofstream(folder / "generation_config.json") << R"({"eos_token_id": 259})";
  const TokenizerData data = read_tokenizer_json(folder);
  CHECK(data.eos_tokens == std::vector<TokenId>{259});
  CHECK(data.source == (folder / "tokenizer.json").string());
  fs::remove_all(folder);
}
