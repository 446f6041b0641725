// The products on the GPU: against the double-precision reference on the numbers that the tensor
// cores see, and row invariance bit for bit.
#include <doctest/doctest.h>

#include <cmath>
#include <cstdint>
#include <cstring>
#include <numeric>
#include <utility>
#include <vector>

#include "gpu_fixtures.h"
#include "kernels/cpu/row_format.h"
#include "kernels/cuda/cuda_ops.h"
#include "kernels/cuda/packing.h"
#include "kernels/cuda/product.h"
#include "kernels/cuda/rows.h"
#include "kernels/reference/kv_access.h"
#include "product_oracle.h"

using namespace specdec::kernels;
using namespace specdec::kernels::test;

namespace {

struct Shape {
  int rows;
  int cols;
};

std::vector<Shape> shapes(Kept kept) {
  if (is_quantised(kept.type)) return {{48, 64}, {37, 32}, {16, 160}, {960, 576}};
  return {{48, 64}, {37, 1}, {5, 33}, {130, 200}, {960, 576}};
}

/// About what the sums lose where all numbers are normal: for tests whose own roundings, of every
/// activation, are far larger. Sum below has the bound that holds.
double bound(double magnitude, int cols) { return (cols / 16 + 8) * 0x1p-23 * magnitude + 1e-30; }

/// What rounding makes of an activation, relative to it; of one that stays a float, what is lost as
/// it is normed and split.
double activation_step(Kept kept) {
  if (kept.full_precision) return 0x1p-19;
  return operand_of(kept) == DataType::bf16 ? 0x1p-8 : 0x1p-11;
}

std::vector<float> store(const GpuMatrix& w, const Device<std::byte>& operand, int tokens,
                         const Scratch& scratch, const cuda::ProductSchedule* schedule = nullptr) {
  const Device<float> out(static_cast<std::size_t>(tokens) * w.packed().rows);
  cuda::Product product;
  product.weight = w.packed();
  product.tokens = operand.get();
  product.num_tokens = tokens;
  product.output = cuda::ProductOutput::store;
  product.out = out.get();
  require_ok(schedule != nullptr ? cuda::multiply(product, *schedule, scratch.launch())
                                 : cuda::multiply(product, scratch.launch()));
  return out.host();
}

/// Rows first, first + 1, .. of `values`.
std::vector<float> some_rows(const std::vector<float>& values, int first, int count, int cols) {
  return {values.begin() + static_cast<std::ptrdiff_t>(first) * cols,
          values.begin() + static_cast<std::ptrdiff_t>(first + count) * cols};
}

}  // namespace

namespace {

/// Products with `packed`, which is `matrix`, at several widths against exact arithmetic, every
/// `stride`-th row.
void check_sums(Random& random, const Scratch& scratch, const TestMatrix& matrix,
                const GpuMatrix& packed, Kept type, int stride, std::initializer_list<int> widths,
                int expected_chains) {
  const int rows = matrix.dense().rows;
  const int cols = matrix.dense().cols;
  CAPTURE(name(type));
  CAPTURE(rows);
  const TensorCore core = TensorCore::of_gpu(operand_of(type));
  const int chains = cuda::num_chains(packed.packed());
  CHECK(chains == expected_chains);
  Side w{rounded_weights(matrix, type).data, {}};
  w.powers = powers(w.values, operand_of(type));
  for (const int tokens : widths) {
    CAPTURE(tokens);
    Side x{activations(random, tokens, cols), {}};
    const auto got = store(packed, make_operand(x.values, tokens, cols, type), tokens, scratch);
    for (float& value : x.values) value = rounded(value, type);
    x.powers = powers(x.values, operand_of(type));
    double worst = 0;
    int not_as_cut = 0;
    for (int t = 0; t < tokens; ++t)
      for (int r = 0; r < rows; r += stride) {
        const Sum sum = type.full_precision ? full_sum_of(w, r, x, t, cols, core)
                                            : sum_of(w, r, x, t, cols, chains, core);
        const float value = got[static_cast<std::size_t>(t) * rows + r];
        const double difference = std::fabs(sum.exact - value);
        worst = std::isnan(difference) ? INFINITY : std::fmax(worst, difference / sum.bound);
        not_as_cut += value != sum.cut;
      }
    CHECK(worst <= 1.0);
    // Measured on sm_90 to be so to the bit, but for TF32; of others only the bound is checked.
    if (compute_major() == 9 && operand_of(type) != DataType::f32) CHECK(not_as_cut == 0);
  }
}

}  // namespace

TEST_CASE("cuda product: equals exact arithmetic on the rounded numbers" *
          doctest::skip(!has_gpu())) {
  Random random(31);
  const Scratch scratch;
  for (const Kept type : kept_types())
    for (const Shape shape : shapes(type)) {
      const TestMatrix matrix(random, type.type, shape.rows, shape.cols);
      check_sums(random, scratch, matrix, GpuMatrix(matrix, type), type, 1,
                 {1, 7, 8, 9, 33, 64, 65, 150}, operand_of(type) == DataType::f32 ? 1 : 2);
    }
}

TEST_CASE("cuda product: a matrix of more than 2^24 weights has one chain a sum" *
          doctest::skip(!has_gpu())) {
  Random random(38);
  const Scratch scratch;
  constexpr Shape kShape{37504, 448};
  constexpr int kMost = 150;
  for (const Kept type : kept_types()) {
    if (operand_of(type) == DataType::f32) continue;
    const TestMatrix matrix(random, type.type, kShape.rows, kShape.cols);
    const GpuMatrix packed(matrix, type);
    check_sums(random, scratch, matrix, packed, type, 397, {1, 16, 64, 65, 96, 128, 129}, 1);
    const auto x = activations(random, kMost, kShape.cols);
    const auto all = store(packed, make_operand(x, kMost, kShape.cols, type), kMost, scratch);
    int wrong = 0;
    for (const int n : {1, 9, 40, 64, 65, 96, 121, 128, 129}) {
      const auto part = some_rows(x, kMost - n, n, kShape.cols);
      const auto got = store(packed, make_operand(part, n, kShape.cols, type), n, scratch);
      wrong += !same_bits(got.data(), &all[static_cast<std::size_t>(kMost - n) * kShape.rows],
                          got.size());
    }
    CHECK(wrong == 0);
  }
}

TEST_CASE("cuda product: a row has the same bits at any width and in any schedule" *
          doctest::skip(!has_gpu())) {
  Random random(32);
  const Scratch scratch;
  constexpr int kMost = 300;
  for (const Kept type : kept_types())
    for (const Shape shape : {Shape{960, 576}, Shape{200, 1536}, Shape{64, 4096}}) {
      CAPTURE(name(type));
      CAPTURE(shape.cols);
      const TestMatrix w(random, type.type, shape.rows, shape.cols);
      const GpuMatrix packed(w, type);
      const auto x = activations(random, kMost, shape.cols);
      const auto all = store(packed, make_operand(x, kMost, shape.cols, type), kMost, scratch);
      int wrong = 0;
      for (int n = 1; n <= 64; ++n) {
        const int first = random.below(kMost - n + 1);
        const auto part = some_rows(x, first, n, shape.cols);
        const auto got = store(packed, make_operand(part, n, shape.cols, type), n, scratch);
        wrong +=
            !same_bits(got.data(), &all[static_cast<std::size_t>(first) * shape.rows], got.size());
      }
      for (const int n : {65, 100, 128, 129, 200, 256}) {
        const int first = random.below(kMost - n + 1);
        const auto part = some_rows(x, first, n, shape.cols);
        const auto got = store(packed, make_operand(part, n, shape.cols, type), n, scratch);
        wrong +=
            !same_bits(got.data(), &all[static_cast<std::size_t>(first) * shape.rows], got.size());
      }
      for (const cuda::ProductSchedule& schedule :
           {cuda::ProductSchedule{1, 1, 1, 1, 2}, cuda::ProductSchedule{3, 2, 1, 5, 3},
            cuda::ProductSchedule{2, 4, 2, 4, 2}, cuda::ProductSchedule{5, 1, 4, 3, 3},
            cuda::ProductSchedule{1, 1, 1, 16, 1}}) {
        const auto got =
            store(packed, make_operand(x, kMost, shape.cols, type), kMost, scratch, &schedule);
        wrong += !same_bits(got.data(), all.data(), all.size());
      }
      CHECK(wrong == 0);
    }
}

TEST_CASE("cuda product of float32 weights: float's range, and what is no number" *
          doctest::skip(!has_gpu())) {
  Random random(36);
  const Scratch scratch;
  const TensorCore core = TensorCore::of_gpu(DataType::f32);
  constexpr int kRows = 40;
  constexpr int kCols = 72;
  constexpr int kTokens = 11;
  TestMatrix w(random, DataType::f32, kRows, kCols);
  // Far below f16's smallest number and far above its largest, in each row and column.
  for (int r = 0; r < kRows; ++r)
    for (int c = 0; c < kCols; ++c)
      w.set(r, c, std::ldexp(random.normal(), (r * 7 + c * 3) % 41 - 20));
  auto x = activations(random, kTokens, kCols);
  for (std::size_t i = 0; i < x.size(); ++i) x[i] = std::ldexp(x[i], static_cast<int>(i % 53) - 26);
  for (const Kept kept : {kTf32, kFloat32}) {
    CAPTURE(name(kept));
    const auto product = [&](const TestMatrix& matrix, const std::vector<float>& values) {
      const Device<float> in(values);
      const Device<float> out(static_cast<std::size_t>(kTokens) * kRows);
      const GpuMatrix packed(matrix, kept);
      require_ok(cuda::project({kTokens, in.get(), packed.packed(), out.get()}, scratch.launch()));
      return out.host();
    };
    const auto got = product(w, x);
    Side left{rounded_weights(w, kept).data, {}};
    Side right{x, {}};
    for (float& value : right.values) value = rounded(value, kept);
    left.powers = powers(left.values, DataType::f32);
    right.powers = powers(right.values, DataType::f32);
    double worst = 0;
    for (int t = 0; t < kTokens; ++t)
      for (int r = 0; r < kRows; ++r) {
        const Sum sum = kept.full_precision ? full_sum_of(left, r, right, t, kCols, core)
                                            : sum_of(left, r, right, t, kCols, 1, core);
        const double difference =
            std::fabs(sum.exact - got[static_cast<std::size_t>(t) * kRows + r]);
        worst = std::isnan(difference) ? INFINITY : std::fmax(worst, difference / sum.bound);
      }
    CHECK(worst <= 1.0);

    // A token or a row that holds something else spoils its own sums, no others; a NaN stays one
    // even where all its bits are among those that TF32 has not.
    for (const std::uint32_t bits : {0x7f800001u, 0xffc00000u, 0x7f800000u, 0xff7fffffu}) {
      CAPTURE(bits);
      float value;
      std::memcpy(&value, &bits, sizeof value);
      constexpr int kToken = 9;
      constexpr int kRow = 21;
      auto broken_x = x;
      broken_x[kToken * kCols + 70] = value;
      TestMatrix broken_w = w;
      broken_w.set(kRow, 3, value);
      const auto by_token = product(w, broken_x);
      const auto by_row = product(broken_w, x);
      int finite = 0;
      int infinite = 0;
      int changed = 0;
      for (int t = 0; t < kTokens; ++t)
        for (int r = 0; r < kRows; ++r) {
          const std::size_t at = static_cast<std::size_t>(t) * kRows + r;
          const auto look_at = [&](float now, bool broken, float factor) {
            if (!broken) {
              changed += !same_bits(&now, &got[at], 1);
            } else if (factor != 0) {
              finite += std::isfinite(now);
              infinite += std::isinf(now);
            }
          };
          look_at(by_token[at], t == kToken,
                  w.dense().data[static_cast<std::size_t>(r) * kCols + 70]);
          look_at(by_row[at], r == kRow, right.values[static_cast<std::size_t>(t) * kCols + 3]);
        }
      CHECK(changed == 0);
      CHECK(finite == 0);  // of -FLT_MAX the nearest TF32 is infinity
      CHECK((infinite > 0) == !std::isnan(value));
    }
  }
}

TEST_CASE("cuda product: sums go over the columns in ascending steps, even and odd ones apart" *
          doctest::skip(!has_gpu())) {
  // A row has a large product in one step, its negative in another, 1 in a third: what is left says
  // whether the 1 came while the large one was there.
  Random random(37);
  const Scratch scratch;
  constexpr int kCols = 96;
  constexpr float kLarge = 0x1p15f;
  for (const Kept kept : {kTf32, kFloat32, Kept(DataType::f32)}) {
    CAPTURE(name(kept));
    const int step = operand_of(kept) == DataType::f32 ? 8 : 16;
    const int steps = kCols / step;
    struct Places {
      int large;
      int negative;
      int one;
    };
    std::vector<Places> rows;
    for (int large = 0; large < steps; ++large)
      for (int negative = large + 1; negative < steps; ++negative)
        for (int one = 0; one < steps; ++one)
          if (one != large && one != negative) rows.push_back({large, negative, one});
    const int count = static_cast<int>(rows.size());
    TestMatrix w(random, DataType::f32, count, kCols);
    for (int r = 0; r < count; ++r) {
      for (int c = 0; c < kCols; ++c) w.set(r, c, 0);
      const Places& at = rows[static_cast<std::size_t>(r)];
      w.set(r, at.large * step + random.below(step), kLarge);
      w.set(r, at.negative * step + random.below(step), -kLarge);
      w.set(r, at.one * step + random.below(step), 1 / kLarge);
    }
    for (const int tokens : {1, 9, 40}) {
      const std::vector<float> x(static_cast<std::size_t>(tokens) * kCols, kLarge);
      const GpuMatrix packed(w, kept);
      const int chains = cuda::num_chains(packed.packed());
      const auto got = store(packed, make_operand(x, tokens, kCols, kept), tokens, scratch);
      int wrong = 0;
      for (std::size_t i = 0; i < got.size(); ++i) {
        const Places& at = rows[i % rows.size()];
        const auto together = [&](int a, int b) { return a % chains == b % chains; };
        const bool left = together(at.large, at.negative) &&
                          (at.one > at.negative || !together(at.one, at.large));
        wrong += got[i] != (left ? 1.0f : 0.0f);
      }
      CHECK(wrong == 0);
    }
  }
}

TEST_CASE("cuda product: quantised weights that are kept as f16 keep their bits" *
          doctest::skip(!has_gpu())) {
  Random random(36);
  const Scratch scratch;
  for (const Kept type : kept_types()) {
    if (!is_quantised(type.type)) continue;
    const Kept unpacked(type.type, DataType::f16, false);
    for (const Shape shape : shapes(type)) {
      CAPTURE(name(type));
      CAPTURE(shape.rows);
      const TestMatrix matrix(random, type.type, shape.rows, shape.cols);
      const GpuMatrix as_stored(matrix, type);
      const GpuMatrix as_f16(matrix, unpacked);
      // One column a token: the weights themselves.
      std::vector<float> unit(static_cast<std::size_t>(shape.cols) * shape.cols);
      for (std::size_t i = 0; i < unit.size(); i += static_cast<std::size_t>(shape.cols) + 1)
        unit[i] = 1;
      for (const auto& [x, tokens] :
           {std::pair{unit, shape.cols}, {activations(random, 9, shape.cols), 9}}) {
        const auto operand = make_operand(x, tokens, shape.cols, type);
        const auto expected = store(as_stored, operand, tokens, scratch);
        CHECK(same_bits(store(as_f16, operand, tokens, scratch).data(), expected.data(),
                        expected.size()));
      }
    }
  }
}

TEST_CASE("cuda norm_head, norm_gate_up, project_residual: against the reference" *
          doctest::skip(!has_gpu())) {
  Random random(34);
  const Scratch scratch;
  for (const Kept type : kept_types())
    for (const auto& [shape, tokens] :
         {std::pair(Shape{96, 64}, 11), std::pair(Shape{130, 576}, 16),
          std::pair(Shape{130, 576}, 19)}) {
      CAPTURE(name(type));
      CAPTURE(tokens);
      const TestMatrix w(random, type.type, shape.rows, shape.cols);
      const auto dense = rounded_weights(w, type);
      const auto x = activations(random, tokens, shape.cols);
      const auto norm = norm_weights(random, shape.cols);
      const Device<float> x_device(x);
      const Device<float> norm_device(norm);
      // Of every activation, plus sums in float.
      const double step = activation_step(type);
      const auto magnitudes = [&](int row, bool with_norm) {
        double square = 0;
        for (int c = 0; c < shape.cols; ++c)
          square +=
              std::pow(static_cast<double>(x[static_cast<std::size_t>(row) * shape.cols + c]), 2);
        const double scale = with_norm ? 1.0 / std::sqrt(square / shape.cols + 1e-5) : 1.0;
        std::vector<double> sums(static_cast<std::size_t>(shape.rows));
        for (int r = 0; r < shape.rows; ++r)
          for (int c = 0; c < shape.cols; ++c)
            sums[r] +=
                std::fabs(dense.data[static_cast<std::size_t>(r) * shape.cols + c] * scale *
                          x[static_cast<std::size_t>(row) * shape.cols + c] *
                          (with_norm ? norm[c] : 1.0f)) +
                std::fabs(dense.data[static_cast<std::size_t>(r) * shape.cols + c]) * 0x1p-14;
        return sums;
      };
      const auto check = [&](const std::vector<float>& got, const std::vector<float>& expected,
                             const std::vector<int>& rows, bool with_norm) {
        double worst = 0;
        const std::size_t width = static_cast<std::size_t>(shape.rows);
        for (std::size_t i = 0; i < rows.size(); ++i) {
          const auto sums = magnitudes(rows[i], with_norm);
          for (std::size_t r = 0; r < width; ++r) {
            const double difference =
                std::fabs(static_cast<double>(got[i * width + r]) - expected[i * width + r]);
            worst =
                std::isnan(difference)
                    ? INFINITY
                    : std::fmax(worst, difference / (step * sums[r] + bound(sums[r], shape.cols) +
                                                     1e-6 * std::fabs(expected[i * width + r])));
          }
        }
        CHECK(worst <= 1.0);
      };

      const GpuMatrix plain(w, type);
      const std::vector<std::int32_t> ids = {10, 0, 3, 3, 7};
      const Device<std::int32_t> ids_device(ids);
      const Device<float> logits(ids.size() * static_cast<std::size_t>(shape.rows));
      NormHeadParams head{5,     ids_device.get(), x_device.get(), norm_device.get(),
                          1e-5f, plain.packed(),   logits.get()};
      require_ok(cuda::norm_head(head, scratch.launch()));
      std::vector<float> expected(ids.size() * static_cast<std::size_t>(shape.rows));
      head.row_ids = ids.data();
      head.x = x.data();
      head.norm_weight = norm.data();
      head.logits = expected.data();
      reference::norm_head(head, dense);
      check(logits.host(), expected, {ids.begin(), ids.end()}, true);

      std::vector<float> residual(static_cast<std::size_t>(tokens) * shape.rows);
      for (float& v : residual) v = random.normal();
      const Device<float> sum(residual);
      const auto operand = make_operand(x, tokens, shape.cols, type);
      const bool floats = operand_of(type) == DataType::f32;
      const auto* in = floats ? x_device.get() : reinterpret_cast<const float*>(operand.get());
      require_ok(cuda::project_residual({tokens, in, plain.packed(), sum.get(), operand_of(type)},
                                        scratch.launch()));
      reference::project_residual({tokens, x.data(), {}, residual.data()}, dense);
      std::vector<int> all(static_cast<std::size_t>(tokens));
      std::iota(all.begin(), all.end(), 0);
      check(sum.host(), residual, all, false);

      const int ffn = shape.rows / 2;
      const GpuMatrix pairs(w, type, ffn);
      for (const DataType out_type : {DataType::f16, DataType::bf16, DataType::f32}) {
        const Device<std::byte> gated(cuda::operand_bytes(tokens, ffn, 4));
        require_ok(
            cuda::norm_gate_up({tokens, x_device.get(), norm_device.get(), 1e-5f, pairs.packed(),
                                reinterpret_cast<float*>(gated.get()), out_type},
                               scratch.launch()));
        const auto got = read_operand(gated.host(), tokens, ffn, out_type);
        std::vector<float> exact(static_cast<std::size_t>(tokens) * ffn);
        reference::norm_gate_up({tokens, x.data(), norm.data(), 1e-5f, {}, exact.data()}, dense);
        double worst = 0;
        for (int t = 0; t < tokens; ++t) {
          const auto sums = magnitudes(t, true);
          double scale_of_row = 0;
          std::vector<double> up(static_cast<std::size_t>(ffn));
          for (int i = 0; i < ffn; ++i) {
            const double error_gate = step * sums[i] + bound(sums[i], shape.cols);
            const double error_up = step * sums[ffn + i] + bound(sums[ffn + i], shape.cols);
            // |silu'| <= 1.1, |silu(g)| <= |g| <= sums.
            const double limit = 1.1 * error_gate * (sums[ffn + i] + error_up) +
                                 sums[i] * error_up +
                                 (out_type == DataType::bf16  ? 0x1p-8
                                  : out_type == DataType::f16 ? 0x1p-11
                                                              : 0x1p-20) *  // exp and division
                                     std::fabs(exact[static_cast<std::size_t>(t) * ffn + i]) +
                                 1e-6;
            const double difference =
                std::fabs(static_cast<double>(got[static_cast<std::size_t>(t) * ffn + i]) -
                          std::fmin(std::fmax(exact[static_cast<std::size_t>(t) * ffn + i],
                                              out_type == DataType::f16 ? -65504.0f : -INFINITY),
                                    out_type == DataType::f16 ? 65504.0f : INFINITY));
            worst = std::isnan(difference) ? INFINITY : std::fmax(worst, difference / limit);
          }
          (void)scale_of_row;
        }
        CHECK(worst <= 1.0);
      }
    }
}

TEST_CASE("cuda norm_qkv_rope_append: against the reference; every row has its bits alone" *
          doctest::skip(!has_gpu())) {
  Random random(35);
  const Scratch scratch;
  for (const int d : {16, 64, 80, 96, 128})
    for (const Kept type :
         {kTf32, kFloat32, Kept(DataType::q4_1), Kept(DataType::bf16), Kept(DataType::q8_0)}) {
      CAPTURE(d);
      CAPTURE(name(type));
      const int heads = 4;
      const int kv_heads = 2;
      const int cols = 96;
      const int block_size = 16;
      const TestMatrix w(random, type.type, (heads + 2 * kv_heads) * d, cols);
      const auto dense = rounded_weights(w, type);
      const GpuMatrix packed(w, type, d / 2);
      const int n = 9;
      const auto x = activations(random, n, cols);
      const auto norm = norm_weights(random, cols);
      std::vector<float> cosines(static_cast<std::size_t>(40) * d / 2);
      std::vector<float> sines(cosines.size());
      for (std::size_t i = 0; i < cosines.size(); ++i) {
        const float angle = random.uniform(0.0f, 6.0f);
        cosines[i] = std::cos(angle);
        sines[i] = std::sin(angle);
      }
      const auto table = shuffled_blocks(random, 6);
      const std::vector<std::int32_t> slots = {3, 4, 17, 2, 31, 0, 1, 2, 20};
      const std::vector<std::int32_t> positions = {3, 4, 5, 2, 31, 0, 1, 2, 39};
      const SequenceRows sequences[] = {{0, 5, 0, table.data(), 3}, {5, 4, 0, table.data() + 3, 3}};
      TestKv expected_kv(DataType::f16, 6, kv_heads, d, block_size);
      GpuKv got_kv(expected_kv);
      const Device<float> x_device(x);
      const Device<float> norm_device(norm);
      const Device<float> cosines_device(cosines);
      const Device<float> sines_device(sines);
      const Device<float> q(static_cast<std::size_t>(n) * heads * d);
      NormQkvRopeAppendParams params;
      params.batch = {n, positions.data(), slots.data(), nullptr, nullptr, sequences};
      params.norm_eps = 1e-5f;
      params.num_heads = heads;
      std::vector<float> expected(static_cast<std::size_t>(n) * heads * d);
      params.x = x.data();
      params.norm_weight = norm.data();
      params.rope_cos = cosines.data();
      params.rope_sin = sines.data();
      params.kv = expected_kv.layer();
      params.q = expected.data();
      reference::norm_qkv_rope_append(params, dense);

      NormQkvRopeAppendParams on_gpu = params;
      const GpuBatch batch(params.batch);
      on_gpu.batch = batch.view();
      on_gpu.x = x_device.get();
      on_gpu.norm_weight = norm_device.get();
      on_gpu.rope_cos = cosines_device.get();
      on_gpu.rope_sin = sines_device.get();
      on_gpu.qkv = packed.packed();
      on_gpu.kv = got_kv.layer();
      on_gpu.q = q.get();
      require_ok(cuda::norm_qkv_rope_append(on_gpu, scratch.launch()));
      const auto got = q.host();
      // Normed activations are about 1; weights up to 2 with outliers.
      const double step = activation_step(type);
      double worst = 0;
      double largest = 0;
      for (std::size_t i = 0; i < got.size(); ++i) {
        worst = std::fmax(worst, std::fabs(static_cast<double>(got[i]) - expected[i]));
        largest = std::fmax(largest, std::fabs(static_cast<double>(expected[i])));
      }
      CHECK(worst <= 3 * step * largest);

      std::vector<std::byte> keys;
      std::vector<std::byte> values;
      got_kv.read(keys, values);
      const auto compare = [&](const std::vector<std::byte>& a, const std::vector<std::byte>& b) {
        int misplaced = 0;
        double most = 0;
        for (std::size_t i = 0; i < a.size() / 2; ++i) {
          const double u = reference::load_element(a.data(), DataType::f16, i);
          const double v = reference::load_element(b.data(), DataType::f16, i);
          if (std::isnan(u) || std::isnan(v))
            misplaced += std::isnan(u) != std::isnan(v);
          else
            most = std::fmax(most, std::fabs(u - v));
        }
        CHECK(misplaced == 0);
        CHECK(most <= 4 * std::fmax(step, 0x1p-11) * largest);  // the cache's f16
      };
      compare(keys, expected_kv.key_bytes());
      compare(values, expected_kv.value_bytes());

      for (int r = 0; r < n; ++r) {
        const SequenceRows one = {0, 1, 0, sequences[r < 5 ? 0 : 1].block_table, 3};
        const GpuBatch alone(BatchView{1, &positions[r], &slots[r], nullptr, nullptr, {&one, 1}});
        on_gpu.batch = alone.view();
        on_gpu.x = x_device.get() + static_cast<std::size_t>(r) * cols;
        const Device<float> own(static_cast<std::size_t>(heads) * d);
        on_gpu.q = own.get();
        require_ok(cuda::norm_qkv_rope_append(on_gpu, scratch.launch()));
        CHECK(same_bits(own.host().data(), &got[static_cast<std::size_t>(r) * heads * d],
                        static_cast<std::size_t>(heads) * d));
      }
      std::vector<std::byte> keys_alone;
      std::vector<std::byte> values_alone;
      got_kv.read(keys_alone, values_alone);
      CHECK(keys_alone == keys);
      CHECK(values_alone == values);
    }
}
