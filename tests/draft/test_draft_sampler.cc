#include <doctest/doctest.h>

#include <cmath>
#include <limits>
#include <random>
#include <vector>

#include "draft/draft_sampler.h"

using namespace specdec;

// The oracle is RowSampler over the whole vocabulary, minus infinity where the draft has no token.

namespace {

constexpr int kVocab = 900;

std::vector<TokenId> every_third() {
  std::vector<TokenId> tokens;
  for (TokenId token = 2; token < kVocab; token += 3) tokens.push_back(token);
  return tokens;
}

std::vector<float> random_row(std::size_t size, std::uint32_t seed) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal(0, 3);
  std::vector<float> row(size);
  for (float& logit : row) logit = normal(random);
  return row;
}

std::vector<float> spread(const std::vector<float>& row, const std::vector<TokenId>& tokens) {
  std::vector<float> whole(kVocab, -std::numeric_limits<float>::infinity());
  for (std::size_t i = 0; i < row.size(); ++i) whole[static_cast<std::size_t>(tokens[i])] = row[i];
  return whole;
}

struct Row {
  SamplingOptions options = {};
  PenaltyState penalties = {};
  std::vector<std::uint64_t> allowed = {};

  RowContext context() const {
    return {.options = &options,
            .seed = 3,
            .position = 17,
            .penalties = &penalties,
            .path = {},
            .num_output_tokens = 4,
            .end_tokens = {},
            .allowed = allowed};
  }
};

}  // namespace

TEST_CASE("a draft of some tokens is drawn from as the whole vocabulary would be") {
  const std::vector<TokenId> tokens = every_third();
  DraftSampler draft(kVocab, tokens);
  RowSampler whole(kVocab);
  std::vector<Row> rows(5);
  rows[0].options.temperature = 0;
  rows[1].options.temperature = 0.8f;
  rows[2].options.temperature = 0;
  rows[2].options.logit_bias = {{5, 30.0f}, {8, -30.0f}};
  rows[3].options.temperature = 0;
  rows[3].allowed.assign(kVocab / 64 + 1, 0x0f0f0f0f0f0f0f0fULL);
  rows[4].options.temperature = 1.0f;
  rows[4].options.top_k = 40;
  for (std::uint32_t seed = 0; seed < 20; ++seed) {
    const std::vector<float> row = random_row(tokens.size(), seed);
    const std::vector<float> all = spread(row, tokens);
    for (const Row& each : rows) {
      const RowContext context = each.context();
      std::vector<DraftCandidate> got;
      std::vector<DraftCandidate> want;
      draft.coupled_candidates(row, context, 4, got);
      whole.coupled_candidates(all, context, 4, want);
      REQUIRE(got.size() == want.size());
      for (std::size_t i = 0; i < want.size(); ++i) {
        CHECK(got[i].token == want[i].token);
        CHECK(got[i].score == doctest::Approx(want[i].score).epsilon(1e-5));
        CHECK(got[i].logprob == doctest::Approx(want[i].logprob).epsilon(1e-5));
      }
      CHECK(draft.confidence(row, context) ==
            doctest::Approx(whole.confidence(all, context)).epsilon(1e-5));
      std::vector<float> probs(kVocab);
      std::vector<float> want_probs(kVocab);
      draft.probabilities(row, context, probs);
      whole.probabilities(all, context, want_probs);
      CHECK(probs == want_probs);
    }
  }
}

TEST_CASE("a draft of all tokens is its row sampler, and equal logits go to the first") {
  DraftSampler draft(kVocab, {});
  RowSampler whole(kVocab);
  const Row row{.options = {.temperature = 0}};
  const std::vector<float> logits = random_row(kVocab, 7);
  std::vector<DraftCandidate> got;
  std::vector<DraftCandidate> want;
  draft.coupled_candidates(logits, row.context(), 3, got);
  whole.coupled_candidates(logits, row.context(), 3, want);
  for (std::size_t i = 0; i < 3; ++i) CHECK(got[i].token == want[i].token);

  const std::vector<TokenId> tokens = every_third();
  DraftSampler some(kVocab, tokens);
  some.coupled_candidates(std::vector<float>(tokens.size(), 1.0f), row.context(), 2, got);
  CHECK(got[0].token == tokens[0]);
  CHECK(got[1].token == tokens[1]);
  CHECK(got[0].logprob ==
        doctest::Approx(-std::log(static_cast<float>(tokens.size()))).epsilon(1e-5));
}
