// Products of many tokens, which a kernel of their own multiplies on Hopper: whatever becomes of
// their sums, a row's outputs have the bits that fewer rows at a time give them.
#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <vector>

#include "gpu_fixtures.h"
#include "kernels/cuda/cuda_ops.h"
#include "kernels/cuda/product.h"

using namespace specdec::kernels;
using namespace specdec::kernels::test;

namespace {

constexpr int kTokens = 300;  // more than the narrow kernel takes of any of these matrices
constexpr int kAtOnce = 64;   // rows of a narrow product
constexpr int kBlockSize = 32;
constexpr int kBlocks = kTokens / kBlockSize + 1;

/// One matrix, used as qkv, as a projection and as gate_up.
struct Shape {
  int heads;
  int kv_heads;
  int head_dim;
  int cols;
  int chains;  // of a sum
  int rows() const { return (heads + 2 * kv_heads) * head_dim; }
};

/// Calls run(first, rows) for all tokens at once (`wide`) or some at a time.
template <class Run>
void in_parts(bool wide, Run run) {
  const int step = wide ? kTokens : kAtOnce;
  for (int first = 0; first < kTokens; first += step) run(first, std::min(step, kTokens - first));
}

struct Heads {
  std::vector<float> q;
  std::vector<std::byte> keys, values;
};

Heads run_heads(const Shape& shape, const GpuMatrix& w, const std::vector<float>& x,
                const std::vector<float>& norm, const Scratch& scratch, bool wide) {
  Random random(7);
  const auto table = shuffled_blocks(random, kBlocks);
  std::vector<float> angles(static_cast<std::size_t>(kTokens * shape.head_dim / 2));
  for (float& angle : angles) angle = random.uniform(-1.0f, 1.0f);
  TestKv host(DataType::f16, kBlocks, shape.kv_heads, shape.head_dim, kBlockSize);
  const GpuKv kv(host);
  const Device<float> x_device(x), norm_device(norm), cosines(angles), sines(angles);
  const std::size_t width = static_cast<std::size_t>(shape.heads) * shape.head_dim;
  const Device<float> q(kTokens * width);
  in_parts(wide, [&](int first, int rows) {
    std::vector<std::int32_t> positions(static_cast<std::size_t>(rows));
    for (int r = 0; r < rows; ++r) positions[static_cast<std::size_t>(r)] = first + r;
    const SequenceRows sequence = {0, rows, first, table.data(), kBlocks};
    const GpuBatch batch(
        BatchView{rows, positions.data(), positions.data(), nullptr, nullptr, {&sequence, 1}});
    NormQkvRopeAppendParams params;
    params.batch = batch.view();
    params.x = x_device.get() + static_cast<std::size_t>(first) * shape.cols;
    params.norm_weight = norm_device.get();
    params.norm_eps = 1e-5f;
    params.qkv = w.packed();
    params.num_heads = shape.heads;
    params.rope_cos = cosines.get();
    params.rope_sin = sines.get();
    params.kv = kv.layer();
    params.q = q.get() + first * width;
    require_ok(cuda::norm_qkv_rope_append(params, scratch.launch()));
  });
  Heads heads{q.host(), {}, {}};
  kv.read(heads.keys, heads.values);
  return heads;
}

std::vector<float> run_residual(const GpuMatrix& w, const std::vector<float>& x, int rows, int cols,
                                const Scratch& scratch, bool wide) {
  const std::vector<float> before(static_cast<std::size_t>(kTokens) * rows, 0.25f);
  const Device<float> x_device(x), out(before);
  in_parts(wide, [&](int first, int count) {
    require_ok(
        cuda::project_residual({count, x_device.get() + static_cast<std::size_t>(first) * cols,
                                w.packed(), out.get() + static_cast<std::size_t>(first) * rows},
                               scratch.launch()));
  });
  return out.host();
}

std::vector<float> run_gated(const GpuMatrix& w, const std::vector<float>& x,
                             const std::vector<float>& norm, int ffn, int cols, DataType type,
                             const Scratch& scratch, bool wide) {
  const Device<float> x_device(x), norm_device(norm);
  std::vector<float> all;
  in_parts(wide, [&](int first, int count) {
    const Device<std::byte> gated(cuda::operand_bytes(count, ffn, 4));
    require_ok(cuda::norm_gate_up(
        {count, x_device.get() + static_cast<std::size_t>(first) * cols, norm_device.get(), 1e-5f,
         w.packed(), reinterpret_cast<float*>(gated.get()), type},
        scratch.launch()));
    const auto part = read_operand(gated.host(), count, ffn, type);
    all.insert(all.end(), part.begin(), part.end());
  });
  return all;
}

bool same(const std::vector<float>& a, const std::vector<float>& b) {
  return a.size() == b.size() && same_bits(a.data(), b.data(), a.size());
}

}  // namespace

TEST_CASE("cuda product of many tokens: heads, residuals and gated sums have the bits of few" *
          doctest::skip(!has_gpu())) {
  Random random(39);
  const Scratch scratch;
  const std::vector<std::pair<Shape, std::vector<DataType>>> cases = {
      {{9, 3, 64, 576, 2}, {DataType::bf16, DataType::f16, DataType::q8_0, DataType::q4_1}},
      {{32, 8, 128, 704, 1}, {DataType::bf16, DataType::q4_1}},
  };
  for (const auto& [shape, types] : cases)
    for (const DataType type : types) {
      CAPTURE(name(type));
      CAPTURE(shape.cols);
      const int rows = shape.rows();
      const TestMatrix matrix(random, type, rows, shape.cols);
      const auto x = activations(random, kTokens, shape.cols);
      const auto norm = norm_weights(random, shape.cols);

      const GpuMatrix qkv(matrix, Kept(type), shape.head_dim / 2);
      CHECK(cuda::num_chains(qkv.packed()) == shape.chains);
      const Heads heads = run_heads(shape, qkv, x, norm, scratch, true);
      const Heads few = run_heads(shape, qkv, x, norm, scratch, false);
      CHECK(same(heads.q, few.q));
      CHECK(heads.keys == few.keys);
      CHECK(heads.values == few.values);

      const GpuMatrix plain(matrix, Kept(type));
      CHECK(same(run_residual(plain, x, rows, shape.cols, scratch, true),
                 run_residual(plain, x, rows, shape.cols, scratch, false)));

      const GpuMatrix pairs(matrix, Kept(type), rows / 2);
      for (const DataType out : {DataType::f16, DataType::bf16, DataType::f32})
        CHECK(same(run_gated(pairs, x, norm, rows / 2, shape.cols, out, scratch, true),
                   run_gated(pairs, x, norm, rows / 2, shape.cols, out, scratch, false)));
    }
}
