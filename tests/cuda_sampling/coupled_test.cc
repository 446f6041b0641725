#include <doctest/doctest.h>

#include <limits>
#include <string>

#include "rows.h"

using namespace specdec;
using namespace specdec::cuda_test;
using kernels::cuda::RowStatus;

namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();

std::vector<SamplingOptions> option_sets() {
  return {
      {},
      {.logprobs = 64},
      {.temperature = 1.0f},
      {.temperature = 0.7f, .top_k = 50, .top_p = 0.9f, .logprobs = 5},
      {.temperature = 0.01f, .top_p = 0.95f},
      {.temperature = 2.5f, .top_p = 0.9999f},
      {.temperature = 1.0f, .top_p = 1e-6f},
      {.temperature = 1.3f, .top_k = 1},
      {.temperature = 0.9f, .top_k = 600, .min_p = 0.02f, .logprobs = 0},
      {.temperature = 1.5f, .top_k = 6000, .top_p = 0.97f},
      {.temperature = 1.5f, .top_k = 6000, .min_p = 0.1f},
      {.temperature = 1.0f, .min_p = 0.05f},
      {.temperature = 3.0f, .min_p = 1e-4f, .logprobs = 1},
      {.temperature = 0.8f, .top_p = 0.8f, .min_p = 0.1f},
      {.temperature = 100.0f},
      {.repetition_penalty = 1.3f, .logprobs = 3},
      {.temperature = 0.8f,
       .top_k = 40,
       .repetition_penalty = 0.8f,
       .presence_penalty = 0.7f,
       .frequency_penalty = 0.3f},
      {.temperature = 0.8f,
       .top_p = 0.9f,
       .presence_penalty = -1.5f,
       .frequency_penalty = 1.1f,
       .logit_bias = {{0, 5.0f}, {1, -kInfinity}, {3, -2.0f}},
       .min_tokens = 12,
       .logprobs = 4},
      {.temperature = 1.0f, .logit_bias = {{2, 100.0f}}},
      {.min_tokens = 1000, .logprobs = 2},
  };
}

TestSequence make_sequence(const SamplingOptions& options, int vocab, std::mt19937_64& random) {
  TestSequence sequence;
  sequence.options = options;
  sequence.seed = random();
  sequence.length = 1 + static_cast<int>(random() % 5000);
  sequence.num_output = static_cast<int>(random() % 20);
  const auto any = [&] { return static_cast<TokenId>(random() % static_cast<unsigned>(vocab)); };
  std::vector<TokenId> prompt;
  for (int i = 0; i < 200; ++i) prompt.push_back(any());
  sequence.penalties.add_prompt(prompt);
  for (int i = 0; i < 100; ++i) sequence.penalties.add_output(any() % 50 % vocab);
  sequence.end_tokens = {0, any()};
  sequence.tree.reset(any());
  return sequence;
}

/// A ragged batch: every option set over rows of one kind, trees of 1 to `most_nodes` nodes.
TestBatch make_batch(RowKind kind, int vocab, int most_nodes, int padding, std::uint64_t seed,
                     std::span<const SamplingOptions> sets) {
  std::mt19937_64 random(seed);
  std::vector<TestSequence> sequences;
  std::vector<float> logits;
  const auto width = static_cast<std::size_t>(vocab);
  for (const SamplingOptions& options : sets) {
    TestSequence sequence = make_sequence(options, vocab, random);
    const int nodes = 1 + static_cast<int>(random() % static_cast<unsigned>(most_nodes));
    std::vector<float> rows(static_cast<std::size_t>(nodes) * width);
    for (int i = 0; i < nodes; ++i)
      fill_row(kind, std::span(rows).subspan(static_cast<std::size_t>(i) * width, width), random);
    grow_tree(sequence, rows, vocab, nodes, random);
    rows.resize(static_cast<std::size_t>(sequence.tree.size() + padding) * width, kInfinity);
    logits.insert(logits.end(), rows.begin(), rows.end());
    sequences.push_back(std::move(sequence));
  }
  return {vocab, std::move(sequences), std::move(logits), padding};
}

}  // namespace

TEST_CASE("the device draws the host's tokens and log-probabilities: every option, odd rows") {
  const std::vector<SamplingOptions> sets = option_sets();
  for (const int vocab : {4, 257, 5000})
    for (const RowKind kind : kRowKinds)
      for (const bool overlap : {false, true}) {
        CAPTURE(vocab);
        CAPTURE(static_cast<int>(kind));
        CAPTURE(overlap);
        auto to = test_launch();
        if (!overlap) to.device.has_overlap = false;  // launches without overlap
        make_batch(kind, vocab, 12, 2, 77 + static_cast<std::uint64_t>(vocab), sets).check(to);
      }
}

TEST_CASE("the same at the vocabularies of real models") {
  const std::vector<SamplingOptions> sets = option_sets();
  for (const int vocab : {49152, 128256})
    for (const RowKind kind : kRowKinds) {
      CAPTURE(vocab);
      CAPTURE(static_cast<int>(kind));
      make_batch(kind, vocab, 2, 0, 5 + static_cast<std::uint64_t>(kind), sets)
          .check(test_launch());
    }
}

TEST_CASE("greedy batches take one kernel and every shape of tree") {
  std::mt19937_64 random(3);
  for (const int sequences : {1, 3, 33})
    for (const int nodes : {1, 2, 64, 200}) {
      if (sequences * nodes > 600) continue;
      CAPTURE(sequences);
      CAPTURE(nodes);
      const std::vector<SamplingOptions> sets(static_cast<std::size_t>(sequences),
                                              SamplingOptions{.logprobs = 0});
      make_batch(RowKind::plain, 3000, nodes, 1, random(), sets).check(test_launch());
    }
}

TEST_CASE("a deep chain is accepted to its end") {
  std::mt19937_64 random(9);
  for (const float temperature : {0.0f, 1.0f}) {
    const int vocab = 1000;
    TestSequence sequence = make_sequence({.temperature = temperature}, vocab, random);
    std::vector<float> rows(90 * 1000);
    for (std::size_t i = 0; i < 90; ++i)
      fill_row(RowKind::plain, std::span(rows).subspan(i * 1000, 1000), random);
    RowSampler sampler(vocab);
    for (int node = 0; node < 89; ++node)
      sequence.tree.add(
          sampler
              .sample(std::span(rows).subspan(static_cast<std::size_t>(node) * 1000, 1000),
                      {.options = &sequence.options,
                       .seed = sequence.seed,
                       .position = sequence.length + node})
              .token,
          node);
    std::vector<TestSequence> sequences;
    sequences.push_back(std::move(sequence));
    const TestBatch batch(vocab, std::move(sequences), std::move(rows));
    batch.check(test_launch());
    CHECK(batch.device(test_launch()).lengths[0] == 90);
  }
}

TEST_CASE("a faulty row fails its sequence and no other") {
  for (const float temperature : {0.0f, 0.9f}) {
    std::mt19937_64 random(4);
    const int vocab = 2000;
    const float nan = std::numeric_limits<float>::quiet_NaN();
    std::vector<TestSequence> sequences;
    std::vector<float> logits;
    for (int i = 0; i < 8; ++i) {
      TestSequence sequence =
          make_sequence({.temperature = temperature, .top_p = 0.9f}, vocab, random);
      std::vector<float> row(2000);
      fill_row(RowKind::plain, row, random);
      if (i == 1) row[1999] = nan;
      if (i == 3) row[7] = kInfinity;
      if (i == 4) std::fill(row.begin(), row.end(), -kInfinity);
      if (i == 5) sequence.options.logit_bias = {{9, kInfinity}};
      if (i == 6) {
        std::fill(row.begin() + 2, row.end(), -kInfinity);
        sequence.options.logit_bias = {{0, -kInfinity}, {1, -kInfinity}};
      }
      logits.insert(logits.end(), row.begin(), row.end());
      sequences.push_back(std::move(sequence));
    }
    const TestBatch batch(vocab, std::move(sequences), std::move(logits));
    batch.check(test_launch());
    const auto device = batch.device(test_launch());
    CHECK(device.status[1] == RowStatus::bad_logits);
    CHECK(device.status[3] == RowStatus::bad_logits);
    CHECK(device.status[4] == RowStatus::no_logits);
    CHECK(device.status[5] == RowStatus::bad_edits);
    CHECK(device.status[6] == RowStatus::all_banned);
    for (const int i : {0, 2, 7}) CHECK(device.lengths[static_cast<std::size_t>(i)] == 1);
  }
}

TEST_CASE("a mask bans what a bias of -infinity bans") {
  for (const float temperature : {0.0f, 1.0f}) {
    std::mt19937_64 random(8);
    const int vocab = 777;
    const auto make = [&](bool with_bias) {
      std::mt19937_64 same(21);
      std::vector<TestSequence> sequences;
      sequences.push_back(make_sequence({.temperature = temperature, .top_p = 0.99f}, vocab, same));
      std::vector<float> row(777);
      fill_row(RowKind::flat, row, same);
      for (int token = 0; with_bias && token < vocab; ++token)
        if (token % 3 != 1) sequences[0].options.logit_bias[token] = -kInfinity;
      return TestBatch(vocab, std::move(sequences), std::move(row));
    };
    // The third of three masks; the others allow one token.
    const auto words = static_cast<std::size_t>(kernels::cuda::mask_words(vocab));
    std::vector<std::uint32_t> masks(3 * words);
    masks[0] = masks[words] = 1;
    for (int token = 0; token < vocab; ++token)
      if (token % 3 == 1)
        masks[2 * words + static_cast<std::size_t>(token / 32)] |= 1u << (token % 32);
    const std::int32_t third[] = {2};
    TestBatch masked = make(false);
    masked.set_masks(masks, third);
    const TestBatch biased = make(true);
    biased.check(test_launch());
    CHECK(masked.device(test_launch()).tokens == biased.device(test_launch()).tokens);
    const std::int32_t none[] = {-1};
    masked.set_masks(masks, none);
    make(false).check(test_launch());
    CHECK(masked.device(test_launch()).tokens == make(false).device(test_launch()).tokens);
  }
}

TEST_CASE("a nucleus ends exactly where its mass is reached") {
  for (const int vocab : {4, 8, 64, 1000}) {
    CAPTURE(vocab);
    const std::vector<SamplingOptions> sets(64, {.temperature = 1.0f, .top_p = 0.5f});
    make_batch(RowKind::equal, vocab, 4, 0, 15, sets).check(test_launch());
  }
}

TEST_CASE("the same batch twice, and rows apart, give the same bits") {
  const std::vector<SamplingOptions> sets = option_sets();
  const TestBatch batch = make_batch(RowKind::plain, 128256, 3, 0, 31, sets);
  const auto first = batch.device(test_launch());
  const auto second = batch.device(test_launch());
  CHECK(first.tokens == second.tokens);
  CHECK(first.nodes == second.nodes);
  CHECK(first.logprobs == second.logprobs);
  CHECK(first.top_logprobs == second.top_logprobs);
}
