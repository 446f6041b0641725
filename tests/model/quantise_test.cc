#include "engine/model/quantise.h"

#include <doctest/doctest.h>

#include <cmath>
#include <random>

#include "support/quantise.h"

using namespace specdec;
using kernels::DataType;
using specdec::testing::dequantise;

namespace {

double squared_error(std::span<const float> want, std::span<const float> got) {
  double error = 0;
  for (std::size_t i = 0; i < want.size(); ++i)
    error += std::pow(static_cast<double>(want[i]) - static_cast<double>(got[i]), 2);
  return error;
}

std::vector<float> through_q4_1(std::span<const float> values) {
  std::vector<std::byte> bytes;
  append_quantised(DataType::q4_1, values, bytes);
  REQUIRE(bytes.size() == values.size() / 32 * 20);
  return dequantise(bytes, DataType::q4_1);
}

}  // namespace

TEST_CASE("q4_1: what 16 levels hold comes back as it was") {
  std::vector<float> values;
  for (int group = 0; group < 3; ++group)
    for (int i = 0; i < 32; ++i)
      values.push_back(0.25f * static_cast<float>((7 * i + group) % 16) - 1.5f);
  CHECK(through_q4_1(values) == values);
  // Groups of one value, zero among them, have no step.
  const std::vector<float> flat = [] {
    std::vector<float> all(96, 0.0f);
    std::fill(all.begin() + 32, all.begin() + 64, -0.75f);
    std::fill(all.begin() + 64, all.end(), 3.0f);
    return all;
  }();
  CHECK(through_q4_1(flat) == flat);
}

TEST_CASE(
    "q4_1: no group is further off than from its lowest to its highest value, most are less") {
  std::mt19937 random(11);
  std::normal_distribution<float> normal(0.01f, 0.05f);
  std::vector<float> values(32 * 400);
  for (float& value : values) value = normal(random);
  for (std::size_t i = 0; i < values.size(); i += 32 * 5) values[i] *= 6;  // one far out
  const std::vector<float> got = through_q4_1(values);
  const std::vector<float> plain =
      dequantise(specdec::testing::quantise(values, DataType::q4_1), DataType::q4_1);
  int better = 0;
  for (std::size_t begin = 0; begin < values.size(); begin += 32) {
    const auto group = [&](const std::vector<float>& all) {
      return std::span(all).subspan(begin, 32);
    };
    const double error = squared_error(group(values), group(got));
    const double of_plain = squared_error(group(values), group(plain));
    CHECK(error <= of_plain * 1.01);  // the plain one rounds its scale to f16 elsewhere
    better += error < 0.95 * of_plain ? 1 : 0;
  }
  CHECK(better > 300);
  CHECK(squared_error(values, got) < 0.85 * squared_error(values, plain));
}
