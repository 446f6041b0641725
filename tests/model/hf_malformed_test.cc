#include <doctest/doctest.h>

#include <nlohmann/json.hpp>

#include "engine/model/hf_folder.h"
#include "engine/model/json_reader.h"
#include "engine/model/safetensors.h"
#include "model/model_test_support.h"

using namespace specdec;
using namespace specdec::testing;
using nlohmann::json;

namespace {

constexpr auto kInvalid = ErrorCode::invalid_model;
constexpr auto kUnsupported = ErrorCode::unsupported;

std::vector<std::byte> with_header(const std::string& header, std::size_t data_size) {
  return Bytes()
      .add<std::uint64_t>(header.size())
      .add_text(header)
      .append(std::vector<std::byte>(data_size))
      .data;
}

void read(std::vector<std::byte> bytes) {
  read_safetensors(*in_memory(std::move(bytes), "bent.safetensors"));
}

struct HeaderCase {
  std::string name;
  ErrorCode code;
  std::string header;
  std::size_t data_size;
  std::vector<std::string> fragments;
};

std::string entry(const char* dtype, const char* shape, const char* offsets) {
  return std::string(R"({"w": {"dtype": )") + dtype + R"(, "shape": )" + shape +
         R"(, "data_offsets": )" + offsets + "}}";
}

const std::vector<HeaderCase>& header_cases() {
  static const std::vector<HeaderCase> cases = {
      {"not an object", kInvalid, "[1]", 0, {"does not begin with '{'"}},
      {"leading space", kInvalid, " {}", 0, {"does not begin with '{'"}},
      {"broken JSON", kInvalid, R"({"w": )", 0, {"the JSON is malformed"}},
      {"text after the JSON", kInvalid, "{} x", 0, {"the JSON is malformed"}},
      {"invalid UTF-8", kInvalid, "{\"\xff\": 1}", 0, {"the JSON is malformed"}},
      {"tensor twice",
       kInvalid,
       R"({"w": {"dtype":"U8","shape":[1],"data_offsets":[0,1]},
           "w": {"dtype":"U8","shape":[1],"data_offsets":[0,1]}})",
       1,
       {"key 'w' appears twice"}},
      {"dtype twice",
       kInvalid,
       R"({"w": {"dtype":"U8","dtype":"F32","shape":[1],"data_offsets":[0,1]}})",
       1,
       {"key 'dtype' appears twice"}},
      {"entry that is a number", kInvalid, R"({"w": 3})", 0, {"tensor 'w'", "must be an object"}},
      {"no dtype",
       kInvalid,
       R"({"w": {"shape":[1],"data_offsets":[0,1]}})",
       1,
       {"'w'", "'dtype' is missing"}},
      {"no shape",
       kInvalid,
       R"({"w": {"dtype":"U8","data_offsets":[0,1]}})",
       1,
       {"'w'", "'shape' is missing"}},
      {"no offsets",
       kInvalid,
       R"({"w": {"dtype":"U8","shape":[1]}})",
       1,
       {"'w'", "'data_offsets' is missing"}},
      {"dtype that is a number",
       kInvalid,
       entry("7", "[1]", "[0,1]"),
       1,
       {"'w'", "'dtype' must be a string"}},
      {"unknown dtype",
       kUnsupported,
       entry("\"F4\"", "[1]", "[0,1]"),
       1,
       {"'w'", "dtype 'F4' is not supported"}},
      {"shape that is a number",
       kInvalid,
       entry("\"U8\"", "1", "[0,1]"),
       1,
       {"'w'", "'shape' must be an array"}},
      {"shape of nine dimensions",
       kInvalid,
       entry("\"U8\"", "[1,1,1,1,1,1,1,1,1]", "[0,1]"),
       1,
       {"'w'", "'shape' must be an array of at most 8"}},
      {"negative dimension",
       kInvalid,
       entry("\"U8\"", "[-1]", "[0,1]"),
       1,
       {"'w'", "'shape' holds '-1'"}},
      {"fractional dimension",
       kInvalid,
       entry("\"U8\"", "[1.5]", "[0,1]"),
       1,
       {"'w'", "'shape' holds '1.5'"}},
      {"dimension of 2^31",
       kInvalid,
       entry("\"U8\"", "[2147483648]", "[0,1]"),
       1,
       {"'w'", "'shape' holds '2147483648'"}},
      {"dimension beyond 64 bits",
       kInvalid,
       entry("\"U8\"", "[99999999999999999999]", "[0,1]"),
       1,
       {"'w'", "'shape' holds"}},
      {"shape whose size overflows",
       kInvalid,
       entry("\"F32\"", "[2147483647,2147483647,2147483647]", "[0,1]"),
       1,
       {"'w'", "does not fit into 64 bits"}},
      {"one offset",
       kInvalid,
       entry("\"U8\"", "[1]", "[0]"),
       1,
       {"'w'", "'data_offsets' must be two integers"}},
      {"negative offset",
       kInvalid,
       entry("\"U8\"", "[1]", "[-1,0]"),
       1,
       {"'w'", "'data_offsets' must be two integers"}},
      {"offsets as text",
       kInvalid,
       entry("\"U8\"", "[1]", R"(["0","1"])"),
       1,
       {"'w'", "'data_offsets' must be two integers"}},
      {"offsets reversed",
       kInvalid,
       entry("\"U8\"", "[1]", "[1,0]"),
       1,
       {"'w'", "'data_offsets' 1..0 do not lie in"}},
      {"offset past the end",
       kInvalid,
       entry("\"U8\"", "[2]", "[0,2]"),
       1,
       {"'w'", "'data_offsets' 0..2 do not lie in the file's 1 bytes"}},
      {"offset of 2^64 - 1",
       kInvalid,
       entry("\"U8\"", "[2]", "[0,18446744073709551615]"),
       2,
       {"'w'", "do not lie in"}},
      {"span other than the shape",
       kInvalid,
       entry("\"F32\"", "[2]", "[0,4]"),
       4,
       {"'w'", "span 4 bytes, shape [2] of F32 takes 8"}},
      {"span larger than the shape",
       kInvalid,
       entry("\"U8\"", "[1]", "[0,2]"),
       2,
       {"'w'", "span 2 bytes, shape [1] of U8 takes 1"}},
      {"span that a wrapped product would match",
       kInvalid,
       entry("\"U8\"", "[65536,65536,65536,65536]", "[0,0]"),
       0,
       {"'w'", "64 bits"}},
      {"hole at the start",
       kInvalid,
       entry("\"U8\"", "[1]", "[1,2]"),
       2,
       {"'w'", "the data before it belongs to no tensor"}},
      {"hole at the end",
       kInvalid,
       entry("\"U8\"", "[1]", "[0,1]"),
       4,
       {"the last 3 bytes of data belong to no tensor"}},
      {"hole in the middle",
       kInvalid,
       R"({"v": {"dtype":"U8","shape":[1],"data_offsets":[0,1]},
           "w": {"dtype":"U8","shape":[1],"data_offsets":[2,3]}})",
       3,
       {"'w'", "the data before it belongs to no tensor"}},
      {"overlap",
       kInvalid,
       R"({"v": {"dtype":"U8","shape":[2],"data_offsets":[0,2]},
           "w": {"dtype":"U8","shape":[2],"data_offsets":[1,3]}})",
       3,
       {"'w'", "overlaps the tensor before it"}},
      {"two tensors on the same bytes",
       kInvalid,
       R"({"v": {"dtype":"U8","shape":[2],"data_offsets":[0,2]},
           "w": {"dtype":"U8","shape":[2],"data_offsets":[0,2]}})",
       2,
       {"overlaps the tensor before it"}},
      {"metadata of numbers",
       kInvalid,
       R"({"__metadata__": {"a": 1}})",
       0,
       {"'__metadata__' must map strings to strings"}},
      {"metadata that is a list",
       kInvalid,
       R"({"__metadata__": ["a"]})",
       0,
       {"'__metadata__' must map strings to strings"}},
  };
  return cases;
}

struct ConfigCase {
  std::string name;
  ErrorCode code;
  std::function<void(json&)> bend;
  std::vector<std::string> fragments;
};

std::vector<ConfigCase> config_cases() {
  const auto set = [](const char* key, json value) {
    return [key, value = std::move(value)](json& config) { config[key] = value; };
  };
  const auto erase = [](const char* key) { return [key](json& config) { config.erase(key); }; };
  const json llama3 = {{"rope_type", "llama3"},
                       {"factor", 8.0},
                       {"low_freq_factor", 1.0},
                       {"high_freq_factor", 4.0},
                       {"original_max_position_embeddings", 8192}};
  const auto scaling = [llama3](const char* key, json value) {
    return [=](json& config) {
      config["rope_scaling"] = llama3;
      config["rope_scaling"][key] = value;
    };
  };
  return {
      {"an array", kInvalid, [](json& c) { c = json::array(); }, {"the JSON must be an object"}},
      {"another architecture",
       kUnsupported,
       set("architectures", {"MistralForCausalLM"}),
       {"'architectures'", "'MistralForCausalLM' is not supported"}},
      {"two architectures",
       kInvalid,
       set("architectures", {"LlamaForCausalLM", "X"}),
       {"'architectures'", "must be an array of one string"}},
      {"architecture that is text",
       kInvalid,
       set("architectures", "LlamaForCausalLM"),
       {"'architectures'", "must be an array of one string"}},
      {"no architecture, another type",
       kUnsupported,
       [](json& c) {
         c.erase("architectures");
         c["model_type"] = "qwen2";
       },
       {"'model_type'", "'qwen2' is not supported"}},
      {"no vocabulary size", kInvalid, erase("vocab_size"), {"'vocab_size'", "is missing"}},
      {"no hidden size", kInvalid, erase("hidden_size"), {"'hidden_size'", "is missing"}},
      {"no layers", kInvalid, erase("num_hidden_layers"), {"'num_hidden_layers'", "is missing"}},
      {"no heads", kInvalid, erase("num_attention_heads"), {"'num_attention_heads'", "is missing"}},
      {"no FFN size", kInvalid, erase("intermediate_size"), {"'intermediate_size'", "is missing"}},
      {"size as text", kInvalid, set("hidden_size", "32"), {"'hidden_size'", "must be an integer"}},
      {"size with a fraction",
       kInvalid,
       set("hidden_size", 32.5),
       {"'hidden_size'", "must be an integer"}},
      {"negative size",
       kInvalid,
       set("hidden_size", -32),
       {"'hidden_size'", "is -32, out of range"}},
      {"size of 2^40",
       kInvalid,
       set("hidden_size", std::uint64_t{1} << 40),
       {"'hidden_size'", "is 1099511627776, out of range"}},
      {"0 layers", kInvalid, set("num_hidden_layers", 0), {"the number of layers is 0"}},
      {"2 billion layers",
       kInvalid,
       set("num_hidden_layers", 2000000000),
       {"the number of layers is 2"}},
      {"0 heads", kInvalid, set("num_attention_heads", 0), {"the number of heads is 0"}},
      {"0 heads and no head size",
       kInvalid,
       [](json& c) {
         c["num_attention_heads"] = 0;
         c.erase("head_dim");
       },
       {"0 heads do not divide hidden_size 32"}},
      {"0 KV heads", kInvalid, set("num_key_value_heads", 0), {"number of KV heads is 0"}},
      {"KV heads that do not divide",
       kInvalid,
       [](json& c) {
         c["num_attention_heads"] = 3;
         c["num_key_value_heads"] = 2;
       },
       {"(3) is no multiple"}},
      {"odd head size", kInvalid, set("head_dim", 15), {"the head size (15) must be even"}},
      {"head size of 2 billion", kInvalid, set("head_dim", 2000000000), {"the head size is 2"}},
      {"0 vocabulary", kInvalid, set("vocab_size", 0), {"the vocabulary size is 0"}},
      {"epsilon as text",
       kInvalid,
       set("rms_norm_eps", "1e-5"),
       {"'rms_norm_eps'", "must be a finite number"}},
      {"negative epsilon", kInvalid, set("rms_norm_eps", -1.0), {"the norm epsilon is -1"}},
      {"theta of 0", kInvalid, set("rope_theta", 0), {"the rope theta is 0"}},
      {"attention bias",
       kUnsupported,
       set("attention_bias", true),
       {"'attention_bias'", "is true"}},
      {"MLP bias", kUnsupported, set("mlp_bias", true), {"'mlp_bias'", "is true"}},
      {"bias as a number", kInvalid, set("mlp_bias", 1), {"'mlp_bias'", "must be true or false"}},
      {"another activation",
       kUnsupported,
       set("hidden_act", "gelu"),
       {"'hidden_act'", "'gelu' is not supported"}},
      {"quantised",
       kUnsupported,
       set("quantization_config", {{"bits", 4}}),
       {"'quantization_config'", "is set"}},
      {"sliding window", kUnsupported, set("sliding_window", 4096), {"'sliding_window'"}},
      {"partial rope",
       kUnsupported,
       set("partial_rotary_factor", 0.5),
       {"'partial_rotary_factor'"}},
      {"rope scaling that is text",
       kInvalid,
       set("rope_scaling", "llama3"),
       {"'rope_scaling' must be an object"}},
      {"yarn",
       kUnsupported,
       scaling("rope_type", "yarn"),
       {"'rope_scaling.rope_type'", "'yarn' is not supported"}},
      {"scaling without a factor",
       kInvalid,
       scaling("factor", nullptr),
       {"'rope_scaling.factor'", "is missing"}},
      {"scaling below 1", kInvalid, scaling("factor", 0.5), {"the rope scaling factor is 0.5"}},
      {"scaling without a context",
       kInvalid,
       scaling("original_max_position_embeddings", nullptr),
       {"'rope_scaling.original_max_position_embeddings'", "is missing"}},
      {"scaling bands reversed",
       kInvalid,
       scaling("high_freq_factor", 1.0),
       {"high_freq_factor must be above low_freq_factor"}},
      {"another hidden size than the tensors",
       kInvalid,
       set("hidden_size", 64),
       {"has shape [300, 32]", "asks for [300, 64]"}},
      {"one layer too many",
       kInvalid,
       set("num_hidden_layers", 2),
       {"'model.layers.1.input_layernorm.weight' is missing"}},
      {"untied without a head",
       kInvalid,
       set("tie_word_embeddings", false),
       {"'lm_head.weight' is missing"}},
  };
}

void open(const std::string& config, const RandomModel& model) {
  open_hf_model(config, "bent", {in_memory(safetensors_bytes(model), "bent/model.safetensors")},
                {});
}

}  // namespace

TEST_CASE("safetensors: malformed headers") {
  for (const HeaderCase& c : header_cases()) {
    CAPTURE(c.name);
    auto fragments = c.fragments;
    fragments.push_back("bent.safetensors: ");
    check_error([&] { read(with_header(c.header, c.data_size)); }, c.code, fragments);
  }
}

TEST_CASE("safetensors: what is unusual but right") {
  const auto tensors = read_safetensors(
      *in_memory(with_header(R"({"scalar": {"dtype":"F32","shape":[],"data_offsets":[0,4]},
                      "empty": {"dtype":"F32","shape":[0,3],"data_offsets":[4,4]},
                      "flags": {"dtype":"BOOL","shape":[2],"data_offsets":[4,6]},
                      "__metadata__": {"format": "pt"}}   )",
                             6),
                 "good.safetensors"));
  REQUIRE(tensors.size() == 3);
  CHECK(tensors[0].name == "empty");
  CHECK(tensors[1].name == "flags");
  CHECK_FALSE(tensors[1].type.has_value());
  CHECK(tensors[2].shape.empty());
  CHECK(tensors[2].data.size() == 4);
  CHECK(read_safetensors(*in_memory(with_header("{}", 0), "none")).empty());
}

TEST_CASE("safetensors: header lengths that lie") {
  check_error([] { read({}); }, kInvalid, {"too short for a safetensors header"});
  check_error([] { read(std::vector<std::byte>(7)); }, kInvalid, {"too short"});
  check_error([] { read(std::vector<std::byte>(8)); }, kInvalid, {"does not begin with '{'"});
  for (const std::uint64_t length : {std::uint64_t{100'000'001}, UINT64_MAX}) {
    check_error([&] { read(Bytes().add(length).add_text("{}").data); }, kInvalid,
                {"the format allows 100000000"});
  }
  check_error([] { read(Bytes().add<std::uint64_t>(3).add_text("{}").data); }, kInvalid,
              {"the header of 3 bytes ends past the file's 10"});
}

TEST_CASE("JSON: hostile nesting and size are refused without recursion") {
  const std::size_t depth = 1'000'000;
  const std::string arrays = "{\"a\":" + std::string(depth, '[') + std::string(depth, ']') + "}";
  check_error([&] { read(with_header(arrays, 0)); }, kInvalid, {"nested deeper than 64"});
  std::string objects;
  for (std::size_t i = 0; i < depth; ++i) objects += "{\"a\":";
  check_error([&] { read(with_header(objects, 0)); }, kInvalid, {"nested deeper than 64"});
  std::string values = "{\"a\":[0";
  for (int i = 0; i < 4'000'000; ++i) values += ",0";
  check_error([&] { parse_json(values + "]}", "big.json"); }, kInvalid,
              {"big.json: the JSON has too many values"});
}

TEST_CASE("config.json: malformed and unsupported") {
  const RandomModel model = random_model(micro_model_config(), 7);
  const json good = json::parse(hf_config_json(model.config));
  open(good.dump(), model);
  for (const ConfigCase& c : config_cases()) {
    CAPTURE(c.name);
    json config = good;
    c.bend(config);
    auto fragments = c.fragments;
    fragments.push_back("bent");
    check_error([&] { open(config.dump(), model); }, c.code, fragments);
  }
  check_error([&] { open("{\"a\": 1, \"a\": 1}", model); }, kInvalid,
              {"bent/config.json: key 'a' appears twice"});
  check_error([&] { open("", model); }, kInvalid, {"bent/config.json: the JSON is malformed"});
}

TEST_CASE("HF tensors: missing, misshapen, of a wrong type, too many") {
  const RandomModel good = random_model(micro_model_config(), 7);
  const std::string config = hf_config_json(good.config);
  const auto bent = [&](auto change) {
    RandomModel model = good;
    change(model.tensors);
    open(config, model);
  };
  check_error([&] { bent([](auto& t) { t.pop_back(); }); }, kInvalid,
              {"tensor 'model.norm.weight' is missing"});
  check_error([&] { bent([](auto& t) {
                      t[0].shape = {32, 300};
                    }); }, kInvalid,
              {"bent/model.safetensors: tensor 'model.embed_tokens.weight' has shape [32, 300]",
               "asks for [300, 32]"});
  check_error(
      [&] {
        bent([](auto& t) {
          t.push_back({"model.layers.0.self_attn.q_proj.bias", {32}, std::vector<float>(32)});
        });
      },
      kUnsupported, {"'model.layers.0.self_attn.q_proj.bias' is no part of a Llama model"});

  // A tensor of bytes where weights should be.
  auto bytes = safetensors_bytes(good);
  std::string text(reinterpret_cast<const char*>(bytes.data()), bytes.size());
  const std::size_t norm = text.find("\"model.norm.weight\"");
  const std::size_t dtype = text.find("\"F32\"", norm);
  text.replace(dtype, 5, "\"I32\"");
  const auto file = in_memory(Bytes().add_text(text).data, "bent/model.safetensors");
  check_error([&] { open_hf_model(config, "bent", {file}, {}); }, kUnsupported,
              {"'model.norm.weight' has type I32; convert the model to F32, F16 or BF16"});
}

TEST_CASE("HF folders: missing files and lying indices") {
  const RandomModel model = random_model(micro_model_config(), 7);
  const TemporaryFolder folder;
  const auto& path = folder.path();
  check_error([&] { open_model(path); }, ErrorCode::io, {"config.json", "cannot open"});
  write_file(path / "config.json", hf_config_json(model.config));
  check_error([&] { open_model(path); }, ErrorCode::io,
              {"neither model.safetensors nor model.safetensors.index.json"});

  write_hf_folder(path, model, {kernels::DataType::f32, 2, true});
  const auto index_path = path / "model.safetensors.index.json";
  const std::string first = "model-00001-of-00002.safetensors";
  const std::string second = "model-00002-of-00002.safetensors";
  json good;
  for (std::size_t i = 0; i < model.tensors.size(); ++i) {
    good["weight_map"][model.tensors[i].name] = i % 2 == 0 ? first : second;
  }
  const auto refused = [&](const json& index, ErrorCode code,
                           const std::vector<std::string>& fragments) {
    write_file(index_path, index.dump());
    check_error([&] { open_model(path); }, code, fragments);
  };
  refused(json::object(), kInvalid, {"index.json", "'weight_map'", "must map"});
  refused({{"weight_map", json::array()}}, kInvalid, {"'weight_map'", "must map"});
  refused({{"weight_map", {{"model.norm.weight", 3}}}}, kInvalid,
          {"'model.norm.weight' must name a file"});
  for (const char* name : {"../secret", "/etc/passwd", "a/b", "..", "", "a\\b"}) {
    refused({{"weight_map", {{"model.norm.weight", name}}}}, kInvalid,
            {"'model.norm.weight' names", "must be a file in the same folder"});
  }
  json bent = good;
  bent["weight_map"]["model.norm.weight"] = "absent.safetensors";
  refused(bent, ErrorCode::io, {"absent.safetensors", "cannot open"});
  bent = good;
  bent["weight_map"][model.tensors[0].name] = second;
  refused(bent, kInvalid, {"'" + model.tensors[0].name + "' is not in '" + second + "'"});
  bent = good;
  bent["weight_map"]["model.extra.weight"] = first;
  refused(bent, kInvalid, {"'model.extra.weight' is not in"});

  // Both shards hold everything.
  write_file(index_path, good.dump());
  write_file(path / first, safetensors_bytes(model));
  write_file(path / second, safetensors_bytes(model));
  check_error([&] { open_model(path); }, kInvalid, {"appears twice, also in", first});
}
