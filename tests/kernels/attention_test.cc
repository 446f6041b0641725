// tree_attention and move_kv: against the double-precision reference, and the promise that a row's
// bits do not depend on its neighbours, the threads, or where its path's keys lie.
#include <doctest/doctest.h>

#include <cmath>
#include <string>

#include "kernel_fixtures.h"
#include "kernels/cpu/thread_pool.h"

using namespace specdec::kernels;
using test::Random;

namespace {

struct Shape {
  DataType type;
  int heads;
  int kv_heads;
  int head_dim;
  int block_size;
};

const std::vector<Shape>& all_shapes() {
  static const std::vector<Shape> kShapes = {
      {DataType::f16, 9, 3, 64, 32},    {DataType::f32, 9, 3, 64, 16},
      {DataType::f16, 4, 4, 128, 64},   {DataType::f16, 8, 1, 16, 16},
      {DataType::f32, 2, 1, 24, 32},    {DataType::f16, 5, 1, 40, 32},
      {DataType::f16, 20, 1, 32, 64},   {DataType::f32, 2, 2, 256, 64},
      {DataType::f16, 6, 2, 8 * 9, 16},
  };
  return kShapes;
}

/// Queries [rows, heads, head_dim]; some rows point hard at one key, so that the softmax is peaked.
std::vector<float> queries(Random& random, int rows, const Shape& shape) {
  std::vector<float> q(static_cast<std::size_t>(rows) * shape.heads * shape.head_dim);
  const std::size_t row_size = q.size() / static_cast<std::size_t>(rows);
  for (int r = 0; r < rows; ++r) {
    const float size = random.below(4) == 0 ? 20.0f : 1.0f;
    for (std::size_t i = 0; i < row_size; ++i) q[r * row_size + i] = random.normal() * size;
  }
  return q;
}

TreeAttentionParams attention(const BatchView& batch, const std::vector<float>& q,
                              const Shape& shape, const KvLayer& kv, float* out) {
  return {batch, q.data(), shape.heads, 1.0f / std::sqrt(static_cast<float>(shape.head_dim)),
          kv,    out};
}

/// Scores carry a relative error of about head_dim * 2^-24 of sum |q k|; a peaked softmax turns it
/// into an absolute error of the weights. Values are around 1.
constexpr double kTolerance = 1e-4;

double worst_difference(const std::vector<float>& a, const std::vector<float>& b) {
  double worst = 0;
  for (std::size_t i = 0; i < a.size(); ++i) {
    const double difference = std::fabs(static_cast<double>(a[i]) - b[i]);
    worst = std::isnan(difference) ? INFINITY : std::fmax(worst, difference);
  }
  return worst;
}

}  // namespace

TEST_CASE("attention: one row at every interesting context length, against the reference") {
  Random random(21);
  for (const Isa isa : test::isas()) {
    ThreadPool pool(2);
    CpuOps ops(isa, pool);
    for (const Shape& shape : all_shapes()) {
      CAPTURE(to_string(isa));
      CAPTURE(shape.head_dim);
      CAPTURE(shape.block_size);
      const int blocks = 1120 / shape.block_size + 1;
      const auto table = test::shuffled_blocks(random, blocks);
      test::TestKv kv(shape.type, blocks, shape.kv_heads, shape.head_dim, shape.block_size);
      int filled = 0;
      for (const int t : {0,   1,   7,   15,  16,  31,  32,  33,  63,  64,
                          126, 127, 128, 129, 255, 256, 300, 511, 512, 1100}) {
        for (; filled <= t; ++filled) kv.fill_slot(random, table, filled);
        CAPTURE(t);
        const std::int32_t position = t;
        const SequenceRows sequence = {0, 1, t, table.data()};
        const BatchView batch = {1, &position, &position, nullptr, nullptr, {&sequence, 1}};
        const auto q = queries(random, 1, shape);
        std::vector<float> got(q.size());
        std::vector<float> expected(q.size());
        ops.tree_attention(attention(batch, q, shape, kv.layer(), got.data()));
        reference::tree_attention(attention(batch, q, shape, kv.layer(), expected.data()));
        CHECK(worst_difference(got, expected) < kTolerance);
      }
    }
  }
}

TEST_CASE("attention: a ragged batch of prefill, decoding and trees, against the reference") {
  Random random(22);
  for (const Isa isa : test::isas()) {
    ThreadPool pool(3);
    CpuOps ops(isa, pool);
    for (const Shape& shape : all_shapes()) {
      for (int round = 0; round < 2; ++round) {
        CAPTURE(to_string(isa));
        CAPTURE(shape.head_dim);
        const int blocks_each = 512 / shape.block_size;
        const auto table = test::shuffled_blocks(random, 3 * blocks_each);
        test::TestKv kv(shape.type, 3 * blocks_each, shape.kv_heads, shape.head_dim,
                        shape.block_size);
        std::vector<std::int32_t> positions;
        std::vector<std::int32_t> slots;
        std::vector<std::int32_t> offsets;
        std::vector<std::int32_t> paths;
        std::vector<SequenceRows> sequences;
        for (int s = 0; s < 3; ++s) {
          const std::int32_t* blocks = table.data() + s * blocks_each;
          const std::vector<std::int32_t> own(blocks, blocks + blocks_each);
          const int context = random.below(3) == 0 ? random.below(20) : 100 + random.below(200);
          const int rows = 1 + random.below(24);
          const int begin = static_cast<int>(positions.size());
          for (int p = 0; p < context + rows; ++p) kv.fill_slot(random, own, p);
          for (int r = 0; r < rows; ++r) {
            slots.push_back(context + r);
            if (s == 0) {  // a chunk of prefill
              positions.push_back(context + r);
              offsets.push_back(-1);
              continue;
            }
            // A tree: the parent is an earlier node.
            const int parent = r == 0 ? -1 : random.below(r);
            offsets.push_back(static_cast<std::int32_t>(paths.size()));
            if (parent >= 0) {
              const int depth = positions[begin + parent] - context + 1;
              for (int i = 0; i < depth; ++i) paths.push_back(paths[offsets[begin + parent] + i]);
              positions.push_back(context + depth);
            } else {
              positions.push_back(context);
            }
            paths.push_back(context + r);
          }
          sequences.push_back({begin, rows, context, blocks});
        }
        const int n = static_cast<int>(positions.size());
        const BatchView batch = {
            n, positions.data(), slots.data(), offsets.data(), paths.data(), sequences};
        const auto q = queries(random, n, shape);
        std::vector<float> got(q.size());
        std::vector<float> expected(q.size());
        ops.tree_attention(attention(batch, q, shape, kv.layer(), got.data()));
        reference::tree_attention(attention(batch, q, shape, kv.layer(), expected.data()));
        CHECK(worst_difference(got, expected) < kTolerance);

        // Row by row, alone and on one thread: the same bits.
        SerialExecutor serial;
        CpuOps alone(isa, serial);
        int wrong = 0;
        const std::size_t row_size = q.size() / static_cast<std::size_t>(n);
        for (const SequenceRows& sequence : sequences) {
          for (int r = sequence.row_begin; r < sequence.row_begin + sequence.num_rows; ++r) {
            const SequenceRows one = {0, 1, sequence.context_len, sequence.block_table};
            const BatchView view = {1,           &positions[r], &slots[r],
                                    &offsets[r], paths.data(),  {&one, 1}};
            const std::vector<float> qr(q.begin() + r * row_size, q.begin() + (r + 1) * row_size);
            std::vector<float> out(row_size);
            alone.tree_attention(attention(view, qr, shape, kv.layer(), out.data()));
            wrong += !test::same_bits(out.data(), &got[r * row_size], row_size);
          }
        }
        CHECK(wrong == 0);
      }
    }
  }
}

TEST_CASE("attention: chunked prefill, whole prefill and decoding give the same bits") {
  Random random(23);
  const Shape shape = {DataType::f16, 9, 3, 64, 32};
  const int n = 300;
  const auto table = test::shuffled_blocks(random, 10);
  test::TestKv kv(shape.type, 10, shape.kv_heads, shape.head_dim, shape.block_size);
  std::vector<std::int32_t> positions(n);
  for (int i = 0; i < n; ++i) {
    positions[i] = i;
    kv.fill_slot(random, table, i);
  }
  const auto q = queries(random, n, shape);
  const std::size_t row_size = q.size() / n;
  for (const Isa isa : test::isas()) {
    CAPTURE(to_string(isa));
    std::vector<float> whole;
    for (const int chunk : {n, 1, 7, 100}) {
      for (const int threads : {1, 2, 4}) {
        ThreadPool pool(threads);
        CpuOps ops(isa, pool);
        std::vector<float> out(q.size());
        for (int begin = 0; begin < n; begin += chunk) {
          const int rows = std::min(chunk, n - begin);
          const SequenceRows sequence = {0, rows, begin, table.data()};
          const BatchView batch = {rows,    &positions[begin], &positions[begin],
                                   nullptr, nullptr,           {&sequence, 1}};
          const std::vector<float> part(q.begin() + begin * row_size,
                                        q.begin() + (begin + rows) * row_size);
          ops.tree_attention(
              attention(batch, part, shape, kv.layer(), out.data() + begin * row_size));
        }
        if (whole.empty()) whole = out;
        CHECK(test::same_bits(out.data(), whole.data(), out.size()));
      }
    }
  }
}

TEST_CASE("attention: a tree node has the bits of plain decoding, before and after its KV moves") {
  Random random(24);
  for (const Isa isa : test::isas()) {
    for (const Shape& shape : all_shapes()) {
      for (const int context : {0, 5, 31, 120, 127, 128, 250}) {
        CAPTURE(to_string(isa));
        CAPTURE(shape.head_dim);
        CAPTURE(context);
        const int blocks = 512 / shape.block_size;
        const auto table = test::shuffled_blocks(random, blocks);
        test::TestKv kv(shape.type, blocks, shape.kv_heads, shape.head_dim, shape.block_size);
        for (int p = 0; p < context; ++p) kv.fill_slot(random, table, p);
        // A path of 12 nodes scattered over 40 slots; the other slots stay NaN.
        std::vector<std::int32_t> path;
        for (int i = 0; i < 12; ++i) {
          path.push_back(context + 3 * i + 1 + random.below(2));
          kv.fill_slot(random, table, path.back());
        }
        const std::int32_t position = context + 11;
        const std::int32_t offset = 0;
        const SequenceRows sequence = {0, 1, context, table.data()};
        BatchView batch = {1, &position, &path.back(), &offset, path.data(), {&sequence, 1}};
        const auto q = queries(random, 1, shape);
        std::vector<float> tree(q.size());
        std::vector<float> plain(q.size());
        std::vector<float> expected(q.size());
        ThreadPool pool(2);
        CpuOps ops(isa, pool);
        ops.tree_attention(attention(batch, q, shape, kv.layer(), tree.data()));
        reference::tree_attention(attention(batch, q, shape, kv.layer(), expected.data()));
        CHECK(worst_difference(tree, expected) < kTolerance);

        std::vector<KvMove> moves;
        for (int i = 0; i < 12; ++i) moves.push_back({path[i], context + i});
        test::TestKv moved = kv;
        moved.layer().keys = const_cast<std::byte*>(moved.key_bytes().data());
        moved.layer().values = const_cast<std::byte*>(moved.value_bytes().data());
        ops.move_kv({{&kv.layer(), 1}, table.data(), moves});
        reference::move_kv({{&moved.layer(), 1}, table.data(), moves});
        CHECK(kv.key_bytes() == moved.key_bytes());
        CHECK(kv.value_bytes() == moved.value_bytes());

        batch.path_offsets = nullptr;
        const SequenceRows later = {0, 1, context + 11, table.data()};
        batch.sequences = {&later, 1};
        ops.tree_attention(attention(batch, q, shape, kv.layer(), plain.data()));
        CHECK(test::same_bits(tree.data(), plain.data(), tree.size()));
      }
    }
  }
}

TEST_CASE("attention: equal keys give the mean, a dominant key its value") {
  Random random(25);
  const Shape shape = {DataType::f32, 1, 1, 16, 16};
  const std::vector<std::int32_t> table = {0, 1, 2};
  for (const Isa isa : test::isas()) {
    SerialExecutor serial;
    CpuOps ops(isa, serial);
    test::TestKv kv(shape.type, 3, 1, 16, 16);
    const int n = 37;
    for (int p = 0; p < n; ++p) kv.fill_slot(random, table, p);
    auto* keys = static_cast<float*>(kv.layer().keys);
    const auto* values = static_cast<const float*>(kv.layer().values);
    for (int i = 0; i < 3 * 16 * 16; ++i) keys[i] = 0.5f;
    const std::int32_t position = n - 1;
    const SequenceRows sequence = {0, 1, n - 1, table.data()};
    const BatchView batch = {1, &position, &position, nullptr, nullptr, {&sequence, 1}};
    const std::vector<float> q(16, 4.0f);
    std::vector<float> out(16);
    ops.tree_attention(attention(batch, q, shape, kv.layer(), out.data()));
    for (int d = 0; d < 16; ++d) {
      double mean = 0;
      for (int p = 0; p < n; ++p) mean += values[p * 16 + d];
      CHECK(out[d] == doctest::Approx(mean / n).epsilon(1e-5).scale(1));
    }
    for (int d = 0; d < 16; ++d) keys[256 + d * 16 + 4] = 300.0f;  // position 20
    ops.tree_attention(attention(batch, q, shape, kv.layer(), out.data()));
    CHECK(test::same_bits(out.data(), values + 20 * 16, 16));
  }
}
