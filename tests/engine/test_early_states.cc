#include <doctest/doctest.h>

#include <algorithm>
#include <cstring>
#include <memory>
#include <random>
#include <vector>

#include "engine/early_exit.h"
#include "engine/micro_models.h"
#include "engine/model/row_buffers.h"

// A pass that goes on from what drafts have run, against one over all rows and layers: the same
// logits and the same KV, bit for bit, whatever the drafts have run.

using namespace specdec;
using namespace specdec::testing;

namespace {

constexpr int kBlocks = 16;
constexpr int kBlockSize = 16;
constexpr int kMaxRows = 64;

/// A target with its early exit and a cache of its own.
struct Target {
  explicit Target(int exit_layer) {
    const auto source = open_model(micro_models().target);
    const Config config = micro_config();
    backend = make_backend(config.backend);
    const auto type =
        config.kv_cache.type == "f32" ? kernels::DataType::f32 : kernels::DataType::f16;
    transformer = std::make_unique<Transformer>(
        *backend, TransformerWeights(*backend, *source),
        KvPoolStorage(*backend, source->config(), kBlocks, kBlockSize, type), kMaxRows);
    adapter = std::make_unique<EarlyExitAdapter>(*backend, *transformer, exit_layer, 200);
  }

  std::vector<std::byte> kv() const {
    std::vector<std::byte> all;
    for (int i = 0; i < transformer->pool().num_layers(); ++i) {
      const kernels::KvLayer& layer = transformer->pool().layer(i);
      const std::size_t bytes = static_cast<std::size_t>(kBlocks) * kBlockSize *
                                static_cast<std::size_t>(layer.num_kv_heads * layer.head_dim) *
                                kernels::kv_element_bytes(layer.type);
      for (const void* part : {layer.keys, layer.values}) {
        const auto* data = static_cast<const std::byte*>(backend->read(part, bytes, Stream{}));
        all.insert(all.end(), data, data + bytes);
      }
    }
    return all;
  }

  std::unique_ptr<Backend> backend;
  std::unique_ptr<Transformer> transformer;
  std::unique_ptr<EarlyExitAdapter> adapter;
};

/// What a draft has grown below the last token of a sequence: parents before children.
struct Node {
  TokenId token = 0;
  int parent = -1;
  int depth = 0;
  int slot = -1;  // -1: not run
};

/// One sequence of a step: with a draft, or with the rest of its prompt.
struct Part {
  Sequence sequence;
  int context = 0;  // tokens whose KV is there
  std::vector<Node> nodes;
  std::vector<bool> kept;  // [nodes] verified

  std::vector<std::int32_t> path(int node, int begin) const {
    std::vector<std::int32_t> slots;
    for (; node >= 0; node = nodes[static_cast<std::size_t>(node)].parent)
      slots.push_back(nodes[static_cast<std::size_t>(node)].slot);
    std::reverse(slots.begin(), slots.end());
    slots.erase(slots.begin(), slots.begin() + begin);
    return slots;
  }
};

/// Grows a random draft of `levels` levels; the nodes of the deepest and some others are not run.
void grow(Part& part, int levels, std::mt19937& random) {
  const int root_slot = part.sequence.size() - 1;
  part.nodes = {{.token = part.sequence.tokens.back(), .slot = root_slot}};
  int next_slot = root_slot + 1;
  for (int depth = 1; depth <= levels; ++depth) {
    std::vector<int> frontier;
    for (std::size_t i = 0; i < part.nodes.size(); ++i)
      if (part.nodes[i].depth == depth - 1 && part.nodes[i].slot >= 0)
        frontier.push_back(static_cast<int>(i));
    for (const int parent : frontier)
      for (unsigned child = 0; child <= random() % 3; ++child)
        part.nodes.push_back(
            {.token = static_cast<TokenId>(random() % 250), .parent = parent, .depth = depth});
    if (depth == levels) break;
    // The best of a level come in another order than the nodes.
    std::vector<std::size_t> level;
    for (std::size_t i = 0; i < part.nodes.size(); ++i)
      if (part.nodes[i].depth == depth) level.push_back(i);
    std::shuffle(level.begin(), level.end(), random);
    for (std::size_t i = 0; i < std::min<std::size_t>(3, level.size()); ++i)
      part.nodes[level[i]].slot = next_slot++;
  }
}

/// Draws which nodes are verified, and gives those that were not run slots behind all others.
void choose(Part& part, bool all, std::mt19937& random) {
  part.kept.assign(part.nodes.size(), true);
  int last = 0;
  for (const Node& node : part.nodes) last = std::max(last, node.slot);
  for (std::size_t i = 1; i < part.nodes.size(); ++i) {
    Node& node = part.nodes[i];
    part.kept[i] = part.kept[static_cast<std::size_t>(node.parent)] && (all || random() % 4 != 0);
    if (part.kept[i] && node.slot < 0) node.slot = ++last;
  }
}

/// The draft's passes, level by level, as ModelDrafter makes them.
void draft(Target& target, std::vector<Part>& parts) {
  std::vector<Sequence*> sequences;
  std::vector<const Part*> drafting;
  for (Part& part : parts) {
    if (part.nodes.empty()) continue;
    sequences.push_back(&part.sequence);
    drafting.push_back(&part);
  }
  target.adapter->begin(sequences);
  for (int depth = 0;; ++depth) {
    std::vector<DraftRows> batch;
    for (std::size_t i = 0; i < drafting.size(); ++i) {
      const Part& part = *drafting[i];
      const int root_slot = part.sequence.size() - 1;
      DraftRows rows{.sequence = static_cast<int>(i),
                     .context_len = depth == 0 ? root_slot : root_slot + 1,
                     .rows = {}};
      std::vector<std::pair<int, int>> level;  // (slot, node): in the order in which they run
      for (std::size_t node = 0; node < part.nodes.size(); ++node)
        if (part.nodes[node].depth == depth && part.nodes[node].slot >= 0)
          level.emplace_back(part.nodes[node].slot, static_cast<int>(node));
      std::sort(level.begin(), level.end());
      for (const auto& [slot, node] : level)
        rows.rows.push_back(
            {.token = part.nodes[static_cast<std::size_t>(node)].token,
             .position = root_slot + depth,
             .path_slots = depth == 0 ? std::vector<std::int32_t>() : part.path(node, 1),
             .wants_logits = true});
      if (!rows.rows.empty()) batch.push_back(std::move(rows));
    }
    if (batch.empty()) break;
    target.adapter->forward(batch);
  }
}

struct Pass {
  ForwardBatch batch;
  std::vector<std::pair<std::size_t, int>> slots;  // of each row: (part, slot from the root's on)
};

Pass verification(const std::vector<Part>& parts) {
  Pass pass;
  for (std::size_t i = 0; i < parts.size(); ++i) {
    const Part& part = parts[i];
    const int root_slot = part.sequence.size() - 1;
    pass.batch.begin_sequence(part.context, part.sequence.kv.block_table());
    for (int at = part.context; at <= root_slot; ++at) {
      pass.batch.add_row(part.sequence.tokens[static_cast<std::size_t>(at)], at, at == root_slot);
      pass.slots.emplace_back(i, at - root_slot);
    }
    for (std::size_t node = 1; node < part.nodes.size(); ++node) {
      if (!part.kept[node]) continue;
      pass.batch.add_row(part.nodes[node].token, root_slot + part.nodes[node].depth,
                         part.path(static_cast<int>(node), 0), true);
      pass.slots.emplace_back(i, part.nodes[node].slot - root_slot);
    }
  }
  return pass;
}

}  // namespace

TEST_CASE("verification that goes on from a draft's rows has the bits of one that runs them all") {
  for (const int exit_layer : {1, 3}) {
    Target whole(exit_layer);
    Target split(exit_layer);
    std::mt19937 random(static_cast<unsigned>(exit_layer));
    int resumed = 0;
    int others = 0;
    for (int round = 0; round < 60; ++round) {
      CAPTURE(exit_layer);
      CAPTURE(round);
      KvCacheManager cache(
          {.num_blocks = kBlocks, .block_size = kBlockSize, .prefix_cache = false});
      std::vector<Part> parts(3);
      std::vector<KvReservation> reservations;
      for (Part& part : parts) {
        const int length = 2 + static_cast<int>(random() % 36);
        for (int i = 0; i < length; ++i)
          part.sequence.tokens.push_back(static_cast<TokenId>(random() % 250));
        part.sequence.kv = cache.open(part.sequence.tokens, "");
        reservations.push_back(cache.reserve(part.sequence.kv, length + 32));
        REQUIRE(reservations.back().valid());
        part.context = length - 1;
        if (random() % 3 == 0)
          part.context = static_cast<int>(random() % static_cast<unsigned>(length));
        else
          grow(part, 1 + static_cast<int>(random() % 3), random);
      }
      // Contexts first; then the draft, which is free to run more than is verified.
      for (Target* target : {&whole, &split}) {
        for (Part& part : parts) {
          ForwardBatch batch;
          batch.begin_sequence(0, part.sequence.kv.block_table());
          for (int at = 0; at < part.context; ++at)
            batch.add_row(part.sequence.tokens[static_cast<std::size_t>(at)], at, false);
          if (part.context > 0) target->transformer->forward(batch, Stream{});
        }
        draft(*target, parts);
      }
      for (Part& part : parts) choose(part, round % 3 == 0, random);

      const Pass pass = verification(parts);
      std::vector<std::int32_t> states;
      std::vector<std::size_t> index(parts.size());  // of a part among those that draft
      for (std::size_t i = 1; i < parts.size(); ++i)
        index[i] = index[i - 1] + (parts[i - 1].nodes.empty() ? 0 : 1);
      for (const auto& [part, offset] : pass.slots) {
        std::int32_t state = -1;
        if (!parts[part].nodes.empty()) {
          const auto rows = split.adapter->states(index[part]);
          if (offset >= 0 && offset < static_cast<int>(rows.size()))
            state = rows[static_cast<std::size_t>(offset)];
        }
        states.push_back(state);
        ++(state >= 0 ? resumed : others);
      }
      const std::span<const float> expected = whole.transformer->forward(pass.batch, Stream{});
      const std::span<const float> actual =
          read_rows(*split.backend, split.adapter->verify(pass.batch, states), Stream{});
      REQUIRE(expected.size() == actual.size());
      CHECK(std::memcmp(expected.data(), actual.data(), expected.size_bytes()) == 0);
      CHECK(whole.kv() == split.kv());
    }
    CHECK(resumed > 200);
    CHECK(others > 200);
  }
}
