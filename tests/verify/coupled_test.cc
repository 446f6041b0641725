#include <doctest/doctest.h>

#include <random>

#include "sampling/sampler.h"
#include "specdec/error.h"
#include "verify/verify.h"

using namespace specdec;

namespace {

constexpr int kVocab = 40;
constexpr float kInfinity = std::numeric_limits<float>::infinity();

// Logits that depend on the last two tokens; the draft is the target with some noise.
std::vector<float> logits_after(std::span<const TokenId> tokens, float noise) {
  std::uint32_t hash = 1;
  for (const TokenId token : tokens.last(2)) hash = hash * 101 + static_cast<std::uint32_t>(token);
  std::mt19937 random(hash);
  std::normal_distribution<float> normal;
  std::vector<float> row(kVocab);
  for (float& value : row) value = 2.5f * normal(random);
  for (float& value : row) value += noise * normal(random);
  return row;
}

// The parts of an engine that losslessness rests on: committed tokens, penalties, one seed.
struct Sequence {
  SamplingOptions options;
  std::uint64_t seed = 0;
  std::vector<TokenId> tokens{3, 1, 4, 1, 5};
  std::size_t prompt = tokens.size();
  PenaltyState penalties;
  std::vector<TokenId> end_tokens{0, 7};
  std::vector<OutputToken> output;

  Sequence(const SamplingOptions& wanted, std::uint64_t key) : options(wanted), seed(key) {
    penalties.add_prompt(tokens);
  }
  RowContext context(std::span<const TokenId> path) const {
    return {.options = &options,
            .seed = seed,
            .position = static_cast<std::int64_t>(tokens.size() + path.size()),
            .penalties = &penalties,
            .path = path,
            .num_output_tokens = static_cast<int>(output.size() + path.size()),
            .end_tokens = end_tokens};
  }
  void append(const OutputToken& token) {
    tokens.push_back(token.token);
    penalties.add_output(token.token);
    output.push_back(token);
  }
  std::vector<float> logits(std::span<const TokenId> path, float noise) const {
    std::vector<TokenId> all = tokens;
    all.insert(all.end(), path.begin(), path.end());
    return logits_after(all, noise);
  }
};

std::vector<TokenId> path_tokens(const DraftTree& tree, int node) {
  std::vector<TokenId> path;
  for (const std::int32_t step : tree.path_to(node)) {
    if (step != 0) path.push_back(tree.tokens[static_cast<std::size_t>(step)]);
  }
  return path;
}

class Rows final : public TargetRows {
 public:
  Rows(const Sequence& sequence, const DraftTree& tree, RowSampler& sampler)
      : sequence_(sequence), tree_(tree), sampler_(sampler) {}
  int vocab_size() const override { return kVocab; }
  OutputToken sample(int node) override {
    const std::vector<TokenId> path = path_tokens(tree_, node);
    return sampler_.sample(sequence_.logits(path, 0), sequence_.context(path));
  }
  void probabilities(int node, std::span<float> out) override {
    const std::vector<TokenId> path = path_tokens(tree_, node);
    sampler_.probabilities(sequence_.logits(path, 0), sequence_.context(path), out);
  }
  void fill_logprobs(int node, OutputToken& token) override {
    const std::vector<TokenId> path = path_tokens(tree_, node);
    sampler_.fill_logprobs(sequence_.logits(path, 0), sequence_.context(path), token);
  }

 private:
  const Sequence& sequence_;
  const DraftTree& tree_;
  RowSampler& sampler_;
};

constexpr int kTokens = 60;

std::vector<OutputToken> plain(const SamplingOptions& options, std::uint64_t seed) {
  Sequence sequence(options, seed);
  RowSampler sampler(kVocab);
  while (sequence.output.size() < kTokens) {
    sequence.append(sampler.sample(sequence.logits({}, 0), sequence.context({})));
  }
  return sequence.output;
}

struct Speculated {
  std::vector<OutputToken> output;
  int steps = 0;
};

Speculated speculate(const SamplingOptions& options, std::uint64_t seed, int width, int depth,
                     float noise, VerifyMethod method) {
  Sequence sequence(options, seed);
  RowSampler sampler(kVocab);
  std::mt19937 shape(static_cast<std::uint32_t>(seed));
  Speculated result;
  while (sequence.output.size() < kTokens) {
    DraftTree tree(sequence.tokens.back());
    const int limit = static_cast<int>(shape() % static_cast<std::uint32_t>(depth + 1));
    for (int node = 0; node < tree.size() && tree.size() < 30; ++node) {
      if (tree.depths[static_cast<std::size_t>(node)] >= limit) continue;
      const std::vector<TokenId> path = path_tokens(tree, node);
      std::vector<DraftCandidate> candidates;
      sampler.coupled_candidates(sequence.logits(path, noise), sequence.context(path), width,
                                 candidates);
      for (const DraftCandidate& candidate : candidates) tree.add(candidate.token, node);
    }
    Rows rows(sequence, tree, sampler);
    const AcceptedPath path = verify(tree, rows,
                                     {.method = method,
                                      .seed = seed,
                                      .position = static_cast<std::int64_t>(sequence.tokens.size()),
                                      .greedy = options.temperature <= 0});
    for (const OutputToken& token : path.tokens) sequence.append(token);
    ++result.steps;
  }
  sequence.output.resize(kTokens);
  result.output = sequence.output;
  return result;
}

void check_equal(const std::vector<OutputToken>& a, const std::vector<OutputToken>& b) {
  REQUIRE(a.size() == b.size());
  for (std::size_t i = 0; i < a.size(); ++i) {
    REQUIRE(a[i].token == b[i].token);
    REQUIRE(a[i].logprob == b[i].logprob);
    REQUIRE(a[i].top_logprobs == b[i].top_logprobs);
  }
}

}  // namespace

TEST_CASE("coupled speculation emits plain decoding's tokens and logprobs, bit for bit") {
  const std::vector<SamplingOptions> all{
      {.logprobs = 3},
      {.repetition_penalty = 1.3f, .presence_penalty = 0.5f, .frequency_penalty = 0.4f},
      {.temperature = 1.0f, .logprobs = 0},
      {.temperature = 0.8f,
       .top_p = 0.95f,
       .repetition_penalty = 1.2f,
       .presence_penalty = 0.3f,
       .frequency_penalty = 0.6f,
       .min_tokens = 25,
       .logprobs = 2},
      {.temperature = 1.5f,
       .top_k = 12,
       .min_p = 0.02f,
       .logit_bias = {{9, 3.0f}, {11, -kInfinity}}},
  };
  int steps = 0;
  int tokens = 0;
  for (const SamplingOptions& options : all) {
    for (std::uint64_t seed = 0; seed < 6; ++seed) {
      const std::vector<OutputToken> expected = plain(options, seed);
      for (const auto& [width, depth] : {std::pair{1, 5}, {3, 3}, {1, 16}}) {
        for (const float noise : {0.0f, 0.7f, 30.0f}) {
          const Speculated got =
              speculate(options, seed, width, depth, noise, VerifyMethod::coupled);
          check_equal(got.output, expected);
          steps += got.steps;
          tokens += kTokens;
        }
      }
    }
  }
  CHECK(2 * tokens > 3 * steps);  // drafts were accepted at all
}

TEST_CASE("a perfect draft is always accepted") {
  for (const VerifyMethod method : {VerifyMethod::coupled}) {
    const SamplingOptions options{.temperature = 1.0f, .top_p = 0.9f, .frequency_penalty = 0.3f};
    Sequence sequence(options, 12);
    RowSampler sampler(kVocab);
    for (int step = 0; step < 20; ++step) {
      DraftTree tree(sequence.tokens.back());
      for (int node = 0; node < 6; ++node) {
        const std::vector<TokenId> path = path_tokens(tree, node);
        std::vector<DraftCandidate> candidates;
        sampler.coupled_candidates(sequence.logits(path, 0), sequence.context(path), 1, candidates);
        tree.add(candidates[0].token, node);
      }
      Rows rows(sequence, tree, sampler);
      const AcceptedPath path =
          verify(tree, rows,
                 {.method = method,
                  .seed = 12,
                  .position = static_cast<std::int64_t>(sequence.tokens.size())});
      CHECK(path.tokens.size() == 7);
      for (const OutputToken& token : path.tokens) sequence.append(token);
    }
  }
}

TEST_CASE("end tokens stay banned on the path until min_tokens") {
  SamplingOptions options{.temperature = 1.0f, .logit_bias = {{7, 20.0f}}, .min_tokens = 30};
  const std::vector<OutputToken> expected = plain(options, 3);
  for (int i = 0; i < 30; ++i) {
    REQUIRE(expected[i].token != 7);
    REQUIRE(expected[i].token != 0);
  }
  REQUIRE(expected[30].token == 7);
  check_equal(speculate(options, 3, 2, 4, 0.3f, VerifyMethod::coupled).output, expected);
}
