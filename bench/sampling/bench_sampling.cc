#include <benchmark/benchmark.h>

#include <random>
#include <vector>

#include "sampling/row_math.h"
#include "sampling/sampler.h"
#include "sampling/stop.h"
#include "verify/verify.h"

// One row of SmolLM2's vocabulary. `lm`: a bulk of unlikely tokens and a thin tail of likely ones,
// as a language model gives them; `flat`: no token stands out, the worst case of every filter.
namespace {

using namespace specdec;

constexpr int kVocab = 49152;
constexpr int kRows = 16;  // rotated: 3 MiB, past L2

const std::vector<std::vector<float>>& rows(bool flat) {
  static const auto make = [](bool level) {
    std::mt19937 random(level ? 1 : 2);
    std::normal_distribution<float> bulk(0, level ? 0.5f : 2.2f);
    std::exponential_distribution<float> tail(0.4f);
    std::vector<std::vector<float>> result(kRows, std::vector<float>(kVocab));
    for (auto& row : result) {
      for (float& value : row) value = bulk(random);
      for (int i = 0; i < (level ? 0 : 60); ++i) row[random() % kVocab] = 8 + tail(random);
    }
    return result;
  };
  static const auto lm = make(false);
  static const auto level = make(true);
  return flat ? level : lm;
}

struct State {
  PenaltyState penalties;
  State() {
    std::mt19937 random(3);
    std::vector<TokenId> prompt(400);
    for (TokenId& token : prompt) token = static_cast<TokenId>(random() % kVocab);
    penalties.add_prompt(prompt);
    for (int i = 0; i < 200; ++i) penalties.add_output(static_cast<TokenId>(random() % kVocab));
  }
};

void sample(benchmark::State& state, const SamplingOptions& options, bool flat = false) {
  static const State penalties;
  RowSampler sampler(kVocab);
  std::int64_t position = 0;
  for (auto _ : state) {
    const RowContext context{
        .options = &options, .seed = 7, .position = position, .penalties = &penalties.penalties};
    benchmark::DoNotOptimize(
        sampler.sample(rows(flat)[static_cast<std::size_t>(position++ % kRows)], context));
  }
}

const SamplingOptions kGreedy{};
const SamplingOptions kGreedyPenalties{.repetition_penalty = 1.1f};
const SamplingOptions kGreedyLogprobs{.logprobs = 5};
const SamplingOptions kPlain{.temperature = 1.0f};
const SamplingOptions kTopP{.temperature = 0.8f, .top_p = 0.95f};
const SamplingOptions kTopPPenalties{.temperature = 0.8f,
                                     .top_p = 0.95f,
                                     .repetition_penalty = 1.1f,
                                     .presence_penalty = 0.1f,
                                     .frequency_penalty = 0.1f};
const SamplingOptions kTopK{.temperature = 0.8f, .top_k = 40};
const SamplingOptions kMinP{.temperature = 1.0f, .min_p = 0.05f};

BENCHMARK_CAPTURE(sample, greedy, kGreedy);
BENCHMARK_CAPTURE(sample, greedy_penalties, kGreedyPenalties);
BENCHMARK_CAPTURE(sample, greedy_logprobs5, kGreedyLogprobs);
BENCHMARK_CAPTURE(sample, t1, kPlain);
BENCHMARK_CAPTURE(sample, t08_top_p095, kTopP);
BENCHMARK_CAPTURE(sample, t08_top_p095_penalties, kTopPPenalties);
BENCHMARK_CAPTURE(sample, t08_top_k40, kTopK);
BENCHMARK_CAPTURE(sample, t1_min_p005, kMinP);
BENCHMARK_CAPTURE(sample, t1_flat, kPlain, true);
BENCHMARK_CAPTURE(sample, t08_top_p095_flat, kTopP, true);
BENCHMARK_CAPTURE(sample, t1_min_p005_flat, kMinP, true);

void t1_avx2(benchmark::State& state) {
  row_math::force_isa(row_math::Isa::avx2);
  sample(state, kPlain);
  row_math::force_isa(row_math::best_isa());
}
BENCHMARK(t1_avx2);
void t08_top_p095_avx2(benchmark::State& state) {
  row_math::force_isa(row_math::Isa::avx2);
  sample(state, kTopP);
  row_math::force_isa(row_math::best_isa());
}
BENCHMARK(t08_top_p095_avx2);

void coupled_candidates(benchmark::State& state, const SamplingOptions& options, int k) {
  RowSampler sampler(kVocab);
  std::vector<DraftCandidate> candidates;
  std::int64_t position = 0;
  for (auto _ : state) {
    const RowContext context{.options = &options, .seed = 7, .position = position};
    sampler.coupled_candidates(rows(false)[static_cast<std::size_t>(position++ % kRows)], context,
                               k, candidates);
    benchmark::DoNotOptimize(candidates.data());
  }
}
BENCHMARK_CAPTURE(coupled_candidates, greedy_1, kGreedy, 1);
BENCHMARK_CAPTURE(coupled_candidates, t08_top_p095_1, kTopP, 1);
BENCHMARK_CAPTURE(coupled_candidates, t1_4, kPlain, 4);

void draft_draw(benchmark::State& state) {
  RowSampler sampler(kVocab);
  std::vector<float> probs(kVocab);
  const RowContext context{.options = &kPlain};
  sampler.probabilities(rows(false)[0], context, probs);
  std::int64_t position = 0;
  std::vector<TokenId> children;
  for (auto _ : state) {
    children.clear();
    draw_draft_children(probs, 7, position++, 0, 4, true, children);
    benchmark::DoNotOptimize(children.data());
  }
}
BENCHMARK(draft_draw);

// A chain of five drafted from the row before; the rows come from a RowSampler, as in the engine.
class Rows final : public TargetRows {
 public:
  explicit Rows(RowSampler& sampler) : sampler_(sampler) {}
  int vocab_size() const override { return kVocab; }
  OutputToken sample(int node) override { return sampler_.sample(row(node), context(node)); }
  void probabilities(int node, std::span<float> out) override {
    sampler_.probabilities(row(node), context(node), out);
  }
  void fill_logprobs(int node, OutputToken& token) override {
    sampler_.fill_logprobs(row(node), context(node), token);
  }

 private:
  static const std::vector<float>& row(int node) {
    return rows(false)[static_cast<std::size_t>(node)];
  }
  static RowContext context(int node) { return {.options = &kPlain, .seed = 7, .position = node}; }
  RowSampler& sampler_;
};

void verify_chain5(benchmark::State& state, VerifyMethod method) {
  RowSampler sampler(kVocab);
  Rows target(sampler);
  DraftTree tree;
  tree.sampling = DraftSampling::with_replacement;
  tree.draft_probs.resize(6);
  for (int node = 0; node < 5; ++node) {
    auto& probs = tree.draft_probs[static_cast<std::size_t>(node)];
    probs.resize(kVocab);
    target.probabilities(node, probs);
    std::vector<TokenId> child;
    draw_draft_children(probs, 7, node, node, 1, false, child);
    tree.add(child[0], node);
  }
  std::uint64_t seed = 0;
  for (auto _ : state) {
    benchmark::DoNotOptimize(verify(tree, target, {.method = method, .seed = seed++}));
  }
}
BENCHMARK_CAPTURE(verify_chain5, rejection, VerifyMethod::rejection);
BENCHMARK_CAPTURE(verify_chain5, block, VerifyMethod::block);
BENCHMARK_CAPTURE(verify_chain5, traversal, VerifyMethod::traversal);

void stop_matcher(benchmark::State& state) {
  StopMatcher matcher({"</answer>", "\n\nHuman:", "###"});
  std::string visible;
  for (auto _ : state) {
    visible.clear();
    matcher.feed(" some text", visible);
    benchmark::DoNotOptimize(visible.data());
  }
}
BENCHMARK(stop_matcher);

}  // namespace
