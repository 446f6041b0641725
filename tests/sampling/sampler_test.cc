#include "sampling/sampler.h"

#include <doctest/doctest.h>

#include <cmath>
#include <numeric>

#include "row_oracle.h"
#include "sampling/row_math.h"
#include "specdec/error.h"

using namespace specdec;

namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();

struct Setting {
  const char* name;
  SamplingOptions options;
};

std::vector<Setting> settings() {
  return {
      {"greedy", {}},
      {"plain", {.temperature = 1.0f}},
      {"hot", {.temperature = 3.0f}},
      {"cold", {.temperature = 1e-6f}},
      {"coldest", {.temperature = 1e-42f}},
      {"top-k 1", {.temperature = 1.0f, .top_k = 1}},
      {"top-k", {.temperature = 0.9f, .top_k = 7}},
      {"large top-k", {.temperature = 0.9f, .top_k = 700}},
      {"top-k past the vocabulary", {.temperature = 0.9f, .top_k = 100000}},
      {"top-p", {.temperature = 0.8f, .top_p = 0.95f}},
      {"tiny top-p", {.temperature = 0.8f, .top_p = 1e-7f}},
      {"top-p nearly 1", {.temperature = 1.5f, .top_p = 0.9999f}},
      {"min-p", {.temperature = 1.2f, .min_p = 0.05f}},
      {"min-p 1", {.temperature = 1.2f, .min_p = 1.0f}},
      {"all filters", {.temperature = 0.7f, .top_k = 40, .top_p = 0.9f, .min_p = 0.02f}},
      {"penalties",
       {.temperature = 0.8f,
        .top_p = 0.95f,
        .repetition_penalty = 1.3f,
        .presence_penalty = 0.4f,
        .frequency_penalty = 0.3f}},
      {"negative penalties",
       {.temperature = 1.0f,
        .repetition_penalty = 0.7f,
        .presence_penalty = -0.8f,
        .frequency_penalty = -0.5f}},
      {"greedy with penalties",
       {.repetition_penalty = 1.5f, .presence_penalty = 1.0f, .frequency_penalty = 0.5f}},
      {"bias and min_tokens",
       {.temperature = 1.0f,
        .logit_bias = {{0, 5.0f}, {1, -kInfinity}, {2, -3.0f}, {4, 100.0f}},
        .min_tokens = 9}},
      {"all at once",
       {.temperature = 0.8f,
        .top_k = 50,
        .top_p = 0.95f,
        .min_p = 0.01f,
        .repetition_penalty = 1.1f,
        .presence_penalty = 0.2f,
        .frequency_penalty = 0.1f,
        .logit_bias = {{3, 2.0f}, {5, -kInfinity}},
        .min_tokens = 8}},
  };
}

constexpr int kVocabs[] = {6, 40, 300, 2000};

// State that penalties find interesting: repeats, prompt tokens, path tokens that repeat both.
struct Scene {
  PenaltyState penalties;
  std::vector<TokenId> path;
  std::vector<TokenId> end_tokens{2, 4};
  Scene(int vocab, int variant) {
    std::vector<TokenId> prompt;
    for (int i = 0; i < 12; ++i) prompt.push_back((i * 5 + variant) % vocab);
    penalties.add_prompt(prompt);
    for (int i = 0; i < 8; ++i) penalties.add_output((i * i + variant) % vocab);
    for (int i = 0; i < variant % 4; ++i) path.push_back((i / 2 * 3 + variant) % vocab);
  }
  RowContext context(const SamplingOptions& options, std::uint64_t seed,
                     std::int64_t position) const {
    return {.options = &options,
            .seed = seed,
            .position = position,
            .penalties = &penalties,
            .path = path,
            .num_output_tokens = 8 + static_cast<int>(path.size()),
            .end_tokens = end_tokens};
  }
};

}  // namespace

TEST_CASE("probabilities, samples and candidates agree with the definition") {
  int compared = 0;
  int skipped = 0;
  for (const int vocab : kVocabs) {
    RowSampler sampler(vocab);
    std::vector<float> probs(static_cast<std::size_t>(vocab));
    for (const Setting& setting : settings()) {
      for (const oracle::Shape shape : oracle::kShapes) {
        for (int variant = 0; variant < 4; ++variant) {
          const auto seed = static_cast<std::uint64_t>(variant * 1000 + vocab);
          const std::vector<float> row =
              oracle::make_row(shape, vocab, static_cast<std::uint32_t>(seed));
          const Scene scene(vocab, variant);
          const RowContext context = scene.context(setting.options, seed, 77 + variant);
          INFO(setting.name << ", shape " << static_cast<int>(shape) << ", vocab " << vocab
                            << ", variant " << variant);
          const oracle::Row expected = oracle::process(row, context);
          if (expected.margin < 1e-4 * (setting.options.temperature < 1e-3f ? 0 : 1)) {
            ++skipped;  // a filter's border within rounding: either outcome is right
            continue;
          }
          ++compared;
          sampler.probabilities(row, context, probs);
          double sum = 0;
          for (std::size_t i = 0; i < probs.size(); ++i) {
            REQUIRE(std::abs(probs[i] - expected.probs[i]) < 2e-6 * (1 + 10 * expected.probs[i]));
            REQUIRE((probs[i] > 0) <= (expected.probs[i] > 0));
            sum += probs[i];
          }
          REQUIRE(sum == doctest::Approx(1).epsilon(1e-5));

          const int most = std::min(vocab, 5);
          std::vector<DraftCandidate> candidates;
          sampler.coupled_candidates(row, context, most, candidates);
          const TokenId token = sampler.sample(row, context).token;
          REQUIRE(token == candidates[0].token);
          if (setting.options.temperature <= 0) {
            REQUIRE(expected.probs[token] == 1);
            const std::vector<int> order = oracle::best_first(expected.scores);
            for (std::size_t i = 0; i < candidates.size(); ++i) {
              REQUIRE(candidates[i].token == order[i]);
              REQUIRE(candidates[i].score == candidates[i].logprob);
            }
            continue;
          }
          const std::vector<double> noisy = oracle::perturbed(expected, seed, context.position);
          const std::vector<int> order = oracle::best_first(noisy);
          const auto support = static_cast<std::size_t>(
              std::count_if(noisy.begin(), noisy.end(), [](double x) { return x > -1e30; }));
          REQUIRE(candidates.size() >= std::min<std::size_t>(most, support));
          for (std::size_t i = 0; i < std::min<std::size_t>(candidates.size(), support); ++i) {
            // Equal but for pairs closer than the oracle's own rounding.
            if (candidates[i].token != order[i]) {
              REQUIRE(noisy[candidates[i].token] == doctest::Approx(noisy[order[i]]).epsilon(1e-9));
            }
            const double tolerance = 1e-5 + 1e-6 * std::abs(noisy[order[i]]);
            REQUIRE(std::abs(candidates[i].score - noisy[order[i]]) < tolerance);
            REQUIRE(std::abs(candidates[i].logprob -
                             std::log(expected.probs[candidates[i].token])) < tolerance);
          }
        }
      }
    }
  }
  CHECK(compared > 2000);
  CHECK(skipped < compared / 20);
}

TEST_CASE("many seeds: the sample is the brute-force Gumbel argmax") {
  constexpr int kVocab = 700;
  RowSampler sampler(kVocab);
  for (const SamplingOptions& options :
       {SamplingOptions{.temperature = 1.0f}, SamplingOptions{.temperature = 0.6f, .top_p = 0.9f},
        SamplingOptions{.temperature = 2.5f, .min_p = 0.001f}}) {
    for (const oracle::Shape shape : {oracle::Shape::normal, oracle::Shape::flat}) {
      const std::vector<float> row = oracle::make_row(shape, kVocab, 5);
      const Scene scene(kVocab, 0);
      const oracle::Row expected = oracle::process(row, scene.context(options, 0, 0));
      for (std::uint64_t seed = 0; seed < 300; ++seed) {
        const auto position = static_cast<std::int64_t>(seed % 7);
        const std::vector<double> noisy = oracle::perturbed(expected, seed, position);
        const auto best = std::max_element(noisy.begin(), noisy.end()) - noisy.begin();
        REQUIRE(sampler.sample(row, scene.context(options, seed, position)).token == best);
      }
    }
  }
}

TEST_CASE("frequencies over seeds are the processed distribution") {
  constexpr int kVocab = 12;
  constexpr int kDraws = 40000;
  RowSampler sampler(kVocab);
  std::vector<float> probs(kVocab);
  for (const SamplingOptions& options :
       {SamplingOptions{.temperature = 1.0f},
        SamplingOptions{.temperature = 0.7f, .top_p = 0.9f, .frequency_penalty = 0.5f},
        SamplingOptions{.temperature = 1.3f, .top_k = 5}}) {
    const std::vector<float> row = oracle::make_row(oracle::Shape::peaked, kVocab, 2);
    std::vector<float> softer = row;
    for (float& value : softer) value *= 0.2f;
    const Scene scene(kVocab, 1);
    std::vector<int> counts(kVocab, 0);
    for (int draw = 0; draw < kDraws; ++draw) {
      ++counts[sampler.sample(softer, scene.context(options, 9, draw)).token];
    }
    sampler.probabilities(softer, scene.context(options, 9, 0), probs);
    double chi_square = 0;
    int degrees = -1;
    for (int i = 0; i < kVocab; ++i) {
      if (probs[i] == 0) {
        CHECK(counts[i] == 0);
        continue;
      }
      const double expected = double{probs[i]} * kDraws;
      chi_square += (counts[i] - expected) * (counts[i] - expected) / expected;
      ++degrees;
    }
    CHECK(chi_square < degrees + 5 * std::sqrt(2.0 * degrees) + 5);
  }
}

TEST_CASE("results do not depend on what the sampler did before, nor on the instruction set") {
  constexpr int kVocab = 3000;
  RowSampler used(kVocab);
  const std::vector<Setting> all = settings();
  std::vector<OutputToken> first;
  for (int pass = 0; pass < 3; ++pass) {
    row_math::force_isa(pass == 2 ? row_math::Isa::plain : row_math::best_isa());
    for (std::size_t i = 0; i < all.size(); ++i) {
      const std::size_t which = pass == 0 ? i : (i * 7 + 3) % all.size();
      SamplingOptions options = all[which].options;
      options.logprobs = 5;
      const std::vector<float> row =
          oracle::make_row(oracle::Shape::normal, kVocab, static_cast<std::uint32_t>(which));
      const Scene scene(kVocab, 3);
      const OutputToken token = used.sample(row, scene.context(options, 4, 8));
      if (pass == 0) {
        first.push_back(token);
      } else {
        CHECK(token.token == first[which].token);
        CHECK(token.logprob == first[which].logprob);
        CHECK(token.top_logprobs == first[which].top_logprobs);
      }
    }
  }
  row_math::force_isa(row_math::best_isa());
}

TEST_CASE("ties go to the lowest id") {
  constexpr int kVocab = 600;
  RowSampler sampler(kVocab);
  std::vector<float> row(kVocab, -1.0f);
  for (const int token : {590, 300, 40, 41, 39, 555}) row[token] = 2.0f;
  SamplingOptions greedy{.logprobs = 3};
  RowContext context{.options = &greedy};
  const OutputToken token = sampler.sample(row, context);
  CHECK(token.token == 39);
  REQUIRE(token.top_logprobs.size() == 3);
  CHECK(token.top_logprobs[0].token == 39);
  CHECK(token.top_logprobs[1].token == 40);
  CHECK(token.top_logprobs[2].token == 41);

  SamplingOptions top_k{.temperature = 1.0f, .top_k = 4};
  context.options = &top_k;
  std::vector<float> probs(kVocab);
  sampler.probabilities(row, context, probs);
  for (const int kept : {39, 40, 41, 300}) CHECK(probs[kept] == doctest::Approx(0.25));
  CHECK(probs[555] == 0);

  row.assign(kVocab, -0.0f);
  row[7] = 0.0f;
  context.options = &greedy;
  CHECK(sampler.sample(row, context).token == 0);
}

TEST_CASE("penalties count committed and path tokens alike") {
  constexpr int kVocab = 50;
  RowSampler sampler(kVocab);
  const SamplingOptions options{.temperature = 1.0f,
                                .repetition_penalty = 1.2f,
                                .presence_penalty = 0.5f,
                                .frequency_penalty = 0.25f};
  const std::vector<float> row = oracle::make_row(oracle::Shape::normal, kVocab, 8);
  const std::vector<TokenId> prompt{1, 2, 2, 9};
  const std::vector<TokenId> output{3, 3, 2, 7, 3, 40};
  std::vector<float> expected(kVocab);
  std::vector<float> got(kVocab);
  for (std::size_t committed = 0; committed <= output.size(); ++committed) {
    PenaltyState state;
    state.add_prompt(prompt);
    for (std::size_t i = 0; i < committed; ++i) state.add_output(output[i]);
    const RowContext context{.options = &options,
                             .penalties = &state,
                             .path = std::span(output).subspan(committed),
                             .num_output_tokens = static_cast<int>(output.size())};
    sampler.probabilities(row, context, got);
    if (committed == 0) expected = got;
    CHECK(got == expected);
    const oracle::Row exact = oracle::process(row, context);
    for (int i = 0; i < kVocab; ++i) {
      CHECK(got[i] == doctest::Approx(exact.probs[i]).epsilon(1e-4));
    }
  }
  PenaltyState state;
  state.add_output(3);
  state.clear();
  CHECK(state.output_counts().empty());
}

TEST_CASE("min_tokens bans end tokens until enough tokens are out") {
  constexpr int kVocab = 10;
  RowSampler sampler(kVocab);
  std::vector<float> row(kVocab, 0.0f);
  row[4] = 9;
  row[6] = 5;
  const SamplingOptions options{.min_tokens = 3};
  const std::vector<TokenId> end_tokens{4, 99};
  const std::vector<TokenId> path{1, 1};
  for (int out = 0; out < 5; ++out) {
    RowContext context{.options = &options, .num_output_tokens = out, .end_tokens = end_tokens};
    CHECK(sampler.sample(row, context).token == (out < 3 ? 6 : 4));
    context.num_output_tokens = out + 2;
    context.path = path;
    CHECK(sampler.sample(row, context).token == (out + 2 < 3 ? 6 : 4));
  }
}

TEST_CASE("logprobs are those of the raw logits") {
  for (const int vocab : {5, 400, 3000}) {
    RowSampler sampler(vocab);
    for (const oracle::Shape shape : oracle::kShapes) {
      const std::vector<float> row = oracle::make_row(shape, vocab, 4);
      const std::vector<double> raw(row.begin(), row.end());
      const std::vector<int> order = oracle::best_first(raw);
      double sum = 0;
      for (const double value : raw) sum += std::exp(value - raw[order[0]]);
      const double normaliser = raw[order[0]] + std::log(sum);
      for (const Setting& setting : settings()) {
        SamplingOptions options = setting.options;
        options.logprobs = 64;
        const Scene scene(vocab, 2);
        const RowContext context = scene.context(options, 1, 2);
        const OutputToken token = sampler.sample(row, context);
        // A token of probability 0 is nobody's alternative.
        const auto possible =
            std::count_if(row.begin(), row.end(), [](float value) { return value > -kInfinity; });
        REQUIRE(token.top_logprobs.size() == std::min<std::size_t>(64, possible));
        for (std::size_t i = 0; i < token.top_logprobs.size(); ++i) {
          const double exact = raw[order[i]] - normaliser;
          REQUIRE(token.top_logprobs[i].token == order[i]);
          REQUIRE(std::abs(token.top_logprobs[i].logprob - exact) < 2e-6 + 1e-6 * std::abs(exact));
        }
        const double exact = raw[token.token] - normaliser;
        REQUIRE(std::abs(token.logprob - exact) < 2e-6 + 1e-6 * std::abs(exact));

        // The same bits from every entry point, and whatever else was asked for.
        OutputToken again;
        again.token = token.token;
        sampler.fill_logprobs(row, context, again);
        REQUIRE(again.logprob == token.logprob);
        REQUIRE(again.top_logprobs == token.top_logprobs);
        options.logprobs = 0;
        const OutputToken alone = sampler.sample(row, context);
        REQUIRE(alone.token == token.token);
        REQUIRE(alone.logprob == token.logprob);
        REQUIRE(alone.top_logprobs.empty());
      }
    }
  }
}

TEST_CASE("rows and options that leave nothing to draw from are errors") {
  constexpr int kVocab = 300;
  RowSampler sampler(kVocab);
  const auto code_of = [&](const std::vector<float>& row, const SamplingOptions& options) {
    const RowContext context{.options = &options, .position = 1234};
    try {
      sampler.sample(row, context);
    } catch (const Error& error) {
      CHECK(std::string(error.what()).find("1234") != std::string::npos);
      return error.code();
    }
    return ErrorCode::io;  // no error
  };
  const std::vector<float> good(kVocab, 1.0f);
  for (const float temperature : {0.0f, 1.0f}) {
    SamplingOptions options{.temperature = temperature};
    CHECK(code_of(good, options) == ErrorCode::io);
    for (const int where : {0, 17, 255, 299}) {
      std::vector<float> row = good;
      row[where] = std::numeric_limits<float>::quiet_NaN();
      CHECK(code_of(row, options) == ErrorCode::invalid_model);
      row[where] = kInfinity;
      CHECK(code_of(row, options) == ErrorCode::invalid_model);
      row[where] = -kInfinity;
      CHECK(code_of(row, options) == ErrorCode::io);
    }
    CHECK(code_of(std::vector<float>(kVocab, -kInfinity), options) == ErrorCode::invalid_model);
    CHECK(code_of(std::vector<float>(kVocab - 1, 1.0f), options) == ErrorCode::invalid_argument);

    for (int token = 0; token < kVocab; ++token) options.logit_bias[token] = -kInfinity;
    CHECK(code_of(good, options) == ErrorCode::invalid_argument);
    options.logit_bias.erase(222);
    const RowContext context{.options = &options};
    CHECK(sampler.sample(good, context).token == 222);
    options.logit_bias[222] = kInfinity;
    CHECK(code_of(good, options) == ErrorCode::invalid_argument);
  }
}

TEST_CASE("confidence is the largest processed probability") {
  for (const int vocab : kVocabs) {
    RowSampler sampler(vocab);
    for (const oracle::Shape shape : oracle::kShapes) {
      const std::vector<float> row = oracle::make_row(shape, vocab, 6);
      const Scene scene(vocab, 1);
      for (SamplingOptions options :
           {SamplingOptions{.temperature = 1.0f}, SamplingOptions{.temperature = 0.8f, .top_k = 4},
            SamplingOptions{}}) {
        const float confidence = sampler.confidence(row, scene.context(options, 0, 0));
        if (options.temperature == 0) options.temperature = 1;
        const oracle::Row exact = oracle::process(row, scene.context(options, 0, 0));
        CHECK(confidence ==
              doctest::Approx(*std::max_element(exact.probs.begin(), exact.probs.end()))
                  .epsilon(1e-4));
      }
    }
  }
}

TEST_CASE("draft children are draws from the given distribution") {
  const std::vector<float> probs{0.4f, 0.0f, 0.3f, 0.2f, 0.0f, 0.1f};
  constexpr int kDraws = 60000;
  // With replacement: two independent draws. Without: successive draws, renormalised.
  for (const bool without : {false, true}) {
    std::vector<int> counts(36, 0);
    for (int draw = 0; draw < kDraws; ++draw) {
      std::vector<TokenId> children;
      draw_draft_children(probs, 3, draw, 2, 2, without, children);
      REQUIRE(children.size() == 2);
      ++counts[children[0] * 6 + children[1]];
    }
    double chi_square = 0;
    int degrees = -1;
    for (int a = 0; a < 6; ++a) {
      for (int b = 0; b < 6; ++b) {
        double expected = double{probs[a]} * double{probs[b]};
        if (without) expected = a == b ? 0 : expected / (1 - double{probs[a]});
        if (expected == 0) {
          REQUIRE(counts[a * 6 + b] == 0);
          continue;
        }
        const double difference = counts[a * 6 + b] - expected * kDraws;
        chi_square += difference * difference / (expected * kDraws);
        ++degrees;
      }
    }
    CHECK(chi_square < degrees + 5 * std::sqrt(2.0 * degrees));
  }
  std::vector<TokenId> children{77};
  draw_draft_children(probs, 1, 1, 0, 10, true, children);
  CHECK(children.size() == 5);  // appended: the support has four tokens
  CHECK(children[0] == 77);
  std::vector<TokenId> again{77};
  draw_draft_children(probs, 1, 1, 0, 10, true, again);
  CHECK(again == children);
}

TEST_CASE("draft draws over a large vocabulary cover every block") {
  constexpr int kVocab = 1000;
  std::vector<float> probs(kVocab, 0.0f);
  for (const int token : {0, 63, 64, 500, 999}) probs[token] = 0.2f;
  std::vector<int> seen(kVocab, 0);
  for (int position = 0; position < 500; ++position) {
    std::vector<TokenId> children;
    draw_draft_children(probs, 8, position, 0, 1, false, children);
    REQUIRE(children.size() == 1);
    ++seen[children[0]];
  }
  for (const int token : {0, 63, 64, 500, 999}) CHECK(seen[token] > 60);
}
