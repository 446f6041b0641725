#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <set>
#include <vector>

#include "draft/model_drafter.h"

using namespace specdec;

namespace {

constexpr int kVocab = 24;

/// A draft model whose logits are a hash of the whole path. It keeps what a KV cache would: per
/// (sequence, slot) the token and position written there, and computes each row from what its
/// path's slots hold, so that a stale, missing or misplaced slot changes its answer.
class PathModel final : public DraftModel {
 public:
  explicit PathModel(int max_rows = 64) : max_rows_(max_rows) {}

  int vocab_size() const override { return kVocab; }
  int max_rows() const override { return max_rows_; }
  int max_position() const override { return 1000; }

  static std::vector<float> logits_of(const std::vector<TokenId>& path) {
    std::uint64_t state = 88172645463325252ULL;
    for (const TokenId token : path)
      state = (state ^ static_cast<std::uint64_t>(token + 1)) * 0x9E3779B97F4A7C15ULL;
    std::vector<float> logits(kVocab);
    for (float& logit : logits) {
      state ^= state >> 29U;
      state *= 0xBF58476D1CE4E5B9ULL;
      state ^= state >> 32U;
      logit = static_cast<float>(state % 10007) / 1500.0f;
    }
    return logits;
  }

  std::span<const float> forward(std::span<const DraftRows> batch) override {
    logits_.clear();
    int rows = 0;
    for (const DraftRows& group : batch) {
      auto& cache = cache_[group.sequence];
      for (const DraftRow& row : group.rows) {
        ++rows;
        std::vector<std::int32_t> slots = {};
        for (int t = 0; t < group.context_len; ++t) slots.push_back(t);
        if (row.path_slots.empty())
          for (int t = group.context_len; t <= row.position; ++t) slots.push_back(t);
        else
          slots.insert(slots.end(), row.path_slots.begin(), row.path_slots.end());
        REQUIRE(static_cast<int>(slots.size()) == row.position + 1);
        cache[slots.back()] = {row.token, row.position};
        std::vector<TokenId> path;
        for (std::size_t t = 0; t < slots.size(); ++t) {
          REQUIRE(cache.contains(slots[t]));
          REQUIRE(cache[slots[t]].second == static_cast<int>(t));
          path.push_back(cache[slots[t]].first);
        }
        if (!row.wants_logits) continue;
        const std::vector<float> logits = logits_of(path);
        logits_.insert(logits_.end(), logits.begin(), logits.end());
      }
    }
    REQUIRE(rows <= max_rows_);
    ++num_passes;
    return logits_;
  }

  int num_passes = 0;

 private:
  int max_rows_;
  std::map<int, std::map<std::int32_t, std::pair<TokenId, int>>> cache_;
  std::vector<float> logits_;
};

std::vector<TokenId> path_of(const std::vector<TokenId>& tokens, const DraftTree& tree, int node) {
  std::vector<TokenId> path = tokens;
  for (const std::int32_t at : tree.path_to(node))
    if (at != 0) path.push_back(tree.tokens[static_cast<std::size_t>(at)]);
  return path;
}

std::vector<TokenId> best_tokens(const std::vector<float>& logits, int k) {
  std::vector<TokenId> order(logits.size());
  for (std::size_t i = 0; i < order.size(); ++i) order[i] = static_cast<TokenId>(i);
  std::stable_sort(order.begin(), order.end(), [&](TokenId a, TokenId b) {
    return logits[static_cast<std::size_t>(a)] > logits[static_cast<std::size_t>(b)];
  });
  order.resize(static_cast<std::size_t>(k));
  return order;
}

struct Draft {
  std::vector<TokenId> tokens;
  SamplingOptions sampling = {};
  PenaltyState penalties = {};
  DraftTree tree{0};
  std::vector<std::int32_t> slots = {};

  ModelDraftSequence view(int max_depth, int max_nodes, int draft_length = 0) {
    tree.reset(tokens.back());
    return {.tokens = tokens,
            .draft_length = draft_length,
            .max_depth = max_depth,
            .max_nodes = max_nodes,
            .row = {.options = &sampling,
                    .seed = 5,
                    .position = static_cast<std::int64_t>(tokens.size()),
                    .penalties = &penalties,
                    .path = {},
                    .num_output_tokens = 0,
                    .end_tokens = {}},
            .tree = &tree,
            .draft_slots = &slots};
  }
};

}  // namespace

TEST_CASE("a greedy chain holds the model's best token at every depth") {
  PathModel model;
  kernels::SerialExecutor executor;
  ModelDrafter drafter(model, executor, {.topk = 1});
  Draft draft{.tokens = {3, 1, 4, 1, 5}};
  std::vector<ModelDraftSequence> sequences = {draft.view(6, drafter.max_nodes(6))};
  drafter.propose(sequences);

  REQUIRE(draft.tree.size() == 7);
  CHECK(draft.tree.is_chain());
  CHECK(model.num_passes == 6);
  std::vector<TokenId> path = draft.tokens;
  for (int node = 1; node < draft.tree.size(); ++node) {
    const TokenId best = best_tokens(PathModel::logits_of(path), 1).front();
    CHECK(draft.tree.tokens[static_cast<std::size_t>(node)] == best);
    path.push_back(best);
    // Every node but the last has been run: its KV lies at its position.
    CHECK(draft.slots[static_cast<std::size_t>(node)] == (node == 6 ? -1 : 4 + node));
  }
}

TEST_CASE("a tree holds each node's best children, best survival first, within its budget") {
  PathModel model;
  kernels::SerialExecutor executor;
  ModelDrafter drafter(model, executor, {.topk = 3, .num_draft_tokens = 11});
  Draft draft{.tokens = {7, 2}};
  std::vector<ModelDraftSequence> sequences = {draft.view(4, drafter.max_nodes(4))};
  drafter.propose(sequences);

  CHECK(draft.tree.num_draft_tokens() == 11);
  CHECK(draft.tree.max_depth() <= 4);
  CHECK(draft.slots.size() == static_cast<std::size_t>(draft.tree.size()));
  std::set<std::int32_t> used;
  for (int node = 0; node < draft.tree.size(); ++node) {
    const int slot = draft.slots[static_cast<std::size_t>(node)];
    if (slot >= 0) {
      CHECK(used.insert(slot).second);
      CHECK(slot < 1 + drafter.slots_needed(4));
    }
    if (node == 0) continue;
    const int parent = draft.tree.parents[static_cast<std::size_t>(node)];
    CHECK(parent < node);
    const auto best =
        best_tokens(PathModel::logits_of(path_of(draft.tokens, draft.tree, parent)), 3);
    CHECK(std::count(best.begin(), best.end(), draft.tree.tokens[static_cast<std::size_t>(node)]) ==
          1);
  }
  // The root's best child survives any cut.
  CHECK(draft.tree.find_child(0, best_tokens(PathModel::logits_of(draft.tokens), 1).front()) > 0);
}

TEST_CASE("several sequences in lockstep draft what each would alone") {
  kernels::SerialExecutor executor;
  const std::vector<std::vector<TokenId>> prompts = {{1}, {2, 3, 4, 5, 6, 7, 8, 9}, {11, 12, 13}};
  for (const int topk : {1, 3}) {
    const ModelDrafterOptions options{.topk = topk, .num_draft_tokens = 9};
    std::vector<Draft> together(prompts.size());
    PathModel shared(40);
    ModelDrafter drafter(shared, executor, options);
    std::vector<ModelDraftSequence> sequences;
    for (std::size_t i = 0; i < prompts.size(); ++i) {
      together[i].tokens = prompts[i];
      const int depth = 2 + static_cast<int>(i);
      sequences.push_back(together[i].view(depth, drafter.max_nodes(depth)));
    }
    drafter.propose(sequences);
    for (std::size_t i = 0; i < prompts.size(); ++i) {
      PathModel own;
      ModelDrafter alone(own, executor, options);
      Draft draft{.tokens = prompts[i]};
      const int depth = 2 + static_cast<int>(i);
      std::vector<ModelDraftSequence> one = {draft.view(depth, alone.max_nodes(depth))};
      alone.propose(one);
      CHECK(draft.tree.tokens == together[i].tree.tokens);
      CHECK(draft.tree.parents == together[i].tree.parents);
      CHECK(draft.slots == together[i].slots);
    }
  }
}

TEST_CASE("catching up is cut to what a pass can hold, and changes nothing") {
  kernels::SerialExecutor executor;
  std::vector<TokenId> tokens;
  for (int i = 0; i < 50; ++i) tokens.push_back(static_cast<TokenId>(i * 7 % kVocab));
  PathModel wide(64);
  PathModel narrow(8);
  Draft expected{.tokens = tokens};
  Draft actual{.tokens = tokens};
  ModelDrafter a(wide, executor, {.topk = 1});
  ModelDrafter b(narrow, executor, {.topk = 1});
  std::vector<ModelDraftSequence> one = {expected.view(4, 4)};
  a.propose(one);
  std::vector<ModelDraftSequence> two = {actual.view(4, 4)};
  b.propose(two);
  CHECK(expected.tree.tokens == actual.tree.tokens);
}

TEST_CASE("a drawn draft keeps every token that it drew, with its exact distribution") {
  kernels::SerialExecutor executor;
  for (const int topk : {1, 3}) {
    PathModel model;
    ModelDrafter drafter(model, executor, {.topk = topk, .num_draft_tokens = 10, .sampled = true});
    Draft draft{.tokens = {9, 8}};
    draft.sampling.temperature = 1.0f;
    std::vector<ModelDraftSequence> sequences = {draft.view(4, drafter.max_nodes(4))};
    drafter.propose(sequences);
    const DraftTree& tree = draft.tree;
    CHECK(tree.num_draft_tokens() == (topk == 1 ? 4 : 10));
    CHECK(tree.sampling ==
          (topk == 1 ? DraftSampling::with_replacement : DraftSampling::without_replacement));
    REQUIRE(tree.draft_probs.size() == static_cast<std::size_t>(tree.size()));
    RowSampler sampler(kVocab);
    std::vector<float> expected(kVocab);
    for (int node = 1; node < tree.size(); ++node) {
      const int parent = tree.parents[static_cast<std::size_t>(node)];
      const std::vector<float>& probs = tree.draft_probs[static_cast<std::size_t>(parent)];
      REQUIRE(probs.size() == static_cast<std::size_t>(kVocab));
      CHECK(probs[static_cast<std::size_t>(tree.tokens[static_cast<std::size_t>(node)])] > 0);
      const std::vector<TokenId> path = path_of(draft.tokens, tree, parent);
      sampler.probabilities(PathModel::logits_of(path), sequences[0].row, expected);
      CHECK(probs == expected);
    }
  }
}

TEST_CASE("low confidence ends a draft by the shape of the distribution alone") {
  PathModel model;
  kernels::SerialExecutor executor;
  ModelDrafter drafter(model, executor, {.topk = 1, .min_confidence = 1.1f});
  Draft draft{.tokens = {1, 2, 3}};
  std::vector<ModelDraftSequence> sequences = {draft.view(5, 5)};
  drafter.propose(sequences);
  CHECK(draft.tree.num_draft_tokens() == 0);
  CHECK(model.num_passes == 1);
}

TEST_CASE("a static tree holds the ranks that it names, whatever the model is sure of") {
  kernels::SerialExecutor executor;
  const std::vector<std::string> paths = {"0", "2", "0.1", "2.0", "2.3", "0.1.0"};
  const StaticTree shape = StaticTree::parse(paths);
  for (const int depth : {3, 2}) {
    PathModel model;
    ModelDrafter drafter(model, executor, {.topk = 1, .shape = shape});
    CHECK(drafter.max_nodes(depth) == (depth == 3 ? 6 : 5));
    Draft draft{.tokens = {7, 2}};
    std::vector<ModelDraftSequence> sequences = {draft.view(depth, drafter.max_nodes(depth))};
    drafter.propose(sequences);
    const DraftTree& tree = draft.tree;
    REQUIRE(tree.num_draft_tokens() == drafter.max_nodes(depth));
    CHECK(model.num_passes == depth);
    for (int node = 1; node < tree.size(); ++node) {
      CAPTURE(node);
      const StaticTree::Node& from = shape.nodes[static_cast<std::size_t>(node)];
      REQUIRE(tree.parents[static_cast<std::size_t>(node)] == from.parent);
      const std::vector<TokenId> above = path_of(draft.tokens, tree, from.parent);
      CHECK(tree.tokens[static_cast<std::size_t>(node)] ==
            best_tokens(PathModel::logits_of(above), from.rank + 1).back());
      CHECK(draft.slots[static_cast<std::size_t>(node)] < 1 + drafter.slots_needed(depth));
    }
  }
}

TEST_CASE("a drawn static tree draws as many children as it names") {
  kernels::SerialExecutor executor;
  const std::vector<std::string> paths = {"0", "1", "2", "0.0", "1.0", "1.1"};
  PathModel model;
  ModelDrafter drafter(model, executor,
                       {.topk = 1, .sampled = true, .shape = StaticTree::parse(paths)});
  Draft draft{.tokens = {9, 8}};
  draft.sampling.temperature = 1.0f;
  std::vector<ModelDraftSequence> sequences = {draft.view(4, drafter.max_nodes(4))};
  drafter.propose(sequences);
  CHECK(draft.tree.parents == std::vector<std::int32_t>{-1, 0, 0, 0, 1, 2, 2});
  CHECK(draft.tree.sampling == DraftSampling::without_replacement);
}
