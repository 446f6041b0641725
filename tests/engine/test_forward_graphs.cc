#ifdef SPECDEC_HAS_CUDA

#include "engine/device_forward_graphs.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <cstring>
#include <memory>
#include <numeric>
#include <random>
#include <utility>
#include <vector>

#include "engine/micro_models.h"
#include "engine/model/eagle_source.h"
#include "engine/model/row_buffers.h"
#include "support/engine_runs.h"

// A model's passes by graphs, against the same passes launched op by op: logits, the whole pool and
// what taps see, bit for bit. What the pool holds is random, so that no pass has to fill it.

using namespace specdec;
using namespace specdec::testing;

namespace {

constexpr int kBlocks = 160;
constexpr int kBlockSize = 16;
constexpr int kMaxRows = 128;

bool no_device() { return test_device() != "cuda" || device_missing(); }

std::vector<std::pair<void*, std::size_t>> parts_of(const KvPoolStorage& pool) {
  std::vector<std::pair<void*, std::size_t>> all;
  for (int i = 0; i < pool.num_layers(); ++i) {
    const kernels::KvLayer& layer = pool.layer(i);
    const std::size_t bytes = static_cast<std::size_t>(kBlocks) * kBlockSize *
                              static_cast<std::size_t>(layer.num_kv_heads * layer.head_dim) *
                              kernels::kv_element_bytes(layer.type);
    all.emplace_back(layer.keys, bytes);
    all.emplace_back(layer.values, bytes);
  }
  return all;
}

KvPoolStorage random_pool(Backend& backend, const ModelConfig& config, kernels::DataType type) {
  KvPoolStorage pool(backend, config, kBlocks, kBlockSize, type);
  std::mt19937 random(3);
  const auto below = [&](unsigned n) { return static_cast<unsigned>(random() % n); };
  const bool floats = type == kernels::DataType::f32;
  for (const auto& [data, bytes] : parts_of(pool)) {
    std::vector<std::uint16_t> halves(bytes / 2);
    // Finite, of either type, sign and all: a float's lower half is free.
    for (std::size_t i = 0; i < halves.size(); ++i) {
      const unsigned size = floats ? 0x3c00U + below(0x37f) : 0x2000U + below(0x1c00);
      halves[i] = static_cast<std::uint16_t>(floats && i % 2 == 0 ? below(0x10000)
                                                                  : size | (below(2) << 15U));
    }
    backend.write(data, halves.data(), bytes, Stream{});
  }
  return pool;
}

std::vector<std::byte> contents(Backend& backend, const KvPoolStorage& pool) {
  std::vector<std::byte> all;
  for (const auto& [part, bytes] : parts_of(pool)) {
    const auto* data = static_cast<const std::byte*>(backend.read(part, bytes, Stream{}));
    all.insert(all.end(), data, data + bytes);
  }
  return all;
}

/// A model with a pool of its own.
struct Model {
  explicit Model(kernels::DataType kv_type = kernels::DataType::f16) {
    const auto source = open_model(micro_models().target);
    std::unique_ptr<Backend> any = make_backend(micro_config().backend);
    backend.reset(&dynamic_cast<CudaBackend&>(*any));
    any.release();
    transformer =
        std::make_unique<Transformer>(*backend, TransformerWeights(*backend, *source),
                                      random_pool(*backend, source->config(), kv_type), kMaxRows);
  }

  template <class Passes>
  ForwardGraphs& add_graphs_to(Passes& model, int most_shapes, int max_context) {
    auto made = std::make_unique<ForwardGraphs>(*backend, GraphedModel::of(model),
                                                ForwardGraphs::Options{.max_sequences = 8,
                                                                       .max_context = max_context,
                                                                       .block_size = kBlockSize,
                                                                       .most_shapes = most_shapes});
    ForwardGraphs& graphs = *made;
    model.set_graphs(std::move(made));
    return graphs;
  }
  ForwardGraphs& add_graphs(int most_shapes = 32, int max_context = 400) {
    return add_graphs_to(*transformer, most_shapes, max_context);
  }

  std::vector<std::byte> kv() const { return contents(*backend, transformer->pool()); }
  std::vector<float> run(const ForwardBatch& batch, HiddenStateTap* tap = nullptr) {
    const std::span<const float> logits = transformer->forward(batch, Stream{}, tap);
    return {logits.begin(), logits.end()};
  }

  std::unique_ptr<CudaBackend> backend;
  std::unique_ptr<Transformer> transformer;
};

bool same_bits(const std::vector<float>& a, const std::vector<float>& b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0;
}

/// What a step's sequences may be.
struct Kind {
  int sequences = 1;
  int nodes = 0;  // of a draft, at most; at least half of it
  int known = 1;  // rows before them, at most; the last is the root
  bool trees = false;
  int context = 40;  // at most
};

/// One step's batch of that kind, over blocks that no two sequences share. Owns its tables.
struct Step {
  ForwardBatch batch;
  std::vector<std::vector<BlockId>> tables;

  Step(const Kind& kind, std::mt19937& random) {
    const auto below = [&](int n) { return static_cast<int>(random() % static_cast<unsigned>(n)); };
    std::vector<BlockId> blocks(kBlocks);
    std::iota(blocks.begin(), blocks.end(), 0);
    std::shuffle(blocks.begin(), blocks.end(), random);
    const int each = kBlocks / kind.sequences;
    tables.reserve(static_cast<std::size_t>(kind.sequences));
    for (int i = 0; i < kind.sequences; ++i) {
      const auto begin = blocks.begin() + i * each;
      tables.emplace_back(begin, begin + each);
      const int context = below(kind.context + 1);
      const int known = 1 + below(kind.known);
      const int root = context + known - 1;
      const auto token = [&] { return static_cast<TokenId>(below(250)); };
      batch.begin_sequence(context, tables.back());
      for (int at = context; at <= root; ++at) batch.add_row(token(), at, at == root);
      const int nodes = kind.nodes - below(kind.nodes / 2 + 1);
      std::vector<std::vector<std::int32_t>> paths(1);  // slots from the context on
      for (int at = context; at <= root; ++at) paths[0].push_back(at);
      for (int node = 1; node <= nodes; ++node) {
        if (!kind.trees) {
          batch.add_row(token(), root + node, true);
          continue;
        }
        std::vector<std::int32_t> path = paths[static_cast<std::size_t>(below(node))];
        path.push_back(root + node + 2);  // a gap, as where drafts keep their slots
        batch.add_row(token(), context + static_cast<int>(path.size()) - 1, path, true);
        paths.push_back(std::move(path));
      }
    }
  }
};

/// A chain of `rows` behind `context` tokens, in the first blocks.
struct Chain {
  ForwardBatch batch;
  std::vector<BlockId> table = std::vector<BlockId>(64);

  Chain(int rows, int context, int seed) {
    std::iota(table.begin(), table.end(), 5);
    std::mt19937 random(static_cast<unsigned>(seed));
    batch.begin_sequence(context, table);
    for (int row = 0; row < rows; ++row)
      batch.add_row(static_cast<TokenId>(random() % 250), context + row, true);
  }
};

/// Keeps the input of one layer, at the rows that there are.
struct LayerTap final : HiddenStateTap {
  LayerTap(Backend& on, int wanted, int width)
      : backend(on), layer(wanted), hidden(width), kept(allocate_rows(on, kMaxRows, width)) {}

  void observe(int at, const float* x, int num_rows, Stream stream) override {
    if (at == layer)
      backend.copy_rows(
          {.num_rows = num_rows, .cols = hidden, .source = x, .destination = kept.as<float>()},
          stream);
  }
  std::vector<float> rows(int count) {
    const auto size = static_cast<std::size_t>(count) * static_cast<std::size_t>(hidden);
    const auto* data =
        static_cast<const float*>(backend.read(kept.as<void>(), size * sizeof(float), Stream{}));
    return {data, data + size};
  }

  Backend& backend;
  int layer;
  int hidden;
  DeviceBuffer kept;
};

/// Waits for the device in the midst of a pass, which a capture does not allow.
struct WaitingTap final : HiddenStateTap {
  explicit WaitingTap(Backend& on) : backend(on) {}
  void observe(int, const float* x, int, Stream stream) override {
    backend.read(x, sizeof(float), stream);
  }
  Backend& backend;
};

}  // namespace

TEST_CASE("passes by graphs have the bits of launched ones, in all that they write" *
          doctest::skip(no_device())) {
  const Kind kinds[] = {
      {},
      {.sequences = 5},
      {.nodes = 6},
      {.nodes = 6, .trees = true},
      {.sequences = 3, .nodes = 4, .known = 3},
      {.sequences = 4, .nodes = 5, .known = 2, .trees = true},
      {.sequences = 2, .nodes = 3, .trees = true, .context = 270},
  };
  for (const kernels::DataType type : {kernels::DataType::f16, kernels::DataType::f32}) {
    const bool floats = type == kernels::DataType::f32;
    CAPTURE(floats);
    Model plain(type);
    Model model(type);
    const ForwardGraphs& graphs = model.add_graphs();
    std::mt19937 random(1);
    const int rounds = floats ? 14 : 28;
    for (int round = 0; round < rounds; ++round) {
      CAPTURE(round);
      const Step step(kinds[static_cast<std::size_t>(round) % std::size(kinds)], random);
      CHECK(same_bits(plain.run(step.batch), model.run(step.batch)));
      if (round % 10 != 9) continue;
      // A prompt among them: launched, with scratch that is larger than what graphs have seen.
      Chain prompt(90 + round, 0, round);
      const std::int64_t before = graphs.num_runs();
      CHECK(same_bits(plain.run(prompt.batch), model.run(prompt.batch)));
      CHECK(graphs.num_runs() == before);
    }
    CHECK(plain.kv() == model.kv());
    CHECK(graphs.usable());
    CHECK(graphs.num_runs() > rounds / 3);
  }
}

TEST_CASE("shapes end where they should, and the pass there has the same bits" *
          doctest::skip(no_device())) {
  Model plain;
  Model model;
  const ForwardGraphs& graphs = model.add_graphs();
  struct Case {
    int rows;
    int context;
    int padded;  // 0: launched
    int max_context;
  };
  const Case cases[] = {{1, 30, 1, 256},   {2, 30, 2, 256},  {3, 30, 4, 256},  {5, 30, 8, 256},
                        {8, 248, 8, 256},  {8, 249, 8, 512}, {9, 30, 16, 256}, {17, 30, 24, 256},
                        {64, 30, 64, 256}, {65, 30, 0, 256}, {1, 255, 1, 256}, {1, 256, 1, 512},
                        {4, 508, 4, 512}};
  std::vector<std::optional<PassShape>> seen;
  for (const Case& each : cases) {
    CAPTURE(each.rows);
    CAPTURE(each.context);
    const Chain chain(each.rows, each.context, each.rows);
    const std::optional<PassShape> shape = graphs.shape_of(chain.batch.view(), nullptr);
    CHECK(shape.has_value() == (each.padded > 0));
    if (shape) {
      CHECK(shape->batch == kernels::cuda::BatchShape{.rows = each.padded,
                                                      .outputs = each.padded,
                                                      .sequences = 1,
                                                      .max_context = each.max_context,
                                                      .has_paths = false});
    }
    const std::int64_t before = graphs.num_runs();
    for (int time = 0; time < 2; ++time) {
      const Chain next(each.rows, each.context, 100 * time + each.rows);
      CHECK(same_bits(plain.run(next.batch), model.run(next.batch)));
    }
    // The first pass of a shape is launched.
    const bool is_new = std::find(seen.begin(), seen.end(), shape) == seen.end();
    CHECK(graphs.num_runs() == before + (!shape ? 0 : is_new ? 1 : 2));
    seen.push_back(shape);
  }
  CHECK(plain.kv() == model.kv());

  // A slot, or a path's, further than all positions.
  for (const bool own : {true, false}) {
    CAPTURE(own);
    const std::vector<BlockId> table(kBlocks, 3);
    ForwardBatch batch;
    batch.begin_sequence(10, table);
    batch.add_row(1, 10, std::vector<std::int32_t>{own ? 256 : 10}, true);
    if (!own) batch.add_row(2, 11, std::vector<std::int32_t>{256, 11}, true);
    const std::optional<PassShape> shape = graphs.shape_of(batch.view(), nullptr);
    REQUIRE(shape);
    CHECK(shape->batch.max_context == 512);
    CHECK(shape->batch.has_paths);
  }
  // Beyond what buffers are made for: sequences of 150 tokens, and their trees.
  const ForwardGraphs& shorter = model.add_graphs(32, 150);
  CHECK(shorter.shape_of(Chain(1, 255, 1).batch.view(), nullptr).has_value());
  CHECK_FALSE(shorter.shape_of(Chain(1, 256, 1).batch.view(), nullptr).has_value());
  // Rows of a prompt want no logits: some of a tile's, or fewer than half.
  const auto served = [&](int rows, int wanting) {
    const std::vector<BlockId> table(kBlocks, 3);
    ForwardBatch batch;
    batch.begin_sequence(0, table);
    for (int row = 0; row < rows; ++row) batch.add_row(1, row, row >= rows - wanting);
    return shorter.shape_of(batch.view(), nullptr).has_value();
  };
  CHECK(served(8, 1));
  CHECK_FALSE(served(8, 0));
  CHECK(served(9, 5));
  CHECK_FALSE(served(9, 4));
  CHECK_FALSE(shorter.shape_of(ForwardBatch().view(), nullptr).has_value());
}

TEST_CASE("a bounded number of graphs is kept, and one that went comes back" *
          doctest::skip(no_device())) {
  Model plain;
  Model model;
  const ForwardGraphs& graphs = model.add_graphs(2);
  const auto run = [&](int rows, int seed) {
    const Chain chain(rows, 20, seed);
    const std::int64_t before = graphs.num_runs();
    CHECK(same_bits(plain.run(chain.batch), model.run(chain.batch)));
    return graphs.num_runs() > before;  // by a graph
  };
  CHECK_FALSE(run(1, 1));
  CHECK(run(1, 2));
  CHECK(run(1, 3));
  CHECK_FALSE(run(4, 4));
  CHECK(run(3, 5));  // of the same shape
  CHECK(graphs.num_graphs() == 2);
  CHECK(run(1, 6));
  CHECK_FALSE(run(2, 7));  // in the place of four rows, which were used less recently
  CHECK(graphs.num_graphs() == 1);
  CHECK(run(1, 8));
  CHECK_FALSE(run(4, 9));  // in the place of two
  CHECK(run(4, 10));
  CHECK(run(1, 11));
  CHECK(graphs.num_graphs() == 2);
  CHECK(plain.kv() == model.kv());
}

TEST_CASE("what a tap sees is what it sees of a launched pass" * doctest::skip(no_device())) {
  Model plain;
  Model model;
  const ForwardGraphs& graphs = model.add_graphs();
  const int hidden = plain.transformer->config().hidden_size;
  LayerTap expected(*plain.backend, 3, hidden);
  LayerTap actual(*model.backend, 3, hidden);
  LayerTap other(*model.backend, 5, hidden);
  for (int round = 0; round < 4; ++round) {
    CAPTURE(round);
    const Chain chain(3, 20 + round, round);
    const std::vector<float> logits = plain.run(chain.batch, &expected);
    CHECK(same_bits(logits, model.run(chain.batch, &actual)));
    CHECK(same_bits(expected.rows(3), actual.rows(3)));
    // A pass without it leaves what it saw alone, and so does one for another.
    const Chain next(4, 30, round);
    model.run(next.batch);
    model.run(next.batch, &other);
    CHECK(same_bits(expected.rows(3), actual.rows(3)));
  }
  CHECK(graphs.num_runs() == 9);
  CHECK(graphs.num_graphs() == 3);
}

TEST_CASE("an EAGLE head's passes by graphs have the bits of launched ones" *
          doctest::skip(no_device())) {
  Model model;
  const auto source =
      open_eagle_head(micro_models().eagle, model.transformer->config(), HeadWeights::as_stored);
  const auto make_head = [&] {
    return EagleHead(*model.backend, *source, model.transformer->embedding(),
                     random_pool(*model.backend, source->layer, kernels::DataType::f16), kMaxRows);
  };
  EagleHead plain = make_head();
  EagleHead head = make_head();
  const ForwardGraphs& graphs = model.add_graphs_to(head, 32, 400);
  std::mt19937 random(4);
  for (int round = 0; round < 12; ++round) {
    CAPTURE(round);
    const int rows = 1 + round % 4;
    const Chain chain(rows, round % 2 == 0 ? 30 : 300, round);  // angles of either are new
    std::vector<float> hidden(static_cast<std::size_t>(rows * head.hidden_size()));
    for (float& value : hidden) value = static_cast<float>(random() % 1000) * 1e-3f - 0.5f;
    std::vector<float> results[2];
    for (EagleHead* each : {&plain, &head}) {
      const std::size_t bytes = hidden.size() * sizeof(float);
      model.backend->write(each->hidden(), hidden.data(), bytes, Stream{});
      const std::span<const float> logits = each->forward(chain.batch, Stream{});
      std::vector<float>& result = results[each == &head];
      result.assign(logits.begin(), logits.end());
      const auto* left =
          static_cast<const float*>(model.backend->read(each->hidden(), bytes, Stream{}));
      result.insert(result.end(), left, left + hidden.size());
    }
    CHECK(same_bits(results[0], results[1]));
  }
  CHECK(contents(*model.backend, plain.pool()) == contents(*model.backend, head.pool()));
  CHECK(graphs.num_runs() > 4);
}

TEST_CASE("graphs captured ahead serve the first step, and leave the pool alone" *
          doctest::skip(no_device())) {
  Model plain;
  Model model;
  ForwardGraphs& graphs = model.add_graphs();
  const int rows[] = {1, 6, 200};
  graphs.warm_up(rows, false, nullptr);
  CHECK(graphs.num_graphs() == 2);
  CHECK(graphs.num_runs() == 0);
  CHECK(plain.kv() == model.kv());
  const Chain chain(7, 30, 1);
  CHECK(same_bits(plain.run(chain.batch), model.run(chain.batch)));
  CHECK(graphs.num_runs() == 1);
}

TEST_CASE("where a capture fails, passes are launched from then on" * doctest::skip(no_device())) {
  Model plain;
  Model model;
  const ForwardGraphs& graphs = model.add_graphs();
  WaitingTap waiting(*model.backend);
  const Chain chain(3, 20, 1);
  const std::vector<float> expected = plain.run(chain.batch);
  for (int time = 0; time < 3; ++time) {
    CAPTURE(time);
    CHECK(graphs.usable() == (time < 2));
    CHECK(same_bits(expected, model.run(chain.batch, &waiting)));
  }
  for (int time = 0; time < 3; ++time) CHECK(same_bits(expected, model.run(chain.batch)));
  CHECK_FALSE(graphs.usable());
  CHECK(graphs.num_runs() == 0);
  CHECK(plain.kv() == model.kv());
}

#endif
