#include "kernels/cuda/draft/growth.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <random>

#include "draft/model_drafter.h"
#include "kernels/cuda/draft/candidates.h"
#include "kernels/cuda/draft/chain.h"
#include "kernels/cuda/step/tree_batch.h"
#include "kernels/executor.h"
#include "rows.h"

using namespace specdec;
using namespace specdec::cuda_test;
using namespace specdec::kernels::cuda;

namespace {

constexpr float kNever = 2;  // a confidence that nothing has

/// Logits that are a function of the token and position alone, so that both sides can ask for them.
class HashModel final : public DraftModel {
 public:
  /// `broken`: some rows hold NaN or infinity, or nothing but -infinity.
  HashModel(int vocab, RowKind kind, bool broken) : vocab_(vocab), kind_(kind), broken_(broken) {}
  int vocab_size() const override { return vocab_; }
  int max_rows() const override { return 4096; }
  int max_position() const override { return 1 << 20; }
  void row(TokenId token, int position, std::span<float> out) const {
    std::mt19937_64 random(static_cast<std::uint64_t>(token) * 1000003u +
                           static_cast<std::uint64_t>(position));
    fill_row(kind_, out, random);
    if (!broken_ || random() % 3 != 0) return;
    const std::size_t at = random() % out.size();
    switch (random() % 3) {
      case 0:
        out[at] = NAN;
        break;
      case 1:
        out[at] = INFINITY;
        break;
      default:
        std::fill(out.begin(), out.end(), -INFINITY);
    }
  }
  std::span<const float> forward(std::span<const DraftRows> batch) override {
    logits_.clear();
    for (const DraftRows& rows : batch)
      for (const DraftRow& each : rows.rows) {
        if (!each.wants_logits) continue;
        logits_.resize(logits_.size() + static_cast<std::size_t>(vocab_));
        row(each.token, each.position, std::span(logits_).last(static_cast<std::size_t>(vocab_)));
      }
    return logits_;
  }

 private:
  int vocab_;
  RowKind kind_;
  bool broken_;
  std::vector<float> logits_;
};

struct Case {
  int vocab, topk, max_depth, num_draft_tokens;
  RowKind kind;
  float min_confidence = 0;
  bool chains = false;  // by grow_chains()
  bool broken = false;  // rows that nothing can be drawn from
};

/// A batch's buffers, full of nonsense.
struct BatchArrays {
  BatchArrays(std::size_t rows, std::size_t sequences, int path_stride)
      : tokens(rows),
        positions(rows),
        slots(rows),
        path_offsets(rows),
        path_slots(rows * static_cast<std::size_t>(path_stride)),
        context_lens(sequences) {
    for (auto* array : {&tokens, &positions, &slots, &path_offsets, &path_slots, &context_lens})
      array->fill(0x77);
    batch.tokens = tokens.get();
    batch.positions = positions.get();
    batch.slots = slots.get();
    batch.path_offsets = path_offsets.get();
    batch.path_slots = path_slots.get();
    batch.context_lens = context_lens.get();
  }

  DeviceArray<std::int32_t> tokens, positions, slots, path_offsets, path_slots, context_lens;
  DeviceBatch batch;
};

/// The draft's rows of a chain's level: its node at its position.
void check_level(const BatchArrays& level, std::span<const DraftTree> trees,
                 std::span<const SequenceState> states, std::span<const std::int32_t> max_depths,
                 int depth) {
  const auto tokens = level.tokens.read(), positions = level.positions.read(),
             slots = level.slots.read(), offsets = level.path_offsets.read(),
             contexts = level.context_lens.read();
  int wrong = 0;
  for (std::size_t i = 0; i < trees.size(); ++i) {
    const bool there = depth < max_depths[i] && depth < trees[i].size();
    const int position = states[i].length - 1 + depth;
    wrong += contexts[i] != (there ? states[i].length : 0) || offsets[i] != -1;
    if (there)
      wrong += tokens[i] != trees[i].tokens[static_cast<std::size_t>(depth)] ||
               positions[i] != position || slots[i] != position;
    else
      wrong += slots[i] != kPaddingSlot || positions[i] != 0;
  }
  CHECK(wrong == 0);
}

/// The target's rows: every node at root + node, its path the slots of its ancestors.
void check_target(const BatchArrays& target, std::span<const DraftTree> trees,
                  std::span<const SequenceState> states, int rows_per_sequence) {
  const auto tokens = target.tokens.read(), positions = target.positions.read(),
             slots = target.slots.read(), offsets = target.path_offsets.read(),
             paths = target.path_slots.read(), contexts = target.context_lens.read();
  int wrong = 0;
  for (std::size_t i = 0; i < trees.size(); ++i) {
    const DraftTree& tree = trees[i];
    const int root = states[i].length - 1;
    wrong += contexts[i] != root;
    for (int node = 0; node < rows_per_sequence; ++node) {
      const std::size_t row =
          i * static_cast<std::size_t>(rows_per_sequence) + static_cast<std::size_t>(node);
      if (node >= tree.size()) {
        wrong += slots[row] != kPaddingSlot || positions[row] != 0 || offsets[row] >= 0;
        continue;
      }
      const auto at = static_cast<std::size_t>(node);
      wrong += tokens[row] != tree.tokens[at] || positions[row] != root + tree.depths[at] ||
               slots[row] != root + node;
      int place = tree.depths[at];
      for (int up = node; up >= 0; up = tree.parents[static_cast<std::size_t>(up)], --place) {
        const int slot =
            offsets[row] < 0 ? root + place : paths[static_cast<std::size_t>(offsets[row] + place)];
        wrong += slot != root + up;
      }
    }
  }
  CHECK(wrong == 0);
}

void check(const Case& what, std::span<const SamplingOptions> sets) {
  std::mt19937_64 random(what.vocab + what.topk);
  HashModel model(what.vocab, what.kind, what.broken);
  kernels::SerialExecutor executor;
  ModelDrafter drafter(model, executor,
                       {.topk = what.topk,
                        .num_draft_tokens = what.num_draft_tokens,
                        .min_confidence = what.min_confidence});
  const auto count = static_cast<int>(sets.size());
  const auto sequences = static_cast<std::size_t>(count);

  // The host's trees.
  std::vector<std::vector<TokenId>> tokens(sequences);
  std::vector<DraftTree> trees(sequences);
  std::vector<std::vector<std::int32_t>> slots(sequences);
  std::vector<ModelDraftSequence> host;
  std::vector<SequenceState> states;
  std::vector<RowSampling> options;
  std::vector<std::int32_t> max_depths, max_nodes;
  constexpr int kStride = 64;
  std::vector<std::int32_t> history(sequences * kStride);
  SamplingNeeds needs;
  for (std::size_t i = 0; i < sequences; ++i) {
    const int length = 1 + static_cast<int>(random() % kStride);
    for (int j = 0; j < length; ++j)
      tokens[i].push_back(static_cast<TokenId>(random() % static_cast<unsigned>(what.vocab)));
    std::copy(tokens[i].begin(), tokens[i].end(),
              history.begin() + static_cast<std::ptrdiff_t>(i * kStride));
    trees[i].reset(tokens[i].back());
    const int depth =
        i % 5 == 4 ? 0 : 1 + static_cast<int>(random() % static_cast<unsigned>(what.max_depth));
    const std::uint64_t seed = random();
    max_depths.push_back(depth);
    max_nodes.push_back(what.topk == 1 ? depth : what.num_draft_tokens);
    host.push_back({.tokens = tokens[i],
                    .draft_length = length - 1,
                    .max_depth = depth,
                    .max_nodes = max_nodes.back(),
                    .row = {.options = &sets[i], .seed = seed, .position = length},
                    .tree = &trees[i],
                    .draft_slots = &slots[i]});
    states.push_back({length, 0});
    options.push_back(row_sampling(sets[i], seed));
    if (sets[i].temperature <= 0) continue;
    const bool top_k = sets[i].top_k > 0 && sets[i].top_k < what.vocab;
    needs.sampled = true;
    needs.nucleus |= sets[i].top_p < 1 && !top_k;
    needs.dense |= !top_k;
  }
  drafter.propose(host);

  // The device's, the "forward" of each level being a copy of the model's rows.
  const auto rows = sequences * static_cast<std::size_t>(what.topk);
  const int capacity = growth_capacity(what.topk, what.max_depth);
  const auto nodes = sequences * static_cast<std::size_t>(capacity);
  const auto width = static_cast<std::size_t>(what.vocab);
  const auto most = static_cast<std::size_t>(what.topk);
  const auto ints = [](std::size_t size) { return DeviceArray<std::int32_t>(size); };
  auto first_nodes = ints(sequences), counts = ints(sequences), frontier = ints(sequences),
       next_slots = ints(sequences), node_tokens = ints(nodes), parents = ints(nodes),
       depths = ints(nodes), node_slots = ints(nodes), sequence_of_row = ints(rows),
       node_of_row = ints(rows), candidate_counts = ints(rows),
       candidate_tokens = ints(rows * most);
  DeviceArray<float> survival(nodes), candidate_scores(rows * most),
      chunk_sums(rows * static_cast<std::size_t>(num_chunks(what.vocab))), logits(rows * width);
  DeviceArray<RowState> row_states(rows);
  DeviceArray<std::uint32_t> chunk_keys(rows * static_cast<std::size_t>(num_chunks(what.vocab)));
  DeviceArray<unsigned long long> digits(rows * kDigitBins);
  DeviceArray<SliceBest> slice_best(rows * static_cast<std::size_t>(num_slices(what.vocab)) * most);
  const DeviceArray<SequenceState> device_states(states);
  const DeviceArray<RowSampling> device_options(options);
  const DeviceArray<std::int32_t> device_history(history), device_depths(max_depths),
      device_nodes(max_nodes);
  for (auto* poisoned : {&node_tokens, &parents, &depths, &node_slots, &node_of_row})
    poisoned->fill(0xEE);

  const DraftGrowth growth{.num_sequences = count,
                           .topk = what.topk,
                           .capacity = capacity,
                           .first_nodes = first_nodes.get(),
                           .counts = counts.get(),
                           .frontier_sizes = frontier.get(),
                           .next_slots = next_slots.get(),
                           .tokens = node_tokens.get(),
                           .parents = parents.get(),
                           .depths = depths.get(),
                           .slots = node_slots.get(),
                           .survival = survival.get(),
                           .sequence_of_row = sequence_of_row.get(),
                           .node_of_row = node_of_row.get()};
  const GrowParams grow{.growth = growth,
                        .sequences = device_states.get(),
                        .options = device_options.get(),
                        .history = device_history.get(),
                        .history_stride = kStride,
                        .max_depths = device_depths.get(),
                        .max_nodes = device_nodes.get(),
                        .candidate_counts = candidate_counts.get(),
                        .candidate_tokens = candidate_tokens.get(),
                        .candidate_scores = candidate_scores.get()};
  const DraftCandidatesParams candidates{.rows = {.vocab = what.vocab,
                                                  .tree = growth.rows(),
                                                  .logits = logits.get(),
                                                  .options = device_options.get(),
                                                  .sequences = device_states.get(),
                                                  .scratch = {.states = row_states.get(),
                                                              .chunk_keys = chunk_keys.get(),
                                                              .digits = digits.get(),
                                                              .slice_best = slice_best.get()}},
                                         .k = what.topk,
                                         .min_confidence = what.min_confidence,
                                         .counts = candidate_counts.get(),
                                         .tokens = candidate_tokens.get(),
                                         .scores = candidate_scores.get(),
                                         .chunk_sums = chunk_sums.get()};
  const Launch to = test_launch();
  // The rows of the passes, in a model's buffers.
  const int rows_per_sequence = 1 + (what.topk == 1 ? what.max_depth : what.num_draft_tokens);
  const auto out_rows = sequences * static_cast<std::size_t>(rows_per_sequence);
  const BatchArrays roots(2 * sequences, sequences, 1);
  const BatchArrays level(rows, sequences, what.max_depth + 1);
  const BatchArrays target(out_rows, sequences, what.max_depth + 1);
  std::vector<std::int32_t> draft_lengths;
  for (const SequenceState& state : states) draft_lengths.push_back(state.length - 1);
  const DeviceArray<std::int32_t> device_draft_lengths(draft_lengths);
  auto first_rows = ints(sequences), sizes = ints(sequences), out_sequence = ints(out_rows),
       out_tokens = ints(out_rows), out_parents = ints(out_rows), out_depths = ints(out_rows),
       out_slots = ints(out_rows);
  const LevelRows next{.batch = level.batch, .path_stride = what.max_depth + 1};
  const GrownTrees grown{.trees = {.num_sequences = count,
                                   .rows_per_sequence = rows_per_sequence,
                                   .first_rows = first_rows.get(),
                                   .sizes = sizes.get(),
                                   .sequence_of_row = out_sequence.get(),
                                   .tokens = out_tokens.get(),
                                   .parents = out_parents.get(),
                                   .depths = out_depths.get()},
                         .draft_slots = out_slots.get(),
                         .target = {.batch = target.batch, .path_stride = what.max_depth + 1}};
  REQUIRE(fill_draft_roots(grow, device_draft_lengths.get(), roots.batch, to) == cudaSuccess);
  for (int depth = 0; depth < what.max_depth; ++depth) {
    const auto sequence = sequence_of_row.read(), node = node_of_row.read(),
               level_tokens = node_tokens.read();
    std::vector<float> filled(rows * width);
    for (std::size_t row = 0; row < rows; ++row) {
      if (sequence[row] < 0) continue;
      const auto at = static_cast<std::size_t>(sequence[row]);
      model.row(level_tokens[at * static_cast<std::size_t>(capacity) +
                             static_cast<std::size_t>(node[row])],
                states[at].length - 1 + depth, std::span(filled).subspan(row * width, width));
    }
    logits.write(filled);
    const bool last = depth + 1 == what.max_depth;
    if (what.chains) {
      const ChainLevelParams chains{.grow = grow,
                                    .depth = depth,
                                    .vocab = what.vocab,
                                    .logits = logits.get(),
                                    .states = row_states.get()};
      REQUIRE((last ? finish_chains(chains, grown, to) : grow_chains(chains, next, to)) ==
              cudaSuccess);
    } else {
      REQUIRE(draft_candidates(candidates, needs, to) == cudaSuccess);
      REQUIRE((last ? finish_growth(grow, depth, grown, to) : grow_level(grow, depth, next, to)) ==
              cudaSuccess);
    }
    if (!last && what.topk == 1) check_level(level, trees, states, max_depths, depth + 1);
  }
  const auto got_sizes = sizes.read(), got_tokens = out_tokens.read(),
             got_parents = out_parents.read(), got_depths = out_depths.read(),
             got_slots = out_slots.read(), got_sequence = out_sequence.read();
  for (std::size_t i = 0; i < sequences; ++i) {
    CAPTURE(i);
    const DraftTree& tree = trees[i];
    REQUIRE(got_sizes[i] == tree.size());
    for (int node = 0; node < rows_per_sequence; ++node) {
      CAPTURE(node);
      const auto row =
          i * static_cast<std::size_t>(rows_per_sequence) + static_cast<std::size_t>(node);
      CHECK(got_sequence[row] == (node < tree.size() ? static_cast<int>(i) : -1));
      if (node >= tree.size()) continue;
      const auto at = static_cast<std::size_t>(node);
      REQUIRE(got_tokens[row] == tree.tokens[at]);
      REQUIRE(got_parents[row] == tree.parents[at]);
      CHECK(got_depths[row] == tree.depths[at]);
      CHECK(got_slots[row] == slots[i][at]);
    }
  }
  check_target(target, trees, states, rows_per_sequence);
  for (const RowState& state : row_states.read())
    CHECK((state.best == 0 && state.flags == 0 && state.dense == 0 && state.arrived == 0));
}

}  // namespace

TEST_CASE("the device grows the trees that the host grows from the same logits") {
  const std::vector<SamplingOptions> sets = {
      {},
      {.temperature = 1.0f},
      {.temperature = 0.7f, .top_k = 50, .top_p = 0.9f},
      {.temperature = 1.2f, .top_p = 0.9f},
      {},
      {.temperature = 0.9f, .min_p = 0.05f},
      {.temperature = 2.5f, .top_p = 0.9999f},
      {.temperature = 0.8f, .top_k = 3},
      {.temperature = 30.0f},
      {},
  };
  for (const Case& what :
       {Case{300, 1, 5, 16, RowKind::plain}, Case{5000, 1, 7, 16, RowKind::flat},
        Case{300, 4, 4, 16, RowKind::plain}, Case{5000, 8, 5, 30, RowKind::plain},
        Case{2000, 10, 7, 60, RowKind::close}, Case{5000, 3, 4, 100, RowKind::ties},
        Case{5000, 12, 2, 20, RowKind::equal}, Case{257, 4, 5, 9, RowKind::masked},
        Case{257, 2, 3, 9, RowKind::single}, Case{49152, 4, 4, 16, RowKind::plain},
        Case{20000, 10, 3, 25, RowKind::flat}, Case{3000, 4, 5, 16, RowKind::plain, 0.3f},
        Case{3000, 2, 5, 16, RowKind::plain, kNever}}) {
    CAPTURE(what.vocab);
    CAPTURE(what.topk);
    CAPTURE(static_cast<int>(what.kind));
    check(what, sets);
  }
}

TEST_CASE("greedy chains grow by a launch a level") {
  const std::vector<SamplingOptions> greedy(7);
  for (const int vocab : {300, 8191, 8192, 8193, 49152})
    for (const RowKind kind : kRowKinds)
      for (const bool chains : {false, true}) {
        CAPTURE(vocab);
        CAPTURE(static_cast<int>(kind));
        CAPTURE(chains);
        check({vocab, 1, 4, 16, kind, 0, chains}, greedy);
        check({vocab, 1, 4, 16, kind, 0, chains, true}, greedy);
      }
}
