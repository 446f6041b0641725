#include "kernels/cuda/sampling/rules.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>

#include "rows.h"

using namespace specdec;
using namespace specdec::cuda_test;
using namespace specdec::kernels::cuda;

namespace {

/// A tree whose children are drawn from distributions near the target's, as a drafter draws them.
void draw_tree(TestSequence& sequence, std::span<const float> logits, int vocab, int nodes,
               int most, DraftSampling sampling, std::mt19937_64& random) {
  DraftTree& tree = sequence.tree;
  tree.sampling = sampling;
  const auto width = static_cast<std::size_t>(vocab);
  std::normal_distribution<float> normal(0, 0.7f);
  for (int node = 0; node < tree.size() && tree.size() < nodes; ++node) {
    std::vector<float> probs(width);
    double total = 0;
    for (std::size_t i = 0; i < width; ++i) {
      const float logit = logits[static_cast<std::size_t>(node) * width + i];
      probs[i] =
          std::isinf(logit) ? 1e-6f : std::exp(std::min(0.6f * logit + normal(random), 20.0f));
      total += probs[i];
    }
    for (float& prob : probs) prob = static_cast<float>(prob / total);
    const int children =
        std::min(1 + static_cast<int>(random() % static_cast<unsigned>(most)), nodes - tree.size());
    std::vector<TokenId> drawn;
    draw_draft_children(probs, sequence.seed, sequence.length, node, children,
                        sampling == DraftSampling::without_replacement, drawn);
    if (sampling == DraftSampling::deterministic) {
      std::sort(drawn.begin(), drawn.end());
      drawn.erase(std::unique(drawn.begin(), drawn.end()), drawn.end());
    }
    for (const TokenId token : drawn) tree.add(token, node);
    tree.draft_probs.resize(static_cast<std::size_t>(node) + 1);
    tree.draft_probs.back() = std::move(probs);
  }
  tree.draft_probs.resize(static_cast<std::size_t>(tree.size()));
  if (sampling == DraftSampling::deterministic) tree.draft_probs.clear();
}

int check(SampledRule rule, VerifyMethod method, DraftSampling sampling, int vocab, RowKind kind,
          std::uint64_t seed) {
  std::mt19937_64 random(seed);
  const auto width = static_cast<std::size_t>(vocab);
  std::vector<TestSequence> sequences;
  std::vector<float> logits;
  std::vector<float> draft_probs;
  for (const SamplingOptions& options : {SamplingOptions{.temperature = 1.0f},
                                         {.temperature = 0.8f, .top_k = 20, .top_p = 0.95f},
                                         SamplingOptions{},
                                         {.temperature = 1.4f, .top_p = 0.9f},
                                         {.temperature = 1.0f, .min_p = 0.01f},
                                         {.temperature = 2.0f},
                                         {.temperature = 0.9f, .presence_penalty = 0.5f}}) {
    TestSequence sequence;
    sequence.options = options;
    sequence.seed = random();
    sequence.length = 1 + static_cast<int>(random() % 1000);
    sequence.tree.reset(static_cast<TokenId>(random() % width));
    const bool chain = rule == SampledRule::block || sampling == DraftSampling::with_replacement;
    const int nodes = 1 + static_cast<int>(random() % 12);
    std::vector<float> rows(static_cast<std::size_t>(nodes) * width);
    for (int i = 0; i < nodes; ++i)
      fill_row(kind, std::span(rows).subspan(static_cast<std::size_t>(i) * width, width), random);
    draw_tree(sequence, rows, vocab, nodes, chain ? 1 : 4, sampling, random);
    rows.resize(static_cast<std::size_t>(sequence.tree.size()) * width);
    logits.insert(logits.end(), rows.begin(), rows.end());
    for (int node = 0; node < sequence.tree.size(); ++node) {
      std::vector<float> probs(width, -1.0f);
      const auto at = static_cast<std::size_t>(node);
      if (at < sequence.tree.draft_probs.size() && !sequence.tree.draft_probs[at].empty())
        probs = sequence.tree.draft_probs[at];
      draft_probs.insert(draft_probs.end(), probs.begin(), probs.end());
    }
    sequences.push_back(std::move(sequence));
  }
  const TestBatch batch(vocab, std::move(sequences), std::move(logits));
  const std::size_t count = batch.sequences().size();
  const auto rows = static_cast<std::size_t>(batch.num_rows());
  const DeviceArray<float> device_draft(draft_probs);
  DeviceArray<float> probabilities(rows * width);
  const int levels = rule == SampledRule::traversal ? batch.paths().capacity : 1;
  DeviceArray<double> weights(count * static_cast<std::size_t>(levels) * width);
  REQUIRE(accept_by_rule({.rows = batch.params(),
                          .rule = rule,
                          .drawn = static_cast<DrawnChildren>(sampling),
                          .draft_probs = device_draft.get(),
                          .probabilities = probabilities.get(),
                          .weights = weights.get(),
                          .levels = levels,
                          .paths = batch.paths()},
                         batch.needs(), test_launch()) == cudaSuccess);
  const TestBatch::DeviceResult device = batch.read_paths();
  RowSampler sampler(vocab);
  int accepted = 0;
  for (std::size_t i = 0; i < count; ++i) {
    CAPTURE(i);
    const TestBatch::HostResult host = batch.host(i, sampler, method);
    REQUIRE(!host.error.has_value());
    REQUIRE(device.status[i] == RowStatus::ok);
    REQUIRE(device.lengths[i] == static_cast<int>(host.path.nodes.size()));
    accepted += device.lengths[i] - 1;
    for (std::size_t j = 0; j < host.path.nodes.size(); ++j) {
      const std::size_t at = i * static_cast<std::size_t>(device.capacity) + j;
      CHECK(device.nodes[at] == host.path.nodes[j]);
      CHECK(device.tokens[at] == host.path.tokens[j].token);
    }
  }
  return accepted;
}

}  // namespace

TEST_CASE("the sampled rules accept what the host's accept, and draw the same token") {
  int accepted = 0;
  for (const int vocab : {4, 300, 5000})
    for (const RowKind kind : {RowKind::plain, RowKind::flat, RowKind::ties, RowKind::masked})
      for (std::uint64_t seed = 0; seed < 4; ++seed) {
        CAPTURE(vocab);
        CAPTURE(static_cast<int>(kind));
        CAPTURE(seed);
        using enum DraftSampling;
        const VerifyMethod rejection = VerifyMethod::rejection;
        const VerifyMethod traversal = VerifyMethod::traversal;
        const VerifyMethod block = VerifyMethod::block;
        for (const DraftSampling sampling :
             {deterministic, with_replacement, without_replacement}) {
          CAPTURE(static_cast<int>(sampling));
          accepted += check(SampledRule::rejection, rejection, sampling, vocab, kind, seed);
          accepted += check(SampledRule::traversal, traversal, sampling, vocab, kind, seed);
          if (sampling != without_replacement)
            accepted += check(SampledRule::block, block, sampling, vocab, kind, seed);
        }
      }
  CHECK(accepted > 500);  // the walk goes deep often enough to say something
}

TEST_CASE("the same at a real vocabulary") {
  check(SampledRule::traversal, VerifyMethod::traversal, DraftSampling::without_replacement, 49152,
        RowKind::plain, 1);
  check(SampledRule::rejection, VerifyMethod::rejection, DraftSampling::without_replacement, 128256,
        RowKind::plain, 2);
}
