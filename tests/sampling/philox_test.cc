#include "kernels/sampling/philox.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <random>
#include <set>
#include <vector>

#include "kernels/sampling/gumbel.h"
#include "sampling/row_math.h"

using namespace specdec;

// kat_vectors of Random123, the paper's reference implementation (philox4x32, 10 rounds).
TEST_CASE("philox gives the paper's known answers") {
  CHECK(philox4x32({0, 0, 0, 0}, {0, 0}) ==
        PhiloxBlock{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8});
  CHECK(philox4x32({0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff}, {0xffffffff, 0xffffffff}) ==
        PhiloxBlock{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd});
  CHECK(philox4x32({0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}, {0xa4093822, 0x299f31d0}) ==
        PhiloxBlock{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1});
}

TEST_CASE("streams differ by seed, position, purpose, node and index") {
  std::set<std::uint32_t> seen;
  std::size_t asked = 0;
  const auto ask = [&](const RandomStream& stream, std::uint32_t index) {
    seen.insert(stream.word(index));
    ++asked;
  };
  using enum RandomPurpose;
  for (const std::uint64_t seed : {0ull, 1ull, 1ull << 32, ~0ull}) {
    for (const std::int64_t position : {0ll, 1ll, 1ll << 33}) {
      for (const RandomPurpose purpose : {token_noise, draft_draw, verify_accept, verify_token}) {
        for (const int node : {0, 1, 65536}) {
          for (const std::uint32_t index : {0u, 1u, 4u, 49151u}) {
            ask({seed, position, purpose, node}, index);
          }
        }
      }
    }
  }
  CHECK(seen.size() == asked);
}

TEST_CASE("uniforms lie strictly inside (0, 1)") {
  CHECK(uniform_of(0) == 0x1p-33);
  CHECK(uniform_of(0xFFFFFFFF) == 1 - 0x1p-33);
  double sum = 0;
  double square = 0;
  constexpr int kDraws = 200000;
  for (int i = 0; i < kDraws; ++i) {
    const double u = RandomStream(3, i, RandomPurpose::verify_accept, 1).uniform(0);
    REQUIRE(u > 0);
    REQUIRE(u < 1);
    sum += u;
    square += u * u;
  }
  CHECK(std::abs(sum / kDraws - 0.5) < 5 * std::sqrt(1.0 / 12 / kDraws));
  CHECK(std::abs(square / kDraws - 1.0 / 3) < 5 * std::sqrt(4.0 / 45 / kDraws));
}

TEST_CASE("fixed_log agrees with the library's logarithm") {
  CHECK(fixed_log(1.0) == 0.0);
  std::mt19937_64 random(5);
  double worst = 0;
  for (int i = 0; i < 300000; ++i) {
    // Doubles of every size, and close to 1, where the logarithm is small.
    double x = std::bit_cast<double>((random() >> 2) | (std::uint64_t{1} << 52));
    if (i % 2 == 0)
      x = 1.0 - static_cast<double>(random() >> 32) * 0x1p-33 * (i % 4 == 0 ? 1 : 1e-6);
    const double expected = std::log(x);
    if (expected == 0) continue;
    worst = std::max(worst, std::abs(fixed_log(x) - expected) / std::abs(expected));
  }
  CHECK(worst < 4 * 0x1p-53 * 2);
}

TEST_CASE("Gumbel noise is what other platforms must reproduce") {
  CHECK(gumbel(0) == -fixed_log(33 * 0x1.62e42fefa39efp-1));
  CHECK(gumbel(0xFFFFFFFF) < kMaxGumbel);
  CHECK(gumbel(0xFFFFFFFF) > 22.87);
  for (const std::uint32_t word : {0u, 1u, 77u, 0x7FFFFFFFu, 0x80000000u, 0xFFFFFFFEu}) {
    CHECK(gumbel(word) == doctest::Approx(-std::log(-std::log(uniform_of(word)))).epsilon(1e-14));
  }
  // Golden bits: one change of the recipe, and every seeded output changes.
  const std::uint32_t word = RandomStream(7, 42, RandomPurpose::token_noise).word(5);
  CHECK(word == 3733228064u);
  CHECK(std::bit_cast<std::uint64_t>(gumbel(word)) == 4611527918117004629u);
}

TEST_CASE("every instruction set makes the same bits") {
  using namespace row_math;
  for (const int vocab : {1, 15, 16, 255, 256, 257, 1000, 4096 + 37}) {
    std::mt19937 random(static_cast<std::uint32_t>(vocab));
    std::normal_distribution<float> normal(0, 4);
    std::vector<float> row(static_cast<std::size_t>(vocab));
    for (float& value : row) value = normal(random);
    if (vocab > 20) row[17] = -std::numeric_limits<float>::infinity();
    const RandomStream stream(99, 3, RandomPurpose::token_noise);

    struct Result {
      RowScan scanned;
      std::vector<float> chunk_max, exps, bounds;
      double sum;
      std::vector<std::int32_t> masses;
      std::int64_t mass;
      std::vector<std::uint32_t> words;
      float bound;
    };
    const auto run = [&](Isa isa) {
      force_isa(isa);
      Result result;
      result.chunk_max.resize(static_cast<std::size_t>(num_chunks(row.size())));
      result.scanned = scan(row, result.chunk_max);
      result.exps.resize(row.size());
      exp_row(row, result.scanned.max, 1.25f, result.exps);
      result.sum = sum_exp(row, result.scanned.max, 1.25f);
      result.masses.resize(row.size());
      result.mass = exp_masses(row, result.scanned.max, 1.25f, result.masses);
      std::array<std::uint32_t, kChunk> words;
      random_words(stream, kChunk, words);
      result.words.assign(words.begin(), words.end());
      std::array<float, kChunk> bounds;
      const auto first = std::span(row).first(std::min<std::size_t>(row.size(), kChunk));
      result.bound = noisy_bound(first, result.scanned.max, 1.25f, words, bounds);
      result.bounds.assign(bounds.begin(),
                           bounds.begin() + static_cast<std::ptrdiff_t>(first.size()));
      return result;
    };
    const Result plain = run(Isa::plain);
    CHECK(plain.scanned.max == *std::max_element(row.begin(), row.end()));
    for (std::uint32_t i = 0; i < kChunk; ++i) REQUIRE(plain.words[i] == stream.word(kChunk + i));
    double sum = 0;
    for (std::size_t i = 0; i < row.size(); ++i) {
      const double exact = std::exp((double{row[i]} - plain.scanned.max) * 1.25);
      sum += exact;
      REQUIRE(plain.exps[i] == doctest::Approx(exact).epsilon(1e-5));
      REQUIRE(std::abs(plain.masses[i] - exact * kUnitMass) < 1 + 1e-5 * exact * kUnitMass);
      REQUIRE(plain.masses[i] == mass_one((row[i] - plain.scanned.max) * 1.25f));
      REQUIRE(plain.exps[i] == exp_one((row[i] - plain.scanned.max) * 1.25f));
    }
    CHECK(plain.sum == doctest::Approx(sum).epsilon(1e-6));
    // The bound is one, and a tight one.
    float best = -std::numeric_limits<float>::infinity();
    for (std::size_t i = 0; i < plain.bounds.size(); ++i) {
      const double exact = (double{row[i]} - plain.scanned.max) * 1.25 + gumbel(plain.words[i]);
      REQUIRE(plain.bounds[i] ==
              (row[i] - plain.scanned.max) * 1.25f + noise_bound(plain.words[i]));
      if (std::isinf(exact)) continue;
      REQUIRE(plain.bounds[i] > exact - 1e-4);
      best = std::max(best, plain.bounds[i]);
    }
    CHECK(plain.bound == best);
    for (const Isa isa : {Isa::avx2, Isa::avx512}) {
      const Result other = run(isa);
      CHECK(other.scanned.max == plain.scanned.max);
      CHECK(other.chunk_max == plain.chunk_max);
      CHECK(other.exps == plain.exps);
      CHECK(other.sum == plain.sum);
      CHECK(other.masses == plain.masses);
      CHECK(other.mass == plain.mass);
      CHECK(other.words == plain.words);
      CHECK(other.bounds == plain.bounds);
      CHECK(other.bound == plain.bound);
    }
  }
  force_isa(best_isa());
}

TEST_CASE("the noise bound is tight where it says so") {
  std::mt19937_64 random(6);
  for (int i = 0; i < 300000; ++i) {
    const auto word = i < 1000 ? 0xFFFFFFFFu - static_cast<std::uint32_t>(i)
                               : static_cast<std::uint32_t>(random());
    const double exact = gumbel(word);
    const double bound = row_math::noise_bound(word);
    REQUIRE(bound > exact - 1e-4);
    if (bound >= row_math::kTightNoise && bound < row_math::kTightNoiseEnd)
      REQUIRE(bound - row_math::kNoiseBoundSlack < exact - 1e-3 - 1e-4 * exact);
  }
}

TEST_CASE("exp over the whole range") {
  for (float x = 0; x > -87; x -= 0.0137f) {
    REQUIRE(row_math::exp_one(x) == doctest::Approx(std::exp(double{x})).epsilon(2.5e-7));
  }
  CHECK(row_math::exp_one(0) == 1);
  CHECK(row_math::exp_one(-88) == 0);
  CHECK(row_math::exp_one(-std::numeric_limits<float>::infinity()) == 0);
}

TEST_CASE("order_key keeps the order of floats") {
  const float inf = std::numeric_limits<float>::infinity();
  const std::vector<float> ordered{-inf, -3e38f, -1, -1e-40f, 0, 1e-40f, 1e-3f, 1, 2, 3e38f, inf};
  for (std::size_t i = 1; i < ordered.size(); ++i) {
    CHECK(row_math::order_key(ordered[i - 1]) < row_math::order_key(ordered[i]));
  }
  CHECK(row_math::order_key(-0.0f) == row_math::order_key(0.0f));
  for (const float value : ordered) {
    CHECK(row_math::float_of_key(row_math::order_key(value)) == value);
  }
}
