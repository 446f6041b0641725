#include <doctest/doctest.h>

#include <cmath>

#include "engine/model/model_config.h"
#include "model/model_test_support.h"

using namespace specdec;
using namespace specdec::testing;

namespace {

/// As the Llama 3.1 reference has it (meta-llama/llama-models, apply_scaling), by wavelength and by
/// cases, in long double.
std::vector<long double> reference_frequencies(const ModelConfig& config) {
  constexpr long double kTwoPi = 6.283185307179586476925286766559005768L;
  const RopeScaling& scaling = config.rope_scaling;
  std::vector<long double> result;
  for (int i = 0; i < config.head_dim; i += 2) {
    const long double frequency = 1.0L / std::pow(static_cast<long double>(config.rope_theta),
                                                  static_cast<long double>(i) / config.head_dim);
    const long double old_context = scaling.original_max_position;
    const long double wavelength = kTwoPi / frequency;
    if (scaling.factor == 1.0f || wavelength < old_context / scaling.high_freq_factor) {
      result.push_back(frequency);
    } else if (wavelength > old_context / scaling.low_freq_factor) {
      result.push_back(frequency / scaling.factor);
    } else {
      const long double smooth = (old_context / wavelength - scaling.low_freq_factor) /
                                 (static_cast<long double>(scaling.high_freq_factor) -
                                  static_cast<long double>(scaling.low_freq_factor));
      result.push_back((1.0L - smooth) * frequency / scaling.factor + smooth * frequency);
    }
  }
  return result;
}

void check_reference(const ModelConfig& config) {
  const auto got = rope_inverse_frequencies(config);
  const auto wanted = reference_frequencies(config);
  REQUIRE(got.size() == wanted.size());
  for (std::size_t i = 0; i < got.size(); ++i) {
    CAPTURE(i);
    CHECK(std::fabs(got[i] / static_cast<double>(wanted[i]) - 1.0) < 1e-14);
  }
}

ModelConfig rope_config(int head_dim, float theta) {
  ModelConfig config;
  config.head_dim = head_dim;
  config.rope_theta = theta;
  return config;
}

}  // namespace

TEST_CASE("rope: plain frequencies") {
  check_reference(rope_config(64, 10000.0f));
  check_reference(rope_config(64, 100000.0f));
  check_reference(rope_config(128, 500000.0f));
  check_reference(rope_config(2, 10000.0f));
}

TEST_CASE("rope: llama3 scaling against the published formula") {
  for (const float factor : {8.0f, 32.0f, 2.5f}) {
    for (const int head_dim : {64, 128}) {
      ModelConfig config = rope_config(head_dim, 500000.0f);
      config.rope_scaling = {factor, 1.0f, 4.0f, 8192};
      CAPTURE(factor);
      check_reference(config);
      // All three cases of the formula occur: kept, blended, stretched.
      const auto scaled = rope_inverse_frequencies(config);
      const auto plain = rope_inverse_frequencies(rope_config(head_dim, 500000.0f));
      CHECK(scaled.front() == plain.front());
      CHECK(scaled.back() == plain.back() / factor);
      int blended = 0;
      for (std::size_t i = 0; i < plain.size(); ++i) {
        blended += scaled[i] < plain[i] * 0.999 && scaled[i] > plain[i] / factor * 1.001;
      }
      CHECK(blended > 0);
    }
  }
}

TEST_CASE("rope: factors divide the frequencies") {
  ModelConfig config = rope_config(8, 10000.0f);
  config.rope_factors = {1.0f, 2.0f, 4.0f, 8.0f};
  const auto plain = rope_inverse_frequencies(rope_config(8, 10000.0f));
  const auto divided = rope_inverse_frequencies(config);
  for (std::size_t i = 0; i < plain.size(); ++i) {
    CHECK(divided[i] == plain[i] / static_cast<double>(1 << i));
  }
}

TEST_CASE("rope: the factors of a GGUF file equal the scaling that they stand for") {
  ModelConfig scaled = rope_config(64, 500000.0f);
  scaled.rope_scaling = {32.0f, 1.0f, 4.0f, 8192};
  const auto wanted = rope_inverse_frequencies(scaled);
  ModelConfig factored = rope_config(64, 500000.0f);
  const auto plain = rope_inverse_frequencies(factored);
  for (std::size_t i = 0; i < plain.size(); ++i) {
    factored.rope_factors.push_back(static_cast<float>(plain[i] / wanted[i]));
  }
  const auto got = rope_inverse_frequencies(factored);
  for (std::size_t i = 0; i < plain.size(); ++i) {
    CHECK(std::fabs(got[i] / wanted[i] - 1.0) < 1e-7);
  }
}

TEST_CASE("rope: sizes that make no sense") {
  ModelConfig odd = rope_config(7, 10000.0f);
  check_error([&] { rope_inverse_frequencies(odd); }, ErrorCode::invalid_argument, {"head_dim 7"});
  ModelConfig short_factors = rope_config(8, 10000.0f);
  short_factors.rope_factors = {1.0f};
  check_error([&] { rope_inverse_frequencies(short_factors); }, ErrorCode::invalid_argument,
              {"1 rope factors for 4 pairs"});
}
