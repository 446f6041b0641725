#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <fstream>
#include <functional>
#include <nlohmann/json.hpp>
#include <sstream>

#include "engine/model/eagle_head.h"
#include "engine/model/eagle_source.h"
#include "kernels/cpu/row_format.h"
#include "model/model_test_support.h"
#include "specdec/error.h"

using namespace specdec;
using namespace specdec::testing;
using kernels::DataType;
using nlohmann::json;

namespace {

ModelConfig target_config() {
  ModelConfig config = micro_model_config();
  config.num_layers = 4;
  config.num_heads = 4;
  config.num_kv_heads = 2;
  config.hidden_size = 64;
  return config;
}

json read_config(const std::filesystem::path& folder) {
  std::ifstream file(folder / "config.json");
  return json::parse(file);
}

/// The message with which a head is refused after `change` to its configuration.
std::string refusal(const EagleOptions& options, const std::function<void(json&)>& change) {
  const TemporaryFolder folder;
  write_eagle_folder(folder.path(), random_eagle_head(target_config(), 5, options), options);
  json config = read_config(folder.path());
  change(config);
  write_file(folder.path() / "config.json", config.dump());
  try {
    open_eagle_head(folder.path(), target_config(), HeadWeights::as_stored);
  } catch (const Error& error) {
    return error.what();
  }
  return "";
}

bool holds(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

}  // namespace

TEST_CASE("EAGLE-3: both dialects describe the same head") {
  for (const DataType type : {DataType::f32, DataType::bf16})
    for (const bool own_embedding : {false, true}) {
      const TemporaryFolder folder;
      EagleOptions options{.type = type, .draft_vocab_size = 90, .own_embedding = own_embedding};
      const RandomModel head = random_eagle_head(target_config(), 5, options);
      write_eagle_folder(folder.path() / "forge", head, options);
      options.speculators = true;
      write_eagle_folder(folder.path() / "spec", head, options);
      CHECK(is_eagle_head(folder.path() / "forge"));
      CHECK(is_eagle_head(folder.path() / "spec"));
      const auto a =
          open_eagle_head(folder.path() / "forge", target_config(), HeadWeights::as_stored);
      const auto b =
          open_eagle_head(folder.path() / "spec", target_config(), HeadWeights::as_stored);
      for (const auto& source : {a.get(), b.get()}) {
        CHECK(source->feature_layers == std::vector<int>{1, 2, 4});
        CHECK(source->draft_vocab_size == 90);
        CHECK(source->target_tokens == eagle_target_tokens(90, 300));
        CHECK(source->embedding.has_value() == own_embedding);
        CHECK(source->fc.size() == 3);
        CHECK(source->layer.num_layers == 1);
        CHECK(source->qkv.cols() == 128);
      }
      CHECK(matrix_values(a->qkv) == matrix_values(b->qkv));
      CHECK(matrix_values(a->head) == matrix_values(b->head));
      CHECK(a->hidden_norm == b->hidden_norm);
      // fc, cut into its features: column by column the file's.
      std::vector<float> fc = head.tensor("fc.weight").values;
      if (type == DataType::f32)
        for (std::size_t i = 0; i < 3; ++i) {
          const std::vector<float> part = matrix_values(a->fc[i]);
          for (std::size_t row = 0; row < 64; ++row)
            CHECK(std::equal(&part[row * 64], &part[row * 64] + 64, &fc[row * 192 + i * 64]));
        }
    }
}

TEST_CASE("EAGLE-3: q8_0 keeps each weight within half a step") {
  const TemporaryFolder folder;
  const EagleOptions options;
  write_eagle_folder(folder.path(), random_eagle_head(target_config(), 5, options), options);
  const auto exact = open_eagle_head(folder.path(), target_config(), HeadWeights::as_stored);
  const auto small = open_eagle_head(folder.path(), target_config(), HeadWeights::q8_0);
  CHECK(small->qkv.parts[0].type == DataType::q8_0);
  for (const auto& [a, b] : {std::pair{&exact->qkv, &small->qkv},
                             {&exact->fc[1], &small->fc[1]},
                             {&exact->head, &small->head}}) {
    const std::vector<float> want = matrix_values(*a);
    const std::vector<float> got = matrix_values(*b);
    REQUIRE(want.size() == got.size());
    double worst = 0;
    for (std::size_t begin = 0; begin < want.size(); begin += 32) {
      float amax = 0;
      for (std::size_t i = begin; i < begin + 32; ++i) amax = std::max(amax, std::fabs(want[i]));
      for (std::size_t i = begin; i < begin + 32; ++i)
        worst = std::max(worst, static_cast<double>(std::fabs(want[i] - got[i])) /
                                    (static_cast<double>(amax) / 127));
    }
    // Half a step, and the scale's own rounding to f16: 2^-11 of 127 steps.
    CHECK(worst < 0.5 + 127.0 / 2048 + 1e-3);
  }
}

TEST_CASE("EAGLE-3: q4_1 leaves 8 bits to what the target's features go through") {
  const TemporaryFolder folder;
  const EagleOptions options{.own_embedding = true};
  write_eagle_folder(folder.path(), random_eagle_head(target_config(), 5, options), options);
  const auto exact = open_eagle_head(folder.path(), target_config(), HeadWeights::as_stored);
  const auto small = open_eagle_head(folder.path(), target_config(), HeadWeights::q4_1);
  for (const MatrixSource* source : {&small->qkv, &small->fc[0], &small->fc[2], &*small->embedding})
    for (const RowSource& part : source->parts) CHECK(part.type == DataType::q8_0);
  for (const auto& [a, b] : {std::pair{&exact->attention_output, &small->attention_output},
                             {&exact->gate_up, &small->gate_up},
                             {&exact->down, &small->down},
                             {&exact->head, &small->head}}) {
    for (const RowSource& part : b->parts) CHECK(part.type == DataType::q4_1);
    const std::vector<float> want = matrix_values(*a);
    const std::vector<float> got = matrix_values(*b);
    REQUIRE(want.size() == got.size());
    double error = 0;
    double square = 0;
    for (std::size_t i = 0; i < want.size(); ++i) {
      error += std::pow(static_cast<double>(want[i] - got[i]), 2);
      square += std::pow(static_cast<double>(want[i]), 2);
    }
    // 16 levels over a range of two to four standard deviations: a tenth of one at most.
    CHECK(error < 0.01 * square);
    CHECK(error > 0);
  }
}

TEST_CASE("EAGLE-3: what does not fit the target or is no head is refused, with its name") {
  const EagleOptions forge{.draft_vocab_size = 90};
  const EagleOptions spec{.speculators = true, .draft_vocab_size = 90};
  const auto nothing = [](json&) {};
  CHECK(refusal(forge, nothing) == "");
  CHECK(refusal(spec, nothing) == "");
  CHECK(holds(refusal(forge, [](json& c) { c["vocab_size"] = 301; }), "the target's is 300"));
  CHECK(holds(refusal(forge, [](json& c) { c["draft_vocab_size"] = 91; }), "lm_head.weight"));
  CHECK(holds(refusal(forge, [](json& c) { c["draft_vocab_size"] = 0; }), "draft_vocab_size"));
  CHECK(holds(refusal(forge, [](json& c) { c["hidden_size"] = 32; }), "embed_tokens.weight"));
  CHECK(holds(refusal(forge, [](json& c) { c["architectures"] = {"LlamaForCausalLM"}; }),
              "no EAGLE-3 head"));
  CHECK(holds(refusal(forge,
                      [](json& c) {
                        c["eagle_config"]["eagle_aux_hidden_state_layer_ids"] = {0, 1, 4};
                      }),
              "the target has 4"));
  CHECK(holds(refusal(spec,
                      [](json& c) {
                        c["eagle_aux_hidden_state_layer_ids"] = {2, 2, 3};
                      }),
              "does not rise"));
  CHECK(holds(refusal(spec,
                      [](json& c) {
                        c["eagle_aux_hidden_state_layer_ids"] = {1, 2};
                      }),
              "fc.weight"));
  CHECK(holds(refusal(spec, [](json& c) { c.erase("transformer_layer_config"); }),
              "transformer_layer_config"));
  CHECK(holds(refusal(spec, [](json& c) { c["transformer_layer_config"]["hidden_act"] = "gelu"; }),
              "hidden_act"));

  const TemporaryFolder folder;
  RandomModel head = random_eagle_head(target_config(), 5, forge);
  head.tensors.push_back({"midlayer.self_attn.q_proj.bias", {64}, std::vector<float>(64)});
  write_eagle_folder(folder.path(), head, forge);
  CHECK_THROWS_WITH_AS(open_eagle_head(folder.path(), target_config(), HeadWeights::as_stored),
                       doctest::Contains("no part of an EAGLE-3 head"), Error);
  CHECK_FALSE(is_eagle_head(folder.path() / "elsewhere"));
}

namespace {

using Values = std::vector<double>;

/// An EAGLE-3 head in plain double-precision loops, from the paper and the tensors by name:
/// nothing of the library but the RoPE frequencies.
class PlainHead {
 public:
  PlainHead(const RandomModel& head, const RandomModel& target, bool norm_before_residual)
      : head_(head), target_(target), norm_before_residual_(norm_before_residual) {}

  Values fc(const Values& features) const { return product("fc.weight", features); }

  /// The outputs before the final norm at the last of the paper's indices 0..n-1: index t joins
  /// hidden[t] with tokens[t + 1]. Attention runs over all of them.
  Values last_output(const std::vector<Values>& hidden, const std::vector<TokenId>& next) const {
    const ModelConfig& config = head_.config;
    const auto d = static_cast<std::size_t>(config.head_dim);
    std::vector<Values> keys;
    std::vector<Values> values;
    Values query;
    Values residual;
    for (std::size_t t = 0; t < hidden.size(); ++t) {
      const Values embedded = norm("midlayer.input_layernorm.weight", embedding(next[t]));
      const Values normed = norm("midlayer.hidden_norm.weight", hidden[t]);
      Values joined = embedded;
      joined.insert(joined.end(), normed.begin(), normed.end());
      query = rotated(product("midlayer.self_attn.q_proj.weight", joined), t);
      keys.push_back(rotated(product("midlayer.self_attn.k_proj.weight", joined), t));
      values.push_back(product("midlayer.self_attn.v_proj.weight", joined));
      residual = norm_before_residual_ ? normed : hidden[t];
    }
    Values attended(query.size());
    const std::size_t heads = query.size() / d;
    const std::size_t group = heads / (keys[0].size() / d);
    for (std::size_t h = 0; h < heads; ++h) {
      Values weights;
      for (const Values& key : keys) {
        double dot = 0;
        for (std::size_t i = 0; i < d; ++i) dot += query[h * d + i] * key[h / group * d + i];
        weights.push_back(std::exp(dot / std::sqrt(static_cast<double>(d))));
      }
      double total = 0;
      for (const double weight : weights) total += weight;
      for (std::size_t t = 0; t < weights.size(); ++t)
        for (std::size_t i = 0; i < d; ++i)
          attended[h * d + i] += weights[t] / total * values[t][h / group * d + i];
    }
    Values x = sum(residual, product("midlayer.self_attn.o_proj.weight", attended));
    const Values normed = norm("midlayer.post_attention_layernorm.weight", x);
    const Values gate = product("midlayer.mlp.gate_proj.weight", normed);
    Values up = product("midlayer.mlp.up_proj.weight", normed);
    for (std::size_t i = 0; i < up.size(); ++i) up[i] *= gate[i] / (1 + std::exp(-gate[i]));
    return sum(x, product("midlayer.mlp.down_proj.weight", up));
  }

  Values logits(const Values& output) const {
    return product("lm_head.weight", norm("norm.weight", output));
  }

 private:
  Values embedding(TokenId token) const {
    const RandomTensor& table = target_.tensor("model.embed_tokens.weight");
    const auto begin = table.values.begin() + token * table.shape[1];
    return {begin, begin + table.shape[1]};
  }
  Values product(const std::string& name, const Values& x) const {
    const RandomTensor& matrix = head_.tensor(name);
    REQUIRE(matrix.shape[1] == static_cast<std::int64_t>(x.size()));
    Values out(static_cast<std::size_t>(matrix.shape[0]));
    for (std::size_t row = 0; row < out.size(); ++row)
      for (std::size_t i = 0; i < x.size(); ++i)
        out[row] += static_cast<double>(matrix.values[row * x.size() + i]) * x[i];
    return out;
  }
  Values norm(const std::string& name, const Values& x) const {
    const std::vector<float>& weight = head_.tensor(name).values;
    double square = 0;
    for (const double value : x) square += value * value;
    const double scale = 1 / std::sqrt(square / static_cast<double>(x.size()) +
                                       static_cast<double>(head_.config.norm_eps));
    Values out(x.size());
    for (std::size_t i = 0; i < x.size(); ++i)
      out[i] = x[i] * scale * static_cast<double>(weight[i]);
    return out;
  }
  Values rotated(Values x, std::size_t position) const {
    const Values frequencies = rope_inverse_frequencies(head_.config);
    const std::size_t half = frequencies.size();
    for (std::size_t begin = 0; begin < x.size(); begin += 2 * half)
      for (std::size_t i = 0; i < half; ++i) {
        const double angle = static_cast<double>(position) * frequencies[i];
        const double a = x[begin + i];
        const double b = x[begin + half + i];
        x[begin + i] = a * std::cos(angle) - b * std::sin(angle);
        x[begin + half + i] = b * std::cos(angle) + a * std::sin(angle);
      }
    return x;
  }
  static Values sum(Values a, const Values& b) {
    for (std::size_t i = 0; i < a.size(); ++i) a[i] += b[i];
    return a;
  }

  const RandomModel& head_;
  const RandomModel& target_;
  bool norm_before_residual_;
};

}  // namespace

TEST_CASE(
    "EAGLE-3: features, entries and a draft of three tokens, against plain double precision") {
  for (const bool norm_before_residual : {false, true}) {
    CAPTURE(norm_before_residual);
    const TemporaryFolder folder;
    const ModelConfig config = target_config();
    const RandomModel target_model = random_model(config, 1);
    EagleOptions options{
        .speculators = true, .draft_vocab_size = 90, .norm_before_residual = norm_before_residual};
    const RandomModel head_model = random_eagle_head(config, 5, options);
    write_gguf(folder.path() / "target.gguf", target_model);
    write_eagle_folder(folder.path() / "head", head_model, options);

    const auto backend = make_backend({});
    const auto source = open_model(folder.path() / "target.gguf");
    const auto pool = [&](const ModelConfig& model) {
      return KvPoolStorage(*backend, model, 8, 16, DataType::f32);
    };
    Transformer target(*backend, TransformerWeights(*backend, *source), pool(config), 64);
    const auto head_source =
        open_eagle_head(folder.path() / "head", config, HeadWeights::as_stored);
    EagleHead head(*backend, *head_source, target.embedding(), pool(head_source->layer), 64);

    const std::vector<TokenId> tokens = {5, 17, 250, 3, 99, 17, 42, 8, 120, 77, 6};
    const auto size = static_cast<int>(tokens.size());
    const std::vector<BlockId> table = {3, 1, 0, 2, 4, 5, 6, 7};
    // The hidden states as the target's pass shows them: what the features are is checked on the
    // real model, by acceptance; here they are taken as they come.
    struct Recorder final : HiddenStateTap {
      std::vector<std::vector<float>> layers;
      EagleHead* head = nullptr;
      void observe(int layer, const float* x, int rows, Stream stream) override {
        CHECK(layer == static_cast<int>(layers.size()));
        layers.emplace_back(x, x + rows * 64);
        head->observe(layer, x, rows, stream);
      }
    } recorder;
    recorder.head = &head;
    ForwardBatch batch;
    batch.begin_sequence(0, table);
    for (int t = 0; t < size; ++t) batch.add_row(tokens[static_cast<std::size_t>(t)], t, false);
    target.forward(batch, Stream{}, &recorder);
    REQUIRE(recorder.layers.size() == 5);

    const PlainHead plain(head_model, target_model, norm_before_residual);
    std::vector<Values> hidden;
    for (std::size_t t = 0; t + 1 < tokens.size(); ++t) {
      Values features;
      for (const std::size_t layer : {1U, 2U, 4U})
        for (std::size_t i = 0; i < 64; ++i)
          features.push_back(static_cast<double>(recorder.layers[layer][t * 64 + i]));
      hidden.push_back(plain.fc(features));
      for (std::size_t i = 0; i < 64; ++i)
        CHECK(head.features()[t * 64 + i] == doctest::Approx(hidden[t][i]).epsilon(1e-4).scale(1));
    }
    // All entries but the last in one pass that wants nothing, the last, then two draft tokens.
    std::vector<TokenId> next(tokens.begin() + 1, tokens.end());
    std::vector<float> rows(head.features(), head.features() + (size - 1) * 64);
    ForwardBatch entries;
    entries.begin_sequence(1, table);
    for (int e = 1; e + 1 < size; ++e)
      entries.add_row(tokens[static_cast<std::size_t>(e)], e, false);
    std::copy_n(rows.begin(), rows.size() - 64, head.hidden());
    CHECK(head.forward(entries, Stream{}).empty());
    std::copy_n(rows.end() - 64, 64, head.hidden());
    TokenId token = tokens.back();
    for (int step = 0; step < 3; ++step) {
      CAPTURE(step);
      ForwardBatch one;
      const int position = size - 1 + step;
      one.begin_sequence(position, table);
      one.add_row(token, position, true);
      const std::span<const float> got = head.forward(one, Stream{});
      REQUIRE(got.size() == 90);
      const Values output = plain.last_output(hidden, next);
      const Values expected = plain.logits(output);
      double worst = 0;
      for (std::size_t i = 0; i < got.size(); ++i)
        worst = std::max(worst, std::fabs(static_cast<double>(got[i]) - expected[i]));
      CHECK(worst < 2e-3);  // of logits that spread by about 3
      // The head's own output goes on as the next hidden state: hidden() holds it already.
      hidden.push_back(output);
      const auto best = std::max_element(expected.begin(), expected.end()) - expected.begin();
      token = head_source->target_tokens[static_cast<std::size_t>(best)];
      next.push_back(token);
    }
  }
}
