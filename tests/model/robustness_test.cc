#include <doctest/doctest.h>

#include <cstring>

#include "engine/model/gguf_model.h"
#include "engine/model/hf_folder.h"
#include "engine/text/tokenizer_data.h"
#include "model/model_test_support.h"

using namespace specdec;
using namespace specdec::testing;
using kernels::DataType;

namespace {

ModelConfig smallest_config() {
  ModelConfig config = micro_model_config();
  config.vocab_size = 260;
  config.ffn_size = 32;
  return config;
}

/// True when the bytes make a valid model, false when they are refused with a message; anything
/// else fails the test, or crashes under a sanitizer: the bytes lie in a heap block of their exact
/// size.
bool open_gguf(std::vector<std::byte> bytes) {
  const auto file = in_memory(std::move(bytes), "bent.gguf");
  try {
    const auto source = open_gguf_model(file);
    check_valid(*source, {file});
    const TokenizerData data = read_gguf_tokenizer(GgufFile(file), source->config().vocab_size);
    REQUIRE(data.tokens.size() == static_cast<std::size_t>(source->config().vocab_size));
    return true;
  } catch (const Error& error) {
    REQUIRE(std::strstr(error.what(), "bent.gguf: ") == error.what());
    return false;
  }
}

bool open_safetensors(const std::string& config, std::vector<std::byte> bytes) {
  const auto file = in_memory(std::move(bytes), "bent.safetensors");
  try {
    check_valid(*open_hf_model(config, "bent", {file}, {}), {file});
    return true;
  } catch (const Error& error) {
    REQUIRE(std::strstr(error.what(), "bent") == error.what());
    return false;
  }
}

}  // namespace

TEST_CASE("GGUF: no truncation is taken for a model") {
  GgufOptions options;
  options.type = options.embedding_type = DataType::q4_0;
  const auto good = gguf_spec(random_model(smallest_config(), 7), options).bytes();
  REQUIRE(open_gguf(good));
  for (std::size_t size = 0; size < good.size(); ++size) {
    CAPTURE(size);
    REQUIRE_FALSE(open_gguf({good.begin(), good.begin() + static_cast<std::ptrdiff_t>(size)}));
  }
}

TEST_CASE("GGUF: every flipped bit of the header is refused or still a valid model") {
  GgufOptions options;
  options.type = options.embedding_type = DataType::q4_0;
  const auto spec = gguf_spec(random_model(smallest_config(), 7), options);
  const auto good = spec.bytes();
  int valid = 0;
  int refused = 0;
  for (std::size_t at = 0; at < spec.header_size(); ++at) {
    for (const unsigned mask : {1u, 2u, 4u, 8u, 16u, 32u, 64u, 128u, 255u}) {
      CAPTURE(at);
      CAPTURE(mask);
      auto bytes = good;
      bytes[at] ^= static_cast<std::byte>(mask);
      ++(open_gguf(std::move(bytes)) ? valid : refused);
    }
  }
  // Flips inside names of tokens and unknown keys are harmless; those of sizes, types and tensor
  // names are not.
  CHECK(valid > 1000);
  CHECK(refused > 1000);
}

TEST_CASE("safetensors: no truncation is taken for a model") {
  const RandomModel model = random_model(smallest_config(), 7);
  const std::string config = hf_config_json(model.config);
  const auto good = safetensors_bytes(model, {DataType::bf16, 1, true});
  REQUIRE(open_safetensors(config, good));
  for (std::size_t size = 0; size < good.size(); ++size) {
    CAPTURE(size);
    REQUIRE_FALSE(
        open_safetensors(config, {good.begin(), good.begin() + static_cast<std::ptrdiff_t>(size)}));
  }
  REQUIRE_FALSE(open_safetensors(config, [&] {
    auto longer = good;
    longer.push_back(std::byte{0});
    return longer;
  }()));
}

TEST_CASE("safetensors: every flipped bit of the header is refused or still a valid model") {
  const RandomModel model = random_model(smallest_config(), 7);
  const std::string config = hf_config_json(model.config);
  const auto good = safetensors_bytes(model, {DataType::bf16, 1, true});
  std::uint64_t header = 0;
  std::memcpy(&header, good.data(), sizeof header);
  int refused = 0;
  for (std::size_t at = 0; at < 8 + header; ++at) {
    for (const unsigned mask : {1u, 2u, 4u, 8u, 16u, 32u, 64u, 128u, 255u}) {
      CAPTURE(at);
      CAPTURE(mask);
      auto bytes = good;
      bytes[at] ^= static_cast<std::byte>(mask);
      refused += open_safetensors(config, std::move(bytes)) ? 0 : 1;
    }
  }
  CHECK(refused > 1000);
}

TEST_CASE("config.json: truncations and flipped bits") {
  const RandomModel model = random_model(smallest_config(), 7);
  const std::string good = hf_config_json(model.config);
  const auto weights = safetensors_bytes(model, {DataType::bf16, 1, true});
  for (std::size_t size = 0; size < good.size(); ++size) {
    CAPTURE(size);
    REQUIRE_FALSE(open_safetensors(good.substr(0, size), weights));
  }
  for (std::size_t at = 0; at < good.size(); ++at) {
    for (const unsigned mask : {1u, 2u, 4u, 8u, 16u, 32u, 64u, 128u, 255u}) {
      CAPTURE(at);
      CAPTURE(mask);
      std::string bytes = good;
      bytes[at] = static_cast<char>(static_cast<unsigned char>(bytes[at]) ^ mask);
      open_safetensors(bytes, weights);
    }
  }
}
