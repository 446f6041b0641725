// tree_attention, move_kv and copy_block on the GPU: against the double-precision reference, and
// the same bits however rows, chunks, trees and the split over the context lie.
#include <doctest/doctest.h>

#include <cmath>

#include "gpu_fixtures.h"
#include "kernels/cuda/attention.h"
#include "kernels/cuda/cuda_ops.h"
#include "kernels/cuda/kv.h"

using namespace specdec::kernels;
using namespace specdec::kernels::test;

namespace {

struct Shape {
  int heads;
  int kv_heads;
  int head_dim;
  int block_size;
};

const std::vector<Shape>& all_shapes() {
  static const std::vector<Shape> kShapes = {
      {9, 3, 64, 32}, {8, 2, 128, 64}, {4, 4, 80, 16}, {6, 2, 96, 16},
      {4, 2, 16, 16}, {16, 1, 64, 32}, {5, 1, 40, 32},
  };
  return kShapes;
}

struct Case {
  DataType type;  // of the cache
  Shape shape;
};
std::vector<Case> all_cases() {
  std::vector<Case> cases;
  for (const DataType type : {DataType::f16, DataType::f32})
    for (const Shape& shape : all_shapes()) cases.push_back({type, shape});
  return cases;
}

/// Queries that f16 holds exactly; some rows point hard at one key.
std::vector<float> queries(Random& random, int rows, const Shape& shape) {
  std::vector<float> q(static_cast<std::size_t>(rows) * shape.heads * shape.head_dim);
  const std::size_t row_size = q.size() / static_cast<std::size_t>(rows);
  for (int r = 0; r < rows; ++r) {
    const float size = random.below(4) == 0 ? 20.0f : 1.0f;
    for (std::size_t i = 0; i < row_size; ++i)
      q[r * row_size + i] = rounded(random.normal() * size, DataType::f16);
  }
  return q;
}

/// Weights of an f16 cache are rounded to f16 (2^-11 of values up to 4.3). Scores are sums of some
/// 20 roundings each of terms that add up to 150: weights are off by up to 2e-4.
double tolerance(DataType type) { return type == DataType::f16 ? 2.5e-3 : 1e-3; }

double worst_difference(const std::vector<float>& a, const std::vector<float>& b) {
  double worst = 0;
  for (std::size_t i = 0; i < a.size(); ++i) {
    const double difference = std::fabs(static_cast<double>(a[i]) - b[i]);
    worst = std::isnan(difference) ? INFINITY : std::fmax(worst, difference);
  }
  return worst;
}

class Attention {
 public:
  Attention(const Shape& shape, TestKv& kv, int first_position = 0)
      : shape_(shape), first_position_(first_position), host_(kv), kv_(kv) {}

  GpuKv& kv() { return kv_; }
  std::vector<float> on_gpu(const BatchView& batch, const std::vector<float>& q,
                            cuda::AttentionSplit split) const {
    const GpuBatch staged(batch);
    const Device<float> q_device(q);
    const Device<float> out(q.size());
    require_ok(cuda::tree_attention(params(staged.view(), q_device.get(), kv_.layer(), out.get()),
                                    split, scratch_.launch()));
    return out.host();
  }
  std::vector<float> exact(const BatchView& batch, const std::vector<float>& q) const {
    std::vector<float> out(q.size());
    reference::tree_attention(params(batch, q.data(), host_.layer(), out.data()));
    return out;
  }

 private:
  TreeAttentionParams params(const BatchView& batch, const float* q, const KvLayer& kv,
                             float* out) const {
    return {batch, q,   shape_.heads,  1.0f / std::sqrt(static_cast<float>(shape_.head_dim)),
            kv,    out, DataType::f32, first_position_};
  }

  Shape shape_;
  int first_position_;
  TestKv& host_;
  GpuKv kv_;
  Scratch scratch_;
};

constexpr cuda::AttentionSplit kSplits[] = {
    cuda::AttentionSplit::automatic, cuda::AttentionSplit::tiles,  cuda::AttentionSplit::streams,
    cuda::AttentionSplit::units,     cuda::AttentionSplit::groups, cuda::AttentionSplit::whole};

/// Sequences with a chunk of prefill, a row of decoding or a tree each.
struct RaggedBatch {
  std::vector<std::int32_t> positions, slots, offsets, paths;
  std::vector<SequenceRows> sequences;

  void add(Random& random, const std::int32_t* blocks, int num_blocks, int context, int rows,
           bool tree) {
    const int begin = static_cast<int>(positions.size());
    for (int r = 0; r < rows; ++r) {
      slots.push_back(context + r);
      if (!tree) {
        positions.push_back(context + r);
        offsets.push_back(-1);
        continue;
      }
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
    sequences.push_back({begin, rows, context, blocks, num_blocks});
  }
  /// Of the next sequence, whose blocks are the next of `table`; with keys and values for all of
  /// it.
  void add_filled(Random& random, TestKv& kv, const std::vector<std::int32_t>& table,
                  int blocks_each, int context, int rows, bool tree) {
    const std::int32_t* blocks = table.data() + sequences.size() * blocks_each;
    const std::vector<std::int32_t> own(blocks, blocks + blocks_each);
    for (int p = 0; p < context + rows; ++p) kv.fill_slot(random, own, p);
    add(random, blocks, blocks_each, context, rows, tree);
  }
  int rows() const { return static_cast<int>(positions.size()); }
  BatchView view() const {
    return {rows(), positions.data(), slots.data(), offsets.data(), paths.data(), sequences};
  }
};

}  // namespace

TEST_CASE("cuda attention: one row at every interesting context, against the reference" *
          doctest::skip(!has_gpu())) {
  Random random(41);
  for (const auto& [type, shape] : all_cases()) {
    CAPTURE(shape.head_dim);
    CAPTURE(name(type));
    const int blocks = 1120 / shape.block_size + 1;
    const auto table = shuffled_blocks(random, blocks);
    for (const int t : {0, 1, 7, 31, 32, 63, 64, 65, 127, 255, 256, 257, 511, 512, 1100}) {
      CAPTURE(t);
      TestKv kv(type, blocks, shape.kv_heads, shape.head_dim, shape.block_size);
      for (int p = 0; p <= t; ++p) kv.fill_slot(random, table, p);
      const Attention attention(shape, kv);
      const std::int32_t position = t;
      const SequenceRows sequence = {0, 1, t, table.data(), blocks};
      const BatchView batch = {1, &position, &position, nullptr, nullptr, {&sequence, 1}};
      const auto q = queries(random, 1, shape);
      const auto expected = attention.exact(batch, q);
      const auto units = attention.on_gpu(batch, q, cuda::AttentionSplit::units);
      CHECK(worst_difference(units, expected) < tolerance(type));
      for (const auto split : kSplits) CHECK(attention.on_gpu(batch, q, split) == units);
    }
  }
}

TEST_CASE("cuda attention: ragged batches, against the reference and row by row" *
          doctest::skip(!has_gpu())) {
  Random random(42);
  for (const auto& [type, shape] : all_cases())
    for (int round = 0; round < 3; ++round) {
      CAPTURE(shape.head_dim);
      const int blocks_each = 640 / shape.block_size;
      constexpr int kSequences = 40;
      const int count = round == 2 ? kSequences : 4;
      const auto table = shuffled_blocks(random, kSequences * blocks_each);
      TestKv kv(type, kSequences * blocks_each, shape.kv_heads, shape.head_dim, shape.block_size);
      RaggedBatch ragged;
      for (int s = 0; s < count; ++s) {
        const int context = random.below(3) == 0 ? random.below(20) : 100 + random.below(450);
        const int rows = round == 2 ? 1 + random.below(2) : 1 + random.below(round == 0 ? 24 : 64);
        ragged.add_filled(random, kv, table, blocks_each, context, rows, s % 3 != 0);
      }
      const Attention attention(shape, kv);
      const auto q = queries(random, ragged.rows(), shape);
      const auto expected = attention.exact(ragged.view(), q);
      const auto got = attention.on_gpu(ragged.view(), q, cuda::AttentionSplit::units);
      CHECK(worst_difference(got, expected) < tolerance(type));
      for (const auto split : kSplits) {
        const auto other = attention.on_gpu(ragged.view(), q, split);
        CHECK(same_bits(got.data(), other.data(), got.size()));
      }

      int wrong = 0;
      const std::size_t row_size = q.size() / static_cast<std::size_t>(ragged.rows());
      for (const SequenceRows& sequence : ragged.sequences)
        for (int r = sequence.row_begin; r < sequence.row_begin + sequence.num_rows; r += 3) {
          const SequenceRows one = {0, 1, sequence.context_len, sequence.block_table, blocks_each};
          const BatchView view = {1,
                                  &ragged.positions[r],
                                  &ragged.slots[r],
                                  &ragged.offsets[r],
                                  ragged.paths.data(),
                                  {&one, 1}};
          const std::vector<float> own(q.begin() + r * row_size, q.begin() + (r + 1) * row_size);
          const auto alone = attention.on_gpu(view, own, kSplits[r % std::size(kSplits)]);
          wrong += !same_bits(alone.data(), &got[r * row_size], row_size);
        }
      CHECK(wrong == 0);
    }
}

TEST_CASE("cuda attention: a sequence of several rows among some that have none" *
          doctest::skip(!has_gpu())) {
  // As many rows as sequences, as in plain decoding: a graph's batch is padded with empty ones.
  Random random(46);
  for (const auto& [type, shape] : all_cases()) {
    CAPTURE(shape.head_dim);
    CAPTURE(shape.heads);
    const int blocks_each = 320 / shape.block_size;
    constexpr int kRows[] = {6, 0, 0, 1, 0, 0, 0, 1};
    constexpr int kSequences = std::size(kRows);
    const auto table = shuffled_blocks(random, kSequences * blocks_each);
    TestKv kv(type, kSequences * blocks_each, shape.kv_heads, shape.head_dim, shape.block_size);
    RaggedBatch ragged;
    for (const int rows : kRows)
      ragged.add_filled(random, kv, table, blocks_each, 250 + random.below(60), rows, false);
    const Attention attention(shape, kv);
    const auto q = queries(random, ragged.rows(), shape);
    const auto expected = attention.exact(ragged.view(), q);
    for (const auto split : kSplits)
      CHECK(worst_difference(attention.on_gpu(ragged.view(), q, split), expected) <
            tolerance(type));
  }
}

TEST_CASE("cuda attention: chunked prefill, whole prefill and decoding give the same bits" *
          doctest::skip(!has_gpu())) {
  Random random(43);
  for (const auto& [type, shape] :
       {Case{DataType::f16, {9, 3, 64, 32}}, Case{DataType::f16, {8, 2, 128, 16}},
        Case{DataType::f32, {6, 3, 64, 32}}}) {
    const int n = 600;
    const int blocks = n / shape.block_size + 1;
    const auto table = shuffled_blocks(random, blocks);
    TestKv kv(type, blocks, shape.kv_heads, shape.head_dim, shape.block_size);
    std::vector<std::int32_t> positions(n);
    for (int i = 0; i < n; ++i) {
      positions[i] = i;
      kv.fill_slot(random, table, i);
    }
    const Attention attention(shape, kv);
    const auto q = queries(random, n, shape);
    const std::size_t row_size = q.size() / n;
    std::vector<float> whole;
    for (const int chunk : {n, 7, 100, 257})
      for (const auto split : kSplits) {
        std::vector<float> out;
        for (int begin = 0; begin < n; begin += chunk) {
          const int rows = std::min(chunk, n - begin);
          const SequenceRows sequence = {0, rows, begin, table.data(), blocks};
          const BatchView batch = {rows,    &positions[begin], &positions[begin],
                                   nullptr, nullptr,           {&sequence, 1}};
          const std::vector<float> part(q.begin() + begin * row_size,
                                        q.begin() + (begin + rows) * row_size);
          const auto got = attention.on_gpu(batch, part, split);
          out.insert(out.end(), got.begin(), got.end());
        }
        if (whole.empty()) whole = out;
        CHECK(same_bits(out.data(), whole.data(), out.size()));
      }
  }
}

TEST_CASE("cuda attention: a tree node has the bits of plain decoding; its KV moves" *
          doctest::skip(!has_gpu())) {
  Random random(44);
  // Paths that are spread far leave the window of slots that a block shares.
  for (const auto& [type, shape] : all_cases())
    for (const int context : {0, 5, 31, 60, 64, 120, 250, 256, 400}) {
      const int spread = context % 2 == 0 && shape.head_dim % 64 == 0 ? 9 : 3;
      CAPTURE(shape.head_dim);
      CAPTURE(context);
      const int blocks = 512 / shape.block_size;
      const auto table = shuffled_blocks(random, blocks);
      TestKv kv(type, blocks, shape.kv_heads, shape.head_dim, shape.block_size);
      for (int p = 0; p < context; ++p) kv.fill_slot(random, table, p);
      std::vector<std::int32_t> path;
      for (int i = 0; i < 12; ++i) {
        path.push_back(context + spread * i + 1 + random.below(2));
        kv.fill_slot(random, table, path.back());
      }
      Attention attention(shape, kv);
      const std::int32_t position = context + 11;
      const std::int32_t offset = 0;
      const SequenceRows sequence = {0, 1, context, table.data(), blocks};
      BatchView batch = {1, &position, &path.back(), &offset, path.data(), {&sequence, 1}};
      const auto q = queries(random, 1, shape);
      const auto tree = attention.on_gpu(batch, q, cuda::AttentionSplit::units);
      CHECK(worst_difference(tree, attention.exact(batch, q)) < tolerance(type));
      for (const auto split : kSplits) CHECK(tree == attention.on_gpu(batch, q, split));

      std::vector<KvMove> moves;
      cuda::FewMoves few;
      for (int i = 0; i < 12; ++i) {
        moves.push_back({path[i], context + i});
        const auto slot = [&](int local) {
          return table[local / shape.block_size] * shape.block_size + local % shape.block_size;
        };
        few.moves[few.count++] = {slot(path[i]), slot(context + i)};
      }
      const Scratch scratch;
      const cuda::KvPool pool = cuda::make_pool({&attention.kv().layer(), 1});
      require_ok(cuda::move_kv(pool, few, scratch.launch()));
      reference::move_kv({{&kv.layer(), 1}, table.data(), moves});
      std::vector<std::byte> keys;
      std::vector<std::byte> values;
      attention.kv().read(keys, values);
      CHECK(keys == kv.key_bytes());
      CHECK(values == kv.value_bytes());

      batch.path_offsets = nullptr;
      const SequenceRows later = {0, 1, context + 11, table.data(), blocks};
      batch.sequences = {&later, 1};
      const auto plain = attention.on_gpu(batch, q, cuda::AttentionSplit::units);
      CHECK(same_bits(tree.data(), plain.data(), tree.size()));
    }
}

TEST_CASE("cuda move_kv from device memory, and copy_block" * doctest::skip(!has_gpu())) {
  for (const DataType type : {DataType::f16, DataType::f32}) {
    Random random(45);
    const std::vector<std::int32_t> table = {0, 1, 2, 3};
    TestKv kv(type, 4, 3, 64, 32);
    for (int slot = 0; slot < 64; ++slot) kv.fill_slot(random, table, slot);
    GpuKv on_gpu(kv);
    const cuda::KvPool pool = cuda::make_pool({&on_gpu.layer(), 1});
    const Scratch scratch;
    const std::vector<cuda::SlotMove> moves = {{41, 40}, {43, 41}, {60, 42}, {7, 0}};
    const Device<cuda::SlotMove> moves_device(moves);
    const Device<std::int32_t> count(std::vector<std::int32_t>{3});  // the fourth is not to be made
    require_ok(cuda::move_kv(pool, moves_device.get(), count.get(), 4, scratch.launch()));
    require_ok(cuda::copy_block(pool, 1, 3, scratch.launch()));
    const std::vector<KvMove> expected = {{41, 40}, {43, 41}, {60, 42}};
    reference::move_kv({{&kv.layer(), 1}, table.data(), expected});
    std::vector<std::byte> keys = kv.key_bytes();
    std::vector<std::byte> values = kv.value_bytes();
    const std::size_t block = keys.size() / 4;
    std::memcpy(keys.data() + 3 * block, keys.data() + block, block);
    std::memcpy(values.data() + 3 * block, values.data() + block, block);
    std::vector<std::byte> got_keys;
    std::vector<std::byte> got_values;
    on_gpu.read(got_keys, got_values);
    CHECK(got_keys == keys);
    CHECK(got_values == values);
  }
}

TEST_CASE("cuda attention: operands come out in the tensor cores' layout" *
          doctest::skip(!has_gpu())) {
  Random random(46);
  const Shape shape{9, 3, 64, 32};
  for (const DataType cache : {DataType::f16, DataType::f32}) {
    const std::vector<std::int32_t> table = {1, 0};
    TestKv kv(cache, 2, 3, 64, 32);
    for (int p = 0; p < 40; ++p) kv.fill_slot(random, table, p);
    const GpuKv on_gpu(kv);
    const std::vector<std::int32_t> positions = {30, 31, 32, 33, 34, 35, 36, 37, 38, 39};
    const SequenceRows sequence = {0, 10, 30, table.data(), 2};
    const BatchView batch = {10,      positions.data(), positions.data(),
                             nullptr, nullptr,          {&sequence, 1}};
    const GpuBatch staged(batch);
    const Scratch scratch;
    const auto q = queries(random, 10, shape);
    const Device<float> q_device(q);
    const Device<float> floats(q.size());
    TreeAttentionParams params{staged.view(), q_device.get(), 9, 0.125f, on_gpu.layer(),
                               floats.get(),  DataType::f32};
    require_ok(cuda::tree_attention(params, scratch.launch()));
    const auto expected = floats.host();
    for (const DataType type : {DataType::f16, DataType::bf16}) {
      const Device<std::byte> operand(cuda::operand_bytes(10, 9 * 64));
      params.out = reinterpret_cast<float*>(operand.get());
      params.out_type = type;
      require_ok(cuda::tree_attention(params, scratch.launch()));
      const auto got = read_operand(operand.host(), 10, 9 * 64, type);
      int wrong = 0;
      for (std::size_t i = 0; i < got.size(); ++i) wrong += got[i] != rounded(expected[i], type);
      CHECK(wrong == 0);
    }
  }
}

TEST_CASE("cuda attention from a first position on: what lies before it has no say" *
          doctest::skip(!has_gpu())) {
  Random random(47);
  for (const auto& [type, shape] : all_cases())
    for (const int first : {1, 2, 17, 63, 64, 100, 127}) {
      CAPTURE(name(type));
      CAPTURE(shape.head_dim);
      CAPTURE(first);
      const int blocks = 480 / shape.block_size;
      const auto table = shuffled_blocks(random, blocks);
      TestKv kv(type, blocks, shape.kv_heads, shape.head_dim, shape.block_size);
      // Keys before it stay NaN, values the largest number that there is.
      for (int p = first; p < 420; ++p) kv.fill_slot(random, table, p);
      const Attention attention(shape, kv, first);
      const Attention from_start(shape, kv);
      for (const int position : {first, first + 1, 127, 128, 300, 400})
        for (const bool tree : {false, true}) {
          CAPTURE(position);
          const int context = std::max(first, position - 3);
          std::vector<std::int32_t> path;
          for (int p = context; p <= position; ++p) path.push_back(tree ? p + 10 : p);
          const std::int32_t offset = tree ? 0 : -1;
          const std::int32_t at = position;
          const SequenceRows sequence = {0, 1, context, table.data(), blocks};
          const BatchView batch = {1, &at, &path.back(), &offset, path.data(), {&sequence, 1}};
          const auto q = queries(random, 1, shape);
          const auto got = attention.on_gpu(batch, q, cuda::AttentionSplit::units);
          CHECK(worst_difference(got, attention.exact(batch, q)) < tolerance(type));
          for (const auto split : kSplits)
            CHECK(same_bits(attention.on_gpu(batch, q, split).data(), got.data(), got.size()));
          // A broken key is the business of those alone who see it. (A whole tile of them has no
          // softmax in an f16 cache.)
          if (type == DataType::f16 && first >= cuda::kAttentionTile) continue;
          const auto broken = from_start.on_gpu(batch, q, cuda::AttentionSplit::whole);
          CHECK(std::isnan(broken.front()));
        }
    }
}
