#include "kernels/cuda/step/commit.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <cstring>
#include <random>

#include "batch.h"
#include "device_array.h"

using namespace specdec;
using namespace specdec::cuda_test;
using namespace specdec::kernels::cuda;

namespace {

/// A pool of random bytes on the host and on the device.
template <typename Element>
struct TestPool {
  int layers, heads, dims, block_size, blocks;
  bool positions_adjacent_in_keys;         // the CPU's layout; the GPU's is the other way round
  std::vector<std::vector<Element>> host;  // [layers * 2]
  std::vector<DeviceArray<Element>> device;
  DeviceArray<void*> key_pointers, value_pointers;

  TestPool(int layers_, int heads_, int dims_, int block_size_, int blocks_, bool cpu_layout,
           std::mt19937_64& random)
      : layers(layers_),
        heads(heads_),
        dims(dims_),
        block_size(block_size_),
        blocks(blocks_),
        positions_adjacent_in_keys(cpu_layout) {
    std::vector<void*> keys, values;
    for (int i = 0; i < 2 * layers; ++i) {
      std::vector<Element> data(static_cast<std::size_t>(blocks * heads * dims * block_size));
      for (Element& element : data) element = static_cast<Element>(random());
      host.push_back(data);
      device.emplace_back(data);
      (i % 2 == 0 ? keys : values).push_back(device.back().get());
    }
    key_pointers = DeviceArray<void*>(keys);
    value_pointers = DeviceArray<void*>(values);
  }
  bool positions_adjacent(bool is_keys) const { return is_keys == positions_adjacent_in_keys; }
  KvHalf half(bool is_keys) const {
    const bool adjacent = positions_adjacent(is_keys);
    return {.layers = is_keys ? key_pointers.get() : value_pointers.get(),
            .block_stride = static_cast<std::int64_t>(heads) * dims * block_size,
            .head_stride = static_cast<std::int64_t>(dims) * block_size,
            .dim_stride = adjacent ? block_size : 1,
            .position_stride = adjacent ? 1 : dims};
  }
  KvPoolView view() const {
    return {.num_layers = layers,
            .num_kv_heads = heads,
            .head_dim = dims,
            .block_size = block_size,
            .element_bytes = sizeof(Element),
            .keys = half(true),
            .values = half(false)};
  }
  void move(std::span<const std::int32_t> table, int source, int destination) {
    for (int i = 0; i < 2 * layers; ++i)
      for (int head = 0; head < heads; ++head)
        for (int dim = 0; dim < dims; ++dim) {
          const KvHalf strides = half(i % 2 == 0);
          const auto at = [&](int slot) {
            return static_cast<std::size_t>(table[static_cast<std::size_t>(slot / block_size)] *
                                                strides.block_stride +
                                            head * strides.head_stride + dim * strides.dim_stride +
                                            slot % block_size * strides.position_stride);
          };
          auto& data = host[static_cast<std::size_t>(i)];
          data[at(destination)] = data[at(source)];
        }
  }
  void check() const {
    for (std::size_t i = 0; i < host.size(); ++i) CHECK(device[i].read() == host[i]);
  }
};

}  // namespace

TEST_CASE("commit moves the accepted nodes' KV of both pools and touches nothing else") {
  std::mt19937_64 random(11);
  for (int round = 0; round < 12; ++round) {
    CAPTURE(round);
    const bool cpu_layout = round % 2 == 0;
    const int sequences = 1 + round % 5;
    constexpr int kBlock = 8;
    constexpr int kTable = 12;
    constexpr int kCapacity = 24;
    TestPool<std::uint16_t> target(3, 2, 16, kBlock, kTable * sequences, cpu_layout, random);
    TestPool<std::uint32_t> draft(2, 1, 12, kBlock, kTable * sequences, !cpu_layout, random);
    std::vector<std::int32_t> tables(static_cast<std::size_t>(kTable * sequences));
    for (std::size_t i = 0; i < tables.size(); ++i) tables[i] = static_cast<std::int32_t>(i);
    std::shuffle(tables.begin(), tables.end(), random);

    std::vector<SequenceState> states;
    std::vector<std::int32_t> first_rows, draft_slots, lengths, nodes, tokens;
    for (int i = 0; i < sequences; ++i) {
      const int length = 1 + static_cast<int>(random() % 40);
      states.push_back({length, 0});
      first_rows.push_back(static_cast<std::int32_t>(draft_slots.size()));
      // A path of ascending nodes in a tree of up to 50 nodes; draft slots ascend along it.
      const int accepted = static_cast<int>(random() % (kCapacity - 1));
      std::vector<std::int32_t> path{0};
      for (int j = 0; j < accepted; ++j)
        path.push_back(path.back() + 1 + static_cast<int>(random() % 2));
      std::vector<std::int32_t> slots(50, -1);
      slots[0] = length - 1;
      const int run = static_cast<int>(random() % static_cast<unsigned>(accepted + 1));
      for (int j = 1; j <= run; ++j) {
        const auto last = slots[static_cast<std::size_t>(path[static_cast<std::size_t>(j) - 1])];
        slots[static_cast<std::size_t>(path[static_cast<std::size_t>(j)])] =
            last + 1 + static_cast<int>(random() % 2);
      }
      const std::span<const std::int32_t> table =
          std::span(tables).subspan(static_cast<std::size_t>(i * kTable), kTable);
      for (int j = 1; j <= accepted; ++j) {
        const std::int32_t node = path[static_cast<std::size_t>(j)];
        target.move(table, length - 1 + node, length - 1 + j);
        if (j <= run) draft.move(table, slots[static_cast<std::size_t>(node)], length - 1 + j);
      }
      lengths.push_back(accepted + 1);
      path.resize(kCapacity, -5);
      nodes.insert(nodes.end(), path.begin(), path.end());
      draft_slots.insert(draft_slots.end(), slots.begin(), slots.end());
    }
    const DeviceArray<std::int32_t> device_tables(tables), device_first(first_rows),
        device_slots(draft_slots), device_lengths(lengths), device_nodes(nodes);
    const DeviceArray<SequenceState> device_states(states);
    REQUIRE(commit_kv({.num_sequences = sequences,
                       .target = target.view(),
                       .draft = draft.view(),
                       .block_tables = device_tables.get(),
                       .table_stride = kTable,
                       .sequences = device_states.get(),
                       .first_rows = device_first.get(),
                       .draft_slots = device_slots.get(),
                       .paths = {.capacity = kCapacity,
                                 .lengths = device_lengths.get(),
                                 .nodes = device_nodes.get()}},
                      test_launch()) == cudaSuccess);
    target.check();
    draft.check();
  }
}

TEST_CASE("advance truncates at the first end, appends, counts and publishes") {
  constexpr int kCapacity = 6;
  const std::vector<SequenceState> states{{10, 3}, {20, 4}, {30, 0}, {5, 1}, {7, 2}};
  const DeviceArray<std::int32_t> ends(std::vector<std::int32_t>{99, 98});
  std::vector<SequenceLimits> limits(5);
  for (SequenceLimits& limit : limits)
    limit = {.max_output = 100,
             .max_length = 100,
             .reserved = 100,
             .end_tokens = ends.get(),
             .num_end_tokens = 2};
  limits[1].max_output = 6;   // two more
  limits[2].max_length = 33;  // three more
  const std::vector<std::int32_t> lengths{4, 4, 5, 1, 0};
  std::vector<std::int32_t> tokens(5 * kCapacity);
  for (std::size_t i = 0; i < tokens.size(); ++i) tokens[i] = static_cast<std::int32_t>(i);
  tokens[2] = 98;  // sequence 0 ends with its third token
  tokens[3] = 99;
  const std::vector<std::int32_t> expected{3, 2, 3, 1, 0};
  // An EAGLE head serves all but the second sequence.
  std::vector<std::int32_t> path_nodes(5 * kCapacity);
  for (std::size_t i = 0; i < path_nodes.size(); ++i)
    path_nodes[i] = static_cast<std::int32_t>(i % kCapacity * 2);
  const std::vector<std::int32_t> first_rows{0, 10, 20, 30, 40};
  const DeviceArray<std::int32_t> device_first_rows(first_rows);
  DeviceArray<std::int32_t> feature_counts(std::vector<std::int32_t>{1, -1, 5, 4, 2}),
      feature_rows(std::size_t{5 * kCapacity});

  DeviceArray<SequenceState> device_states(states);
  const DeviceArray<SequenceLimits> device_limits(limits);
  DeviceArray<std::int32_t> device_lengths(lengths), device_tokens(tokens), nodes(path_nodes),
      sizes(std::vector<std::int32_t>{7, 7, 7, 1, 1}), turn(1), history(std::size_t{5 * 100});
  DeviceArray<RowStatus> status(5);
  DeviceArray<std::uint32_t> counts(200);
  const DeviceArray<std::uint32_t*> count_pointers(
      std::vector<std::uint32_t*>{counts.get(), nullptr, nullptr, nullptr, nullptr});
  TurnEntry* ring = nullptr;
  std::int32_t* leave = nullptr;
  REQUIRE(cudaMallocHost(&ring, 10 * sizeof(TurnEntry)) == cudaSuccess);
  REQUIRE(cudaMallocHost(&leave, sizeof(std::int32_t)) == cudaSuccess);
  std::fill_n(ring, 10, TurnEntry{});
  *leave = 0;
  const AdvanceParams params{
      .num_sequences = 5,
      .sequences = device_states.get(),
      .limits = device_limits.get(),
      .token_counts = count_pointers.get(),
      .paths = {.capacity = kCapacity,
                .lengths = device_lengths.get(),
                .nodes = nodes.get(),
                .tokens = device_tokens.get(),
                .status = status.get()},
      .tree_sizes = sizes.get(),
      .first_rows = device_first_rows.get(),
      .history = history.get(),
      .history_stride = 100,
      .ring = ring,
      .ring_stride = 5,
      .turn = turn.get(),
      .leave = leave,
      .pending = {
          .capacity = kCapacity, .counts = feature_counts.get(), .rows = feature_rows.get()}};
  REQUIRE(advance(params, test_launch()) == cudaSuccess);
  CHECK(device_lengths.read() == expected);
  const auto after = device_states.read();
  const auto written = history.read();
  for (std::size_t i = 0; i < 5; ++i) {
    CAPTURE(i);
    const auto grown = static_cast<std::size_t>(expected[i]);
    CHECK(after[i].length == states[i].length + expected[i]);
    CHECK(after[i].num_output == states[i].num_output + expected[i]);
    CHECK(ring[i].turn == 1);
    CHECK(ring[i].num_tokens == expected[i]);
    CHECK(ring[i].num_drafted == (i < 3 ? 6 : 0));
    for (std::size_t j = 0; j < 100; ++j) {
      const auto begin = static_cast<std::size_t>(states[i].length);
      const bool new_token = j >= begin && j < begin + grown;
      CHECK(written[i * 100 + j] == (new_token ? tokens[i * kCapacity + j - begin] : 0));
      if (new_token) CHECK(ring[i].tokens[j - begin] == tokens[i * kCapacity + j - begin]);
    }
  }
  const auto counted = counts.read();
  for (std::size_t token = 0; token < 200; ++token)
    CHECK(counted[token] == (token == 0 || token == 1 || token == 98 ? 1 : 0));
  CHECK(turn.read()[0] == 1);
  CHECK(feature_counts.read() == std::vector<std::int32_t>{3, -1, 3, 1, 0});
  const auto features = feature_rows.read();
  for (std::size_t i = 0; i < 5; ++i)
    for (std::size_t j = 0; j < kCapacity; ++j)
      CHECK(features[i * kCapacity + j] == (i != 1 && j < static_cast<std::size_t>(expected[i])
                                                ? first_rows[i] + path_nodes[i * kCapacity + j]
                                                : 0));
  cudaFreeHost(ring);
  cudaFreeHost(leave);
}
