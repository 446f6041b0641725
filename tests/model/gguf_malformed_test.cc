#include <doctest/doctest.h>

#include <algorithm>

#include "engine/model/gguf_model.h"
#include "engine/model/gguf_reader.h"
#include "model/model_test_support.h"

using namespace specdec;
using namespace specdec::testing;

namespace {

constexpr auto kInvalid = ErrorCode::invalid_model;
constexpr auto kUnsupported = ErrorCode::unsupported;

void set_array_length(GgufFileSpec& spec, const char* key, std::uint64_t length) {
  auto& payload = spec.value(key).payload;
  const auto bytes = Bytes().add(length).data;
  std::copy(bytes.begin(), bytes.end(), payload.begin() + 4);
}

std::vector<GgufCase> header_cases() {
  return {
      {"wrong magic",
       kInvalid,
       [](auto& s) { s.magic = std::string("GGML"); },
       {"this is no GGUF file"}},
      {"version 1", kUnsupported, [](auto& s) { s.version = 1; }, {"GGUF version 1"}},
      {"version 4", kUnsupported, [](auto& s) { s.version = 4; }, {"GGUF version 4", "2 and 3"}},
      {"big-endian", kUnsupported, [](auto& s) { s.version = 0x03000000; }, {"big-endian"}},
      {"tensor count beyond the file",
       kInvalid,
       [](auto& s) { s.num_tensors = std::uint64_t{1} << 60; },
       {"too short for 1152921504606846976 tensors"}},
      {"metadata count beyond the file",
       kInvalid,
       [](auto& s) { s.num_values = std::uint64_t{1} << 60; },
       {"too short for 1152921504606846976 metadata values"}},
      {"one tensor too many",
       kInvalid,
       [](auto& s) { s.num_tensors = s.tensors.size() + 1; },
       {"tensor"}},
      {"one value too many", kInvalid, [](auto& s) { s.num_values = s.values.size() + 1; }, {}},
      {"one value too few", kInvalid, [](auto& s) { s.num_values = s.values.size() - 1; }, {}},
      {"no tensors",
       kInvalid,
       [](auto& s) { s.tensors.clear(); },
       {"'token_embd.weight' is missing"}},
      {"empty key", kInvalid, [](auto& s) { s.set_u32("", 1); }, {"the key '' is no name"}},
      {"key that is not UTF-8",
       kInvalid,
       [](auto& s) { s.set_u32("a\xff", 1); },
       {"'a\\xff' is no name"}},
      {"overlong UTF-8 in a key",
       kInvalid,
       [](auto& s) { s.set_u32("a\xc0\x80", 1); },
       {"'a\\xc0\\x80' is no name"}},
      {"surrogate in a key",
       kInvalid,
       [](auto& s) { s.set_u32("a\xed\xa0\x80", 1); },
       {"is no name"}},
      {"key of 70000 bytes",
       kInvalid,
       [](auto& s) { s.set_u32(std::string(70000, 'k'), 1); },
       {"a key is 70000 bytes long, at most 65535"}},
      {"key twice",
       kInvalid,
       [](auto& s) { s.values.push_back(s.value("llama.block_count")); },
       {"'llama.block_count'", "appears twice"}},
      {"unknown value type",
       kInvalid,
       [](auto& s) { s.set("a.b", 13, {}); },
       {"'a.b'", "unknown value type 13"}},
      {"unknown element type",
       kInvalid,
       [](auto& s) { s.set("a.b", 9, Bytes().add<std::uint32_t>(99).add<std::uint64_t>(0).data); },
       {"'a.b'", "unknown value type 99"}},
      {"array of arrays",
       kInvalid,
       [](auto& s) { s.set("a.b", 9, Bytes().add<std::uint32_t>(9).add<std::uint64_t>(0).data); },
       {"'a.b'", "arrays of arrays"}},
      {"bool that is 2",
       kInvalid,
       [](auto& s) { s.set("a.b", 7, Bytes().add<std::uint8_t>(2).data); },
       {"'a.b'", "a bool must be 0 or 1"}},
      {"string longer than the file",
       kInvalid,
       [](auto& s) { s.set("a.b", 8, Bytes().add<std::uint64_t>(1 << 30).data); },
       {"'a.b'", "the file ends inside a string value"}},
      {"string of 2^64 - 1 bytes",
       kInvalid,
       [](auto& s) { s.set("a.b", 8, Bytes().add<std::uint64_t>(UINT64_MAX).data); },
       {"'a.b'", "the file ends inside a string value"}},
      {"array longer than the file",
       kInvalid,
       [](auto& s) { set_array_length(s, "tokenizer.ggml.token_type", 1 << 30); },
       {"'tokenizer.ggml.token_type'", "an array of 1073741824 int32 values does not fit"}},
      {"array whose bytes overflow",
       kInvalid,
       [](auto& s) {
         set_array_length(s, "tokenizer.ggml.token_type", (std::uint64_t{1} << 62) + 1);
       },
       {"'tokenizer.ggml.token_type'", "does not fit"}},
      {"string array longer than the file",
       kInvalid,
       [](auto& s) { set_array_length(s, "tokenizer.ggml.merges", std::uint64_t{1} << 61); },
       {"'tokenizer.ggml.merges'", "does not fit"}},
      {"alignment 0",
       kInvalid,
       [](auto& s) { s.set_u32("general.alignment", 0); },
       {"'general.alignment'", "is 0, must be a power of two"}},
      {"alignment 4",
       kInvalid,
       [](auto& s) { s.set_u32("general.alignment", 4); },
       {"'general.alignment'", "is 4"}},
      {"alignment 48",
       kInvalid,
       [](auto& s) { s.set_u32("general.alignment", 48); },
       {"'general.alignment'", "is 48"}},
      {"alignment 2^31",
       kInvalid,
       [](auto& s) { s.set_u32("general.alignment", 1u << 31); },
       {"'general.alignment'", "is 2147483648"}},
      {"alignment as text",
       kInvalid,
       [](auto& s) { s.set_string("general.alignment", "32"); },
       {"'general.alignment'", "must be an integer", "is string"}},
      {"alignment other than the one written",
       kInvalid,
       [](auto& s) { s.set_u32("general.alignment", 4096); },
       {"no multiple of the alignment 4096"}},
  };
}

std::vector<GgufCase> tensor_cases() {
  const auto bend = [](const char* name, auto change) {
    return [name, change](GgufFileSpec& spec) { change(spec.tensor(name)); };
  };
  const char* const kDown = "blk.0.ffn_down.weight";
  return {
      {"empty tensor name",
       kInvalid,
       bend(kDown, [](auto& t) { t.name.clear(); }),
       {"the tensor name '' is no name"}},
      {"tensor name that is not UTF-8",
       kInvalid,
       bend(kDown, [](auto& t) { t.name = std::string("\x80"); }),
       {"'\\x80' is no name"}},
      {"tensor name of 65 bytes",
       kInvalid,
       bend(kDown, [](auto& t) { t.name = std::string(65, 'n'); }),
       {"a tensor name is 65 bytes long, at most 64"}},
      {"tensor twice",
       kInvalid,
       bend(kDown, [](auto& t) { t.name = std::string("blk.0.ffn_up.weight"); }),
       {"'blk.0.ffn_up.weight' appears twice"}},
      {"no dimensions",
       kInvalid,
       bend(kDown, [](auto& t) { t.dimensions.clear(); }),
       {kDown, "has 0 dimensions"}},
      {"five dimensions",
       kInvalid,
       bend(kDown,
            [](auto& t) {
              t.dimensions = {64, 32, 1, 1, 1};
            }),
       {kDown, "has 5 dimensions"}},
      {"dimension 0",
       kInvalid,
       bend(kDown,
            [](auto& t) {
              t.dimensions = {64, 0};
            }),
       {kDown, "dimension 1 is 0"}},
      {"dimension 2^32",
       kInvalid,
       bend(kDown,
            [](auto& t) {
              t.dimensions = {64, std::uint64_t{1} << 32};
            }),
       {kDown, "dimension 1 is 4294967296"}},
      {"dimension 2^63",
       kInvalid,
       bend(kDown,
            [](auto& t) {
              t.dimensions = {64, std::uint64_t{1} << 63};
            }),
       {kDown, "dimension 1 is 9223372036854775808"}},
      {"shape whose product overflows",
       kInvalid,
       bend(kDown,
            [](auto& t) {
              t.dimensions = {1u << 30, 1u << 30, 1u << 30, 1u << 30};
            }),
       {kDown, "is larger than the file's"}},
      {"shape whose product wraps to the right size",
       kInvalid,
       bend(kDown,
            [](auto& t) {
              t.dimensions = {1u << 30, 1u << 30, 16, 32};
            }),
       {kDown, "is larger than the file's"}},
      {"Q4_K tensor",
       kUnsupported,
       bend(kDown, [](auto& t) { t.type = 12; }),
       {kDown, "has type Q4_K; requantise"}},
      {"removed type",
       kUnsupported,
       bend(kDown, [](auto& t) { t.type = 4; }),
       {kDown, "has type number 4"}},
      {"unknown type",
       kUnsupported,
       bend(kDown, [](auto& t) { t.type = 4000000000u; }),
       {kDown, "has type number 4000000000"}},
      {"rows that are no whole blocks",
       kInvalid,
       bend(kDown,
            [](auto& t) {
              t.dimensions = {48, 32};
            }),
       {kDown, "rows of 48 elements are no multiple of a Q4_0 block"}},
      {"offset askew",
       kInvalid,
       bend(kDown, [](auto& t) { t.offset = 33; }),
       {kDown, "offset 33 is no multiple of the alignment 32"}},
      {"offset past the end",
       kInvalid,
       bend(kDown, [](auto& t) { t.offset = 1u << 30; }),
       {kDown, "end past the file's"}},
      {"offset near 2^64",
       kInvalid,
       bend(kDown, [](auto& t) { t.offset = ~std::uint64_t{63}; }),
       {kDown, "end past the file's"}},
      {"last tensor cut short",
       kInvalid,
       [](auto& s) { s.tensors.back().data.resize(s.tensors.back().data.size() - 1); },
       {"'output_norm.weight'", "end past the file's"}},
      {"two tensors on the same bytes",
       kInvalid,
       bend(kDown, [](auto& t) { t.offset = 0; }),
       {"overlaps tensor"}},
      {"tensor that begins inside another",
       kInvalid,
       bend(kDown, [](auto& t) { t.offset = 64; }),
       {"overlaps tensor"}},
      {"missing matrix",
       kInvalid,
       [](auto& s) { s.erase_tensor("blk.0.attn_v.weight"); },
       {"tensor 'blk.0.attn_v.weight' is missing"}},
      {"missing norm",
       kInvalid,
       [](auto& s) { s.erase_tensor("output_norm.weight"); },
       {"tensor 'output_norm.weight' is missing"}},
      {"norm of another size",
       kInvalid,
       [](auto& s) { s.tensor("output_norm.weight").dimensions = {16}; },
       {"'output_norm.weight' has shape [16]", "asks for [32]"}},
      {"norm with two dimensions",
       kInvalid,
       [](auto& s) {
         s.tensor("output_norm.weight").dimensions = {32, 1};
       },
       {"'output_norm.weight' has shape [1, 32]", "asks for [32]"}},
      {"matrix transposed",
       kInvalid,
       bend(kDown,
            [](auto& t) {
              t.dimensions = {32, 64};
            }),
       {kDown, "has shape [64, 32]", "asks for [32, 64]"}},
      {"matrix with three dimensions",
       kInvalid,
       bend(kDown,
            [](auto& t) {
              t.dimensions = {64, 16, 2};
            }),
       {kDown, "has shape [2, 16, 64]"}},
      {"quantised norm",
       kUnsupported,
       [](auto& s) {
         auto& norm = s.tensor("output_norm.weight");
         norm.type = 8;
         norm.data.resize(34);
       },
       {"norm tensor 'output_norm.weight' is quantised to Q8_0"}},
      {"bias",
       kUnsupported,
       [](auto& s) {
         s.tensors.push_back({"blk.0.attn_q.bias", {32}, 0, std::vector<std::byte>(128)});
       },
       {"'blk.0.attn_q.bias' is no part of a Llama model"}},
      {"layer beyond the count",
       kUnsupported,
       [](auto& s) {
         s.tensors.push_back({"blk.1.attn_norm.weight", {32}, 0, std::vector<std::byte>(128)});
       },
       {"'blk.1.attn_norm.weight' is no part of a Llama model with 1 layers"}},
      {"rope factors of another size",
       kInvalid,
       [](auto& s) {
         s.tensors.push_back({"rope_freqs.weight", {4}, 0, std::vector<std::byte>(16)});
       },
       {"'rope_freqs.weight' is F32 [4], must be F32 [8]"}},
      {"rope factors of zero",
       kInvalid,
       [](auto& s) {
         s.tensors.push_back({"rope_freqs.weight", {8}, 0, std::vector<std::byte>(32)});
       },
       {"a rope frequency factor is 0"}},
      {"head with another vocabulary",
       kInvalid,
       [](auto& s) {
         s.tensors.push_back({"output.weight", {32, 299}, 0, std::vector<std::byte>(32 * 299 * 4)});
       },
       {"'output.weight' has shape [299, 32]", "asks for [300, 32]"}},
  };
}

}  // namespace

TEST_CASE("GGUF: the file that the malformed ones are bent from is good") {
  const auto file = in_memory(good_gguf_spec().bytes(), "good.gguf");
  check_valid(*open_gguf_model(file), {file});
  CHECK(read_gguf_tokenizer(GgufFile(file), 300).tokens.size() == 300);
}

TEST_CASE("GGUF: malformed headers and metadata") {
  check_gguf_cases(header_cases(), [](auto file) { open_gguf_model(file); });
}

TEST_CASE("GGUF: malformed tensors") {
  check_gguf_cases(tensor_cases(), [](auto file) { open_gguf_model(file); });
}

TEST_CASE("GGUF: files that cannot be read") {
  const TemporaryFolder folder;
  check_error([&] { open_model(folder.path() / "absent.gguf"); }, ErrorCode::io,
              {"absent.gguf", "no such model"});
  write_file(folder.path() / "empty.gguf", "");
  check_error([&] { open_model(folder.path() / "empty.gguf"); }, kInvalid,
              {"empty.gguf", "the file ends inside the magic"});
  check_error([&] { MappedFile::open(folder.path()); }, ErrorCode::io, {"is no regular file"});
}

TEST_CASE("GGUF: the reader takes the last byte and not one more") {
  const std::string name = "bent.gguf";
  const auto bytes = Bytes().add_string("abc").data;
  GgufReader whole(bytes, name);
  CHECK(whole.string("a key") == "abc");
  CHECK(whole.remaining() == 0);
  for (std::size_t size = 0; size < bytes.size(); ++size) {
    CAPTURE(size);
    check_error([&] { GgufReader(std::span(bytes).first(size), name).string("a key"); }, kInvalid,
                {"bent.gguf", "the file ends inside a key"});
  }
}
