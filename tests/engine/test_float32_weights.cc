#ifdef SPECDEC_HAS_CUDA

#include <doctest/doctest.h>
#include <unistd.h>

#include <cmath>
#include <filesystem>
#include <initializer_list>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "engine/backend/backend.h"
#include "engine/guessed_requests.h"
#include "engine/micro_models.h"
#include "engine/model/transformer.h"
#include "support/check_outputs.h"
#include "support/engine_runs.h"
#include "support/model_writer.h"
#include "support/quantise.h"

// backend.float32_weights on a GPU: what TF32 keeps that f16 loses, what it takes, and that
// speculation changes nothing with it either.

using namespace specdec;
using namespace specdec::testing;

namespace {

using kernels::DataType;

bool no_device() { return test_device() != "cuda" || device_missing(); }

ModelConfig small_config() {
  ModelConfig config = micro_model_config();
  config.num_layers = 3;
  config.num_kv_heads = 2;
  config.num_heads = 4;
  config.hidden_size = 64;
  config.ffn_size = 96;
  return config;
}

/// The same function of its input with `up` 2^24 times as large and `down` 2^24 times as small, of
/// which float32's exponents make nothing: f16 has neither the one's results nor the other's
/// weights.
RandomModel stretched(RandomModel model) {
  for (RandomTensor& tensor : model.tensors) {
    const int shift = tensor.name.ends_with("up_proj.weight")     ? 24
                      : tensor.name.ends_with("down_proj.weight") ? -24
                                                                  : 0;
    for (float& value : tensor.values) value = std::ldexp(value, shift);
  }
  return model;
}

/// Writes a tensor of a float32 model in another type.
void retype(GgufFileSpec::Tensor& tensor, DataType type, std::uint32_t gguf_type) {
  const std::vector<float> values = dequantise(tensor.data, DataType::f32);
  tensor.type = gguf_type;
  tensor.data = quantise(values, type);
}

struct Models {
  std::filesystem::path folder =
      std::filesystem::temp_directory_path() / ("specdec-float32-" + std::to_string(::getpid()));
  std::string plain = (folder / "plain.gguf").string();
  std::string stretched = (folder / "stretched.gguf").string();
  std::string mixed = (folder / "mixed.gguf").string();  // types change within layers and matrices
  std::string draft = (folder / "draft.gguf").string();
  std::string eagle = (folder / "eagle").string();

  Models() {
    std::filesystem::create_directories(folder);
    const ModelConfig config = small_config();
    const RandomModel model = random_model(config, 1);
    write_gguf(plain, model);
    write_gguf(stretched, ::stretched(model));
    write_gguf(draft, perturbed_model(model, 0.1f, 2));
    const EagleOptions options{.feature_layers = {1, 2, 3}};
    write_eagle_folder(eagle, random_eagle_head(config, 3, options), options);
    GgufFileSpec spec = gguf_spec(model);
    for (GgufFileSpec::Tensor& tensor : spec.tensors) {
      if (tensor.name.ends_with("attn_k.weight")) retype(tensor, DataType::bf16, 30);
      if (tensor.name.ends_with("attn_v.weight")) retype(tensor, DataType::q8_0, 8);
      if (tensor.name.ends_with("ffn_gate.weight")) retype(tensor, DataType::f16, 1);
      if (tensor.name == "blk.0.attn_output.weight") retype(tensor, DataType::bf16, 30);
      if (tensor.name == "blk.1.ffn_down.weight") retype(tensor, DataType::q8_0, 8);
      if (tensor.name == "blk.2.ffn_up.weight") retype(tensor, DataType::f16, 1);
    }
    write_file(mixed, spec.bytes());
  }
  ~Models() {
    std::error_code ignored;
    std::filesystem::remove_all(folder, ignored);
  }
};
const Models& models() {
  static const Models written;
  return written;
}

Config config_of(const std::string& float32_weights, const char* device = "cuda") {
  Config config = micro_config();
  config.target.model = models().plain;
  config.draft.model = models().draft;
  config.backend.device = device;
  config.backend.float32_weights = float32_weights;
  config.kv_cache.type = "f32";
  return config;
}

/// The root of the mean square of what they differ by.
double distance(const std::vector<float>& a, const std::vector<float>& b) {
  REQUIRE(a.size() == b.size());
  double sum = 0;
  for (std::size_t i = 0; i < a.size(); ++i)
    sum += std::pow(static_cast<double>(a[i]) - static_cast<double>(b[i]), 2);
  return std::sqrt(sum / static_cast<double>(a.size()));
}

MatrixSource source_of(const std::vector<std::byte>& rows, DataType type, int num_rows, int cols) {
  MatrixSource source;
  source.parts = {{.type = type, .cols = cols, .num_rows = num_rows, .data = rows.data()}};
  return source;
}

std::vector<std::byte> packed(Backend& backend, const MatrixSource& source, DataType expected) {
  const std::size_t bytes = backend.packed_bytes(source);
  const DeviceBuffer memory = backend.allocate(bytes, MemoryUse::weights);
  CHECK(backend.pack(source, memory.as<void>()).type == expected);
  const auto* data = static_cast<const std::byte*>(backend.read(memory.as<void>(), bytes, {}));
  return {data, data + bytes};
}

}  // namespace

TEST_CASE("weights of float32: TF32 has their range, f32 their accuracy, f16 neither" *
          doctest::skip(no_device())) {
  const std::vector<float> exact = logits_of(models().plain, config_of("f16", "cpu"));
  const std::vector<float> f16 = logits_of(models().plain, config_of("f16"));
  const std::vector<float> tf32 = logits_of(models().plain, config_of("tf32"));
  const std::vector<float> f32 = logits_of(models().plain, config_of("f32"));
  const double size = distance(exact, std::vector<float>(exact.size()));
  // TF32's fraction is f16's: what is nearer is the embedding, which stays float32.
  CHECK(distance(f16, exact) < 5e-3 * size);
  CHECK(distance(tf32, exact) < distance(f16, exact));
  CHECK(distance(tf32, exact) > 1e-4 * size);
  CHECK(distance(f32, exact) < 1e-5 * size);

  CHECK(logits_of(models().stretched, config_of("tf32")) == tf32);
  CHECK(distance(logits_of(models().stretched, config_of("f32")), exact) < 1e-5 * size);
  CHECK(distance(logits_of(models().stretched, config_of("f16")), exact) > 0.5 * size);
}

TEST_CASE(
    "weights of float32: four bytes each in TF32 and f32, two as f16, the file's own of others" *
    doctest::skip(no_device())) {
  const auto tf32 = make_backend(config_of("tf32").backend);
  const auto f16 = make_backend(config_of("f16").backend);
  constexpr int kRows = 48;
  constexpr int kCols = 96;
  const std::vector<std::byte> nothing;
  const auto bytes = [&](Backend& backend, DataType type) {
    return backend.packed_bytes(source_of(nothing, type, kRows, kCols));
  };
  CHECK(bytes(*tf32, DataType::f32) == kRows * kCols * 4);
  CHECK(bytes(*make_backend(config_of("f32").backend), DataType::f32) == kRows * kCols * 4);
  CHECK(bytes(*f16, DataType::f32) == kRows * kCols * 2);
  for (const DataType type : {DataType::f16, DataType::bf16, DataType::q8_0, DataType::q4_1})
    CHECK(bytes(*tf32, type) == bytes(*f16, type));

  // What a model takes of the device's memory: each weight two bytes more.
  const auto source = open_model(models().plain);
  const auto taken = [&](Backend& backend) {
    const std::size_t before = backend.free_memory().value();
    const TransformerWeights weights(backend, *source);
    return before - backend.free_memory().value();
  };
  std::size_t weights = 0;
  const auto count = [&](const MatrixSource& matrix) {
    weights += static_cast<std::size_t>(matrix.rows()) * static_cast<std::size_t>(matrix.cols());
  };
  for (const LayerSource& layer : source->layers())
    for (const MatrixSource* matrix :
         {&layer.qkv, &layer.attention_output, &layer.gate_up, &layer.down})
      count(*matrix);
  count(source->embedding());
  if (!source->config().tied_head) count(source->head());
  const auto is_right = [&] {
    const std::size_t more = taken(*tf32) - taken(*f16);
    // A GPU's driver hands small parts out of whole pages.
    constexpr std::size_t kPage = std::size_t{2} << 20;
    const std::size_t page = more % kPage == 0 ? kPage : 0;
    CAPTURE(more);
    const bool right =
        more + page >= weights * 2 && more <= weights * 2 + weights / 4 + page;  // tiles of 16 rows
    WARN(right);
    return right;
  };
  // Whoever else uses the device takes memory and gives it back meanwhile.
  CHECK((is_right() || is_right() || is_right()));
}

TEST_CASE("weights of float32: a matrix that mixes types is packed as its floats" *
          doctest::skip(no_device())) {
  constexpr int kCols = 96;
  constexpr int kRows = 24;  // of a part
  std::mt19937 random(7);
  std::vector<float> values(static_cast<std::size_t>(3 * kRows * kCols));
  for (float& value : values) value = std::ldexp(static_cast<float>(random() % 65536) - 32768, -20);
  const auto part_of = [&](int part) {
    return std::span(values).subspan(static_cast<std::size_t>(part * kRows * kCols), kRows * kCols);
  };
  // The mixed types hold the values that the floats are then made of.
  const DataType orders[][3] = {{DataType::f32, DataType::bf16, DataType::q8_0},
                                {DataType::q8_0, DataType::f32, DataType::f16},
                                {DataType::f16, DataType::q8_0, DataType::f32},
                                {DataType::f16, DataType::bf16, DataType::f16}};
  for (const auto& types : orders) {
    std::vector<std::byte> parts[3];
    std::vector<std::byte> floats;
    MatrixSource mixed;
    bool has_f32 = false;
    for (int i = 0; i < 3; ++i) {
      parts[i] = quantise(part_of(i), types[i]);
      mixed.parts.push_back(
          {.type = types[i], .cols = kCols, .num_rows = kRows, .data = parts[i].data()});
      const std::vector<float> exact = dequantise(parts[i], types[i]);
      const auto* begin = reinterpret_cast<const std::byte*>(exact.data());
      floats.insert(floats.end(), begin, begin + exact.size() * sizeof(float));
      has_f32 = has_f32 || types[i] == DataType::f32;
    }
    const MatrixSource whole = source_of(floats, DataType::f32, 3 * kRows, kCols);
    for (const char* kept : {"f16", "tf32"}) {
      CAPTURE(kept);
      const auto backend = make_backend(config_of(kept).backend);
      const bool as_f32 = std::string(kept) == "tf32";
      const DataType type = as_f32 && has_f32 ? DataType::f32 : DataType::f16;
      const auto got = packed(*backend, mixed, type);
      if (as_f32 && !has_f32) {
        CHECK(got == packed(*make_backend(config_of("f16").backend), whole, DataType::f16));
        continue;
      }
      CHECK(got == packed(*backend, whole, type));
    }
  }
}

namespace {

struct Drafting {
  const char* method;
  int topk;
  bool loop;
};

/// The same tokens with each of `kinds` as without drafts, on the host, a request at a time.
void check_drafting(const char* float32_weights, const std::string& target, const char* kv_type,
                    std::initializer_list<Drafting> kinds) {
  CAPTURE(target);
  Config config = config_of(float32_weights);
  config.target.model = target;
  config.kv_cache.type = kv_type;
  std::vector<Request> requests;
  for (int i = 0; i < 3; ++i)
    requests.push_back(guessed_request(tokens_from(7 * i, 5 + 9 * i), 12));
  requests[1].sampling.temperature = 0;
  requests[1].sampling.logprobs = 1;
  std::vector<Request> plain = requests;
  for (Request& request : plain) request.speculation.enabled = false;
  Config host = config;
  host.backend.device_loop = host.backend.device_sampling = host.backend.step_graphs = false;
  Engine alone = Engine::load(host);
  const std::vector<RunResult> expected = run_requests(alone, plain, 1);
  for (const auto& [method, topk, loop] : kinds) {
    CAPTURE(std::string(method));
    CAPTURE(topk);
    CAPTURE(loop);
    Config drafting = config;
    drafting.draft.method = method;
    drafting.draft.length.num_speculative_tokens = 4;
    drafting.draft.tree.topk = topk;
    drafting.draft.tree.num_draft_tokens = 12;
    drafting.backend.device_loop = loop;
    if (drafting.draft.method == "eagle3") {
      drafting.draft.model = models().eagle;
      drafting.draft.weight_type = "file";
    } else if (drafting.draft.method == "early_exit") {
      drafting.draft.model.clear();
      drafting.draft.early_exit.exit_layer = 2;
    }
    Engine engine = Engine::load(drafting);
    check_equal(expected, run_requests(engine, requests, 2));
    CHECK(engine.stats().speculation.spec_decode_num_accepted_tokens > 0);
  }
}

}  // namespace

TEST_CASE("weights of float32: speculation changes nothing, however they are multiplied" *
          doctest::skip(no_device())) {
  check_drafting("tf32", models().plain, "f16",
                 {{"draft_model", 1, true}, {"eagle3", 3, true}, {"early_exit", 3, false}});
  check_drafting("tf32", models().mixed, "f32", {{"draft_model", 3, false}, {"eagle3", 1, true}});
  check_drafting("f32", models().plain, "f32", {{"eagle3", 3, true}, {"draft_model", 3, false}});
}

#endif
