#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <functional>
#include <memory>
#include <random>

#include "batch.h"
#include "device_array.h"
#include "engine/device_loop.h"
#include "hash_model.h"
#include "kernels/cuda/draft/eagle.h"

using namespace specdec;
using namespace specdec::cuda_test;
using namespace specdec::kernels::cuda;

namespace {

constexpr int kVocab = 300;
constexpr std::uint32_t kSome = 3;  // a draft that is right now and then
constexpr int kBlock = 8;
constexpr int kContext = 400;
constexpr int kBlocks = kContext / kBlock + 12;

Launch launch_on(cudaStream_t stream) {
  Launch to = test_launch();
  to.stream = stream;
  return to;
}

/// The model's memory on the device.
struct HashMemory {
  HashMemory(int sequences, std::size_t outputs, std::uint32_t disagreement)
      : keys(static_cast<std::size_t>(sequences) * kBlocks * kBlock),
        values(keys.size()),
        logits(outputs * kVocab),
        key_layers(std::vector<void*>{keys.get()}),
        value_layers(std::vector<void*>{values.get()}) {
    model = {.vocab = kVocab,
             .block_size = kBlock,
             .disagreement = disagreement,
             .keys = keys.get(),
             .values = values.get(),
             .logits = logits.get()};
  }
  KvPoolView pool() const {
    const auto half = [](void* const* layers) {
      return KvHalf{.layers = layers,
                    .block_stride = kBlock,
                    .head_stride = kBlock,
                    .dim_stride = 1,
                    .position_stride = 1};
    };
    return {.num_layers = 1,
            .num_kv_heads = 1,
            .head_dim = 1,
            .block_size = kBlock,
            .element_bytes = 4,
            .keys = half(key_layers.get()),
            .values = half(value_layers.get())};
  }
  DeviceModel device_model() {
    return {.forward =
                [model = model](const DeviceBatch& batch, cudaStream_t stream) {
                  REQUIRE(hash_forward(model, batch, launch_on(stream)) == cudaSuccess);
                  return static_cast<const float*>(model.logits);
                },
            .pool = pool()};
  }
  DeviceDraftModel draft_model() {
    return {.forward =
                [forward = device_model().forward](const DeviceBatch& batch, cudaStream_t stream) {
                  return DraftLogits{.logits = forward(batch, stream), .vocab = kVocab};
                },
            .pool = pool()};
  }

  DeviceArray<std::uint32_t> keys, values;
  DeviceArray<float> logits;
  DeviceArray<void*> key_layers, value_layers;
  HashModel model;
};

/// The head's passes go back and forth between two buffers; features are the target's.
struct HashHead {
  /// `reduced`: it knows two tokens of three.
  HashHead(HashMemory& entries, int most_rows, bool reduced)
      : memory(entries),
        features(static_cast<std::size_t>(most_rows) * kHashWidth),
        hidden{DeviceArray<float>(features.size()), DeviceArray<float>(features.size())},
        spread(memory.logits.size()) {
    if (!reduced) return;
    std::vector<std::int32_t> known;
    for (int token = 0; token < kVocab; ++token)
      if (token % 3 != 1) known.push_back(token);
    tokens = DeviceArray<std::int32_t>(known);
    spread.write(std::vector<float>(spread.size(), -INFINITY));
  }

  DeviceHead device_head(HashMemory& target, std::function<void(cudaStream_t)> enter) {
    HashModel model = memory.model;
    if (tokens.size() > 0) model.vocab = static_cast<int>(tokens.size());
    const std::int32_t* const known = tokens.size() > 0 ? tokens.get() : nullptr;
    return {.forward =
                [this, model, known](const DeviceBatch& batch, const std::int32_t* sources,
                                     bool at_roots, cudaStream_t stream) {
                  const float* from = at_roots ? features.get() : hidden[last].get();
                  last = 1 - last;
                  REQUIRE(hash_head_forward(model, batch,
                                            {.states = from,
                                             .state_rows = sources,
                                             .hidden = hidden[last].get(),
                                             .tokens = known},
                                            launch_on(stream)) == cudaSuccess);
                  return DraftLogits{model.logits, known, model.vocab};
                },
            .target = target.device_model().forward,
            .enter = std::move(enter)};
  }
  SpreadLogits spread_logits_to() {
    return [this](const DraftLogits& logits, int outputs, cudaStream_t stream) {
      REQUIRE(spread_logits({.num_rows = outputs,
                             .draft_vocab = logits.vocab,
                             .vocab = kVocab,
                             .logits = logits.logits,
                             .tokens = logits.tokens,
                             .out = spread.get()},
                            launch_on(stream)) == cudaSuccess);
      return static_cast<const float*>(spread.get());
    };
  }

  HashMemory& memory;
  DeviceArray<float> features;
  DeviceArray<float> hidden[2];
  DeviceArray<std::int32_t> tokens;  // empty: the target's vocabulary
  DeviceArray<float> spread;
  int last = 0;
};

struct Run {
  std::vector<std::vector<TokenId>> prompts;
  std::vector<SamplingOptions> options;
  std::vector<std::uint64_t> seeds;
  std::vector<TokenId> end_tokens;
};

/// What plain decoding on the host emits.
std::vector<TokenId> decode(const Run& run, std::size_t i) {
  std::vector<TokenId> tokens = run.prompts[i];
  RowSampler sampler(kVocab);
  std::vector<float> logits(kVocab);
  for (int count = 0; count < run.options[i].max_tokens && tokens.size() < kContext - 1; ++count) {
    hash_logits(tokens, 0, logits);
    tokens.push_back(sampler
                         .sample(logits, {.options = &run.options[i],
                                          .seed = run.seeds[i],
                                          .position = static_cast<std::int64_t>(tokens.size())})
                         .token);
    if (std::find(run.end_tokens.begin(), run.end_tokens.end(), tokens.back()) !=
        run.end_tokens.end())
      break;
  }
  return tokens;
}

Run make_run(int sequences, std::uint64_t seed) {
  std::mt19937_64 random(seed);
  Run run;
  run.end_tokens = {7, 11};
  for (int i = 0; i < sequences; ++i) {
    const int length = 2 + static_cast<int>(random() % 40);
    std::vector<TokenId> prompt;
    for (int j = 0; j < length; ++j) prompt.push_back(static_cast<TokenId>(random() % kVocab));
    run.prompts.push_back(std::move(prompt));
    SamplingOptions options{.max_tokens = 20 + static_cast<int>(random() % 150)};
    if (i % 3 == 1) options.temperature = 0.6f;
    if (i % 3 == 2) {
      options.temperature = 0.9f;
      options.top_k = 40;
      options.top_p = 0.95f;
    }
    run.options.push_back(options);
    run.seeds.push_back(random());
  }
  return run;
}

struct Totals {
  int turns = 0;
  int tokens = 0;
  int runs = 0;
};

/// Decodes every prompt to its end through the loop; a sequence that has ended makes way.
Totals check_loop(const Run& run, DeviceLoopOptions options, int turns, bool watched,
                  std::uint32_t disagreement = kSome, bool reduced_head = false) {
  const int count = static_cast<int>(run.prompts.size());
  options.device = test_launch().device;
  options.vocab = kVocab;
  options.max_sequences = 8;
  options.max_context = kContext;
  options.blocks_per_sequence = kBlocks;
  const std::size_t outputs =
      8 * static_cast<std::size_t>(std::max(1 + options.nodes, options.topk));
  HashMemory target(8, std::max<std::size_t>(outputs, 8 * 64), 0);
  HashMemory draft(8, std::max<std::size_t>(outputs, 8 * 64), disagreement);
  std::vector<std::vector<TokenId>> tokens = run.prompts;
  std::vector<DeviceSequence> sequences;
  const bool with_head = options.draft == DeviceDraft::eagle;
  const int feature_rows = options.depth + 1;  // of a sequence, at the beginning of a run
  HashHead head(draft, 8 * std::max(64, feature_rows), reduced_head);
  if (with_head) target.model.features = head.features.get();
  // The hash up to the token before entry `j` of those that the head has yet to run.
  const auto feature_of = [&](const DeviceSequence& sequence, std::size_t j) {
    const std::size_t entry = sequence.tokens->size() - sequence.feature_rows.size() + j;
    return path_hash(std::span(*sequence.tokens).first(entry));
  };
  const auto enter = [&](cudaStream_t) {
    std::vector<float> words(head.features.size());
    for (const DeviceSequence& sequence : sequences)
      for (std::size_t j = 0; j < sequence.feature_rows.size(); ++j) {
        const std::uint32_t word = feature_of(sequence, j);
        std::memcpy(&words[static_cast<std::size_t>(sequence.feature_rows[j]) * kHashWidth], &word,
                    sizeof word);
      }
    REQUIRE(cudaDeviceSynchronize() == cudaSuccess);
    head.features.write(words);
    REQUIRE(cudaDeviceSynchronize() == cudaSuccess);
  };
  DeviceLoop loop(options, target.device_model(), draft.draft_model(),
                  head.device_head(target, enter), head.spread_logits_to());
  std::vector<std::vector<std::int32_t>> tables;
  std::vector<std::uint32_t> target_words(target.keys.size()), draft_words(target.keys.size());
  std::vector<std::uint32_t> head_keys(target.keys.size());
  const DeviceArray<std::int32_t> ends(run.end_tokens);
  SamplingNeeds needs;
  std::mt19937_64 random(5);
  std::vector<std::int32_t> blocks(8 * kBlocks);
  for (std::size_t i = 0; i < blocks.size(); ++i) blocks[i] = static_cast<std::int32_t>(i);
  std::shuffle(blocks.begin(), blocks.end(), random);
  for (int i = 0; i < count; ++i) {
    const auto at = static_cast<std::size_t>(i);
    tables.emplace_back(blocks.begin() + i * kBlocks, blocks.begin() + (i + 1) * kBlocks);
    // The prompt's KV, as prefill leaves it: all tokens but the last.
    for (std::size_t j = 0; j + 1 < tokens[at].size(); ++j) {
      const auto place = static_cast<std::size_t>(tables[at][j / kBlock]) * kBlock + j % kBlock;
      target_words[place] = draft_words[place] =
          kv_word(tokens[at][j], static_cast<std::int32_t>(j));
      head_keys[place] = path_hash(std::span(tokens[at]).first(j + 1));
    }
    const SamplingOptions& each = run.options[at];
    if (each.temperature > 0) {
      needs.sampled = true;
      needs.dense |= each.top_k == 0;
    }
    sequences.push_back({.tokens = &tokens[at],
                         .draft_length = static_cast<int>(tokens[at].size()) - 1,
                         .block_table = tables[at],
                         .sampling = row_sampling(each, run.seeds[at]),
                         .limits = {.max_output = each.max_tokens,
                                    .max_length = kContext - 1,
                                    .reserved = kBlocks * kBlock,
                                    .end_tokens = ends.get(),
                                    .num_end_tokens = 2}});
    if (with_head) sequences.back().feature_rows = {0};
  }
  for (auto* words : {&target.keys, &target.values}) words->write(target_words);
  for (auto* words : {&draft.keys, &draft.values}) words->write(draft_words);
  if (with_head) draft.keys.write(head_keys);

  Totals totals;
  while (!sequences.empty() && totals.runs < 2000) {
    for (std::size_t i = 0; i < sequences.size(); ++i)
      for (std::size_t j = 0; j < sequences[i].feature_rows.size(); ++j)
        sequences[i].feature_rows[j] =
            static_cast<std::int32_t>(i) * feature_rows + static_cast<std::int32_t>(j);
    int seen_turns = 0;
    const auto on_turn = [&](const DeviceLoop::Turn& turn) {
      CHECK(turn.entries.size() == sequences.size());
      for (std::size_t i = 0; i < sequences.size(); ++i) {
        const TurnEntry& entry = turn.entries[i];
        REQUIRE(entry.num_tokens >= 0);
        CHECK(entry.num_accepted >= entry.num_tokens - 1);
        CHECK(entry.num_accepted <= std::min<int>(entry.num_tokens, entry.num_drafted));
        auto& to = tokens[static_cast<std::size_t>(sequences[i].tokens - tokens.data())];
        to.insert(to.end(), entry.tokens, entry.tokens + entry.num_tokens);
        sequences[i].num_output += entry.num_tokens;
      }
      ++seen_turns;
      return !watched || seen_turns < 5;
    };
    // Where there are several depths, run after run has another one.
    int depth = options.depth;
    if (!options.depths.empty()) {
      depth = totals.runs % (options.depth + 1);
      if (options.draft != DeviceDraft::ngram) depth = std::max(depth, 1);  // nobody catches up
      for (const DeviceSequence& sequence : sequences)
        depth = std::max(depth, static_cast<int>(sequence.feature_rows.size()) - 1);
    }
    for (DeviceSequence& sequence : sequences) sequence.max_depth = depth;
    const int done = loop.run(sequences, needs, {.turns = turns, .depth = depth}, on_turn).turns;
    REQUIRE(done >= 1);
    REQUIRE(done <= turns);
    CHECK(seen_turns == done);
    totals.turns += done;
    ++totals.runs;
    if (with_head) {
      const std::vector<float> features = head.features.read();
      for (const DeviceSequence& sequence : sequences) {
        CHECK(!sequence.feature_rows.empty());
        for (std::size_t j = 0; j < sequence.feature_rows.size(); ++j) {
          const std::uint32_t expected = feature_of(sequence, j);
          CHECK(std::memcmp(
                    &features[static_cast<std::size_t>(sequence.feature_rows[j]) * kHashWidth],
                    &expected, sizeof expected) == 0);
        }
      }
    }
    std::erase_if(sequences, [&](const DeviceSequence& sequence) {
      const auto at = static_cast<std::size_t>(sequence.tokens - tokens.data());
      const TokenId last = sequence.tokens->back();
      return sequence.num_output >= run.options[at].max_tokens ||
             std::find(run.end_tokens.begin(), run.end_tokens.end(), last) !=
                 run.end_tokens.end() ||
             sequence.tokens->size() >= kContext - 1;
    });
  }
  for (int i = 0; i < count; ++i) {
    CAPTURE(i);
    const auto at = static_cast<std::size_t>(i);
    totals.tokens += static_cast<int>(tokens[at].size() - run.prompts[at].size());
    CHECK(tokens[at] == decode(run, at));
  }
  return totals;
}

}  // namespace

TEST_CASE(
    "the loop emits what plain decoding on the host emits: every drafter, loop and single step") {
  for (const int sequences : {1, 3, 8}) {
    const Run run = make_run(sequences, 40 + static_cast<std::uint64_t>(sequences));
    for (const int turns : {1, 4, 64})
      for (const DeviceLoopOptions& options :
           {DeviceLoopOptions{},
            DeviceLoopOptions{
                .draft = DeviceDraft::ngram, .depth = 5, .ngram_min = 1, .ngram_max = 3},
            DeviceLoopOptions{.draft = DeviceDraft::draft_model, .depth = 1},
            DeviceLoopOptions{.draft = DeviceDraft::draft_model, .depth = 5},
            DeviceLoopOptions{
                .draft = DeviceDraft::draft_model, .depth = 4, .nodes = 12, .topk = 3},
            DeviceLoopOptions{
                .draft = DeviceDraft::draft_model, .depth = 3, .nodes = 30, .topk = 8},
            DeviceLoopOptions{.draft = DeviceDraft::ngram,
            .depth = 5,
            .depths = {1, 3},
            .ngram_min = 1,
            .ngram_max = 3},
            DeviceLoopOptions{.draft = DeviceDraft::draft_model, .depth = 5, .depths = {1, 2, 3}},
            DeviceLoopOptions{.draft = DeviceDraft::draft_model,
            .depth = 4,
            .depths = {1, 2},
            .nodes = 12,
            .topk = 3},
            DeviceLoopOptions{.draft = DeviceDraft::eagle, .depth = 5, .depths = {1, 2, 4}},
            DeviceLoopOptions{
                .draft = DeviceDraft::eagle, .depth = 4, .depths = {2}, .nodes = 12, .topk = 3},
            DeviceLoopOptions{.draft = DeviceDraft::eagle, .depth = 1},
            DeviceLoopOptions{.draft = DeviceDraft::eagle, .depth = 5},
            DeviceLoopOptions{.draft = DeviceDraft::eagle, .depth = 4, .nodes = 12, .topk = 3},
            DeviceLoopOptions{.draft = DeviceDraft::eagle, .depth = 3, .nodes = 30, .topk = 8}}) {
        CAPTURE(sequences);
        CAPTURE(turns);
        CAPTURE(static_cast<int>(options.draft));
        CAPTURE(options.topk);
        CAPTURE(options.depth);
        const Totals totals = check_loop(run, options, turns, false);
        if (options.draft == DeviceDraft::none) CHECK(totals.turns >= totals.tokens / sequences);
      }
  }
}

// Its KV caught up in every turn, greedy or sampled: nothing that it drafts can be wrong.
TEST_CASE("a chain that the target itself drafts is accepted whole, to the last turn") {
  for (const std::uint64_t seed : {1, 2, 3})
    for (const float temperature : {0.0f, 0.8f})
      for (const int depth : {1, 2, 5}) {
        for (const DeviceDraft draft : {DeviceDraft::draft_model, DeviceDraft::eagle}) {
          const DeviceLoopOptions options{.draft = draft, .depth = depth};
          Run run = make_run(1, seed);
          run.options[0].temperature = temperature;
          const Totals totals = check_loop(run, options, 64, false, 0);
          CAPTURE(static_cast<int>(draft));
          CAPTURE(options.depth);
          CAPTURE(totals.tokens);
          CHECK(totals.turns == (totals.tokens + options.depth) / (options.depth + 1));
        }
      }
}

// A confidence that every draft has makes the loop look at scores, so that candidates are chosen
// and trees grown by the kernels that serve all kinds of drafts.
TEST_CASE("greedy chains: the same drafts as by the general way, in a reduced vocabulary too") {
  for (const int sequences : {1, 3, 8})
    for (const auto& [draft, reduced] : {std::pair{DeviceDraft::draft_model, false},
                                         {DeviceDraft::eagle, false},
                                         {DeviceDraft::eagle, true}})
      for (const std::uint32_t disagreement : {0u, kSome}) {
        CAPTURE(sequences);
        CAPTURE(static_cast<int>(draft));
        CAPTURE(reduced);
        Run run = make_run(sequences, 60 + static_cast<std::uint64_t>(sequences));
        for (SamplingOptions& options : run.options) options.temperature = 0;
        DeviceLoopOptions options{.draft = draft, .depth = 4};
        const Totals chains = check_loop(run, options, 64, false, disagreement, reduced);
        options.min_confidence = 1e-6f;
        const Totals general = check_loop(run, options, 64, false, disagreement, reduced);
        CHECK(chains.turns == general.turns);
        CHECK(chains.turns < chains.tokens);
      }
}

TEST_CASE("the host reads along and calls the loop back") {
  const Run run = make_run(4, 9);
  const Totals free = check_loop(run, {.draft = DeviceDraft::draft_model, .depth = 3}, 64, false);
  const Totals watched = check_loop(run, {.draft = DeviceDraft::draft_model, .depth = 3}, 64, true);
  CHECK(free.tokens == watched.tokens);
  CHECK(watched.runs >= free.runs);
}

TEST_CASE("an EAGLE head's passes: logits under the target's numbers") {
  std::mt19937 random(3);
  constexpr int kDraftVocab = 700;
  constexpr int kFullVocab = 1000;
  constexpr int kRows = 5;
  std::vector<std::int32_t> tokens(kFullVocab);
  for (int i = 0; i < kFullVocab; ++i) tokens[static_cast<std::size_t>(i)] = i;
  std::shuffle(tokens.begin(), tokens.end(), random);
  tokens.resize(kDraftVocab);
  std::vector<float> logits(kRows * kDraftVocab);
  for (float& logit : logits) logit = static_cast<float>(random() % 1000) - 500.0f;
  std::vector<float> expected(kRows * kFullVocab, -1e9f);
  const DeviceArray<float> spread(expected);
  for (std::size_t row = 0; row < kRows; ++row)
    for (std::size_t i = 0; i < kDraftVocab; ++i)
      expected[row * kFullVocab + static_cast<std::size_t>(tokens[i])] =
          logits[row * kDraftVocab + i];
  const DeviceArray<std::int32_t> tokens_device(tokens);
  const DeviceArray<float> logits_device(logits);
  REQUIRE(spread_logits({.num_rows = kRows,
                         .draft_vocab = kDraftVocab,
                         .vocab = kFullVocab,
                         .logits = logits_device.get(),
                         .tokens = tokens_device.get(),
                         .out = spread.get()},
                        test_launch()) == cudaSuccess);
  CHECK(spread.read() == expected);
}

TEST_CASE("graphs of many shapes are made anew when the cache is full") {
  const Run run = make_run(8, 77);
  check_loop(run, {.draft = DeviceDraft::draft_model, .depth = 2, .most_graphs = 1}, 16, false);
}
