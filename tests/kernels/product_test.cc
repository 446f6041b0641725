// The ops that multiply by a weight matrix: against the double-precision reference, and row
// invariance bit for bit.
#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <string>

#include "kernel_fixtures.h"
#include "kernels/cpu/row_format.h"
#include "kernels/cpu/thread_pool.h"
#include "kernels/reference/kv_access.h"

using namespace specdec::kernels;
using test::Random;
using test::TestMatrix;

namespace {

/// An int8 activation, as the kernels quantise it: independent code, same float steps.
std::vector<double> quantised(const float* x, int cols) {
  std::vector<double> out(static_cast<std::size_t>(cols));
  for (int g = 0; g < cols; g += 32) {
    float amax = 0;
    for (int i = g; i < g + 32; ++i) amax = std::fmax(amax, std::fabs(x[i]));
    if (amax < 1e-35f) continue;
    const float inverse = 127.0f / amax;
    const float d = amax / 127.0f;
    for (int i = g; i < g + 32; ++i) {
      out[i] = static_cast<double>(d) * std::nearbyint(x[i] * inverse);
    }
  }
  return out;
}

std::vector<double> normed(const float* x, const std::vector<float>& weight, float eps) {
  double sum = 0;
  const int n = static_cast<int>(weight.size());
  for (int i = 0; i < n; ++i) sum += static_cast<double>(x[i]) * x[i];
  std::vector<double> out(weight.size());
  for (int i = 0; i < n; ++i) out[i] = x[i] / std::sqrt(sum / n + eps) * weight[i];
  return out;
}

/// How far a kernel's W x may lie from the exact one: half a step of every int8 activation, plus
/// float rounding.
std::vector<double> product_bound(const reference::DenseMatrix& w, const std::vector<double>& x,
                                  bool quantised_weights) {
  std::vector<double> bound(static_cast<std::size_t>(w.rows));
  for (int r = 0; r < w.rows; ++r) {
    double quantisation = 0;
    double rounding = 0;
    for (int g = 0; g < w.cols; g += 32) {
      double amax = 0;
      double weights = 0;
      for (int c = g; c < std::min(w.cols, g + 32); ++c) {
        const double weight = std::fabs(w.data[static_cast<std::size_t>(r) * w.cols + c]);
        amax = std::fmax(amax, std::fabs(x[c]));
        weights += weight;
        rounding += weight * std::fabs(x[c]);
      }
      quantisation += amax / 254.0 * weights;
      // q4_1 multiplies its minimum by the whole sum: cancellation inside a group costs more.
      rounding += 8 * amax * weights * (quantised_weights ? 1 : 0);
    }
    bound[r] = (quantised_weights ? 1.001 * quantisation : 0.0) + 4e-6 * rounding + 1e-30;
  }
  return bound;
}

struct Shape {
  int rows;
  int cols;
};

std::vector<Shape> shapes(DataType type) {
  if (is_quantised(type)) return {{48, 64}, {37, 32}, {16, 160}, {130, 576}};
  return {{48, 64}, {37, 1}, {5, 33}, {130, 197}};
}

}  // namespace

TEST_CASE("project_residual: equals exact arithmetic on the quantised activations") {
  Random random(11);
  for (const Isa isa : test::isas()) {
    SerialExecutor serial;
    CpuOps ops(isa, serial);
    for (const DataType type : test::weight_types()) {
      for (const Shape shape : shapes(type)) {
        CAPTURE(to_string(isa));
        CAPTURE(test::name(type));
        const TestMatrix w(random, type, shape.rows, shape.cols);
        const int n = 11;
        const auto in = test::activations(random, n, shape.cols);
        std::vector<float> x(static_cast<std::size_t>(n) * shape.rows);
        for (float& v : x) v = random.normal();
        const auto before = x;
        ops.project_residual({n, in.data(), w.packed(), x.data()});
        double worst = 0;
        for (int i = 0; i < n; ++i) {
          const float* row = in.data() + static_cast<std::size_t>(i) * shape.cols;
          const std::vector<double> q = is_quantised(type)
                                            ? quantised(row, shape.cols)
                                            : std::vector<double>(row, row + shape.cols);
          for (int r = 0; r < shape.rows; ++r) {
            double sum = 0;
            double magnitude = 0;
            for (int c = 0; c < shape.cols; ++c) {
              const double weight = w.dense().data[static_cast<std::size_t>(r) * shape.cols + c];
              sum += weight * q[c];
              magnitude += std::fabs(weight * q[c]);
            }
            const std::size_t at = static_cast<std::size_t>(i) * shape.rows + r;
            const double residual = before[at];
            // One float rounding a group or step, on running sums no larger than `magnitude`; the
            // factor covers q4_1's minimum, whose part may cancel.
            const double bound = 4e-6 * (magnitude + std::fabs(residual)) + 1e-30;
            worst = std::fmax(worst, std::fabs(x[at] - (residual + sum)) / bound);
          }
        }
        CHECK(worst <= 1.0);
      }
    }
  }
}

TEST_CASE("norm_head: within half a quantisation step of the reference; rows by row_ids") {
  Random random(12);
  for (const Isa isa : test::isas()) {
    SerialExecutor serial;
    CpuOps ops(isa, serial);
    for (const DataType type : test::weight_types()) {
      for (const Shape shape : shapes(type)) {
        CAPTURE(to_string(isa));
        CAPTURE(test::name(type));
        const TestMatrix w(random, type, shape.rows, shape.cols);
        const auto x = test::activations(random, 9, shape.cols);
        const auto norm = test::norm_weights(random, shape.cols);
        const std::vector<std::int32_t> ids = {8, 0, 3, 3, 7};
        std::vector<float> got(ids.size() * shape.rows);
        std::vector<float> expected(got.size());
        NormHeadParams params{5, ids.data(), x.data(), norm.data(), 1e-5f, w.packed(), got.data()};
        ops.norm_head(params);
        params.logits = expected.data();
        reference::norm_head(params, w.dense());
        double worst = 0;
        for (std::size_t i = 0; i < ids.size(); ++i) {
          const auto y =
              normed(x.data() + static_cast<std::size_t>(ids[i]) * shape.cols, norm, 1e-5f);
          const auto bound = product_bound(w.dense(), y, is_quantised(type));
          for (int r = 0; r < shape.rows; ++r) {
            const std::size_t at = i * shape.rows + r;
            worst =
                std::fmax(worst, std::fabs(static_cast<double>(got[at]) - expected[at]) / bound[r]);
          }
        }
        CHECK(worst <= 1.0);
      }
    }
  }
}

TEST_CASE("norm_gate_up: silu(gate) * up within the products' bounds; any ffn size") {
  Random random(13);
  for (const Isa isa : test::isas()) {
    SerialExecutor serial;
    CpuOps ops(isa, serial);
    for (const DataType type : test::weight_types()) {
      for (const int ffn : {48, 37}) {
        CAPTURE(to_string(isa));
        CAPTURE(test::name(type));
        CAPTURE(ffn);
        const int cols = 96;
        const int n = 10;
        const TestMatrix w(random, type, 2 * ffn, cols);
        const auto x = test::activations(random, n, cols);
        const auto norm = test::norm_weights(random, cols);
        std::vector<float> got(static_cast<std::size_t>(n) * ffn);
        std::vector<float> expected(got.size());
        NormGateUpParams params{n, x.data(), norm.data(), 1e-5f, w.packed(), got.data()};
        ops.norm_gate_up(params);
        params.out = expected.data();
        reference::norm_gate_up(params, w.dense());
        double worst = 0;
        for (int i = 0; i < n; ++i) {
          const auto y = normed(x.data() + static_cast<std::size_t>(i) * cols, norm, 1e-5f);
          const auto bound = product_bound(w.dense(), y, is_quantised(type));
          for (int r = 0; r < ffn; ++r) {
            double gate = 0;
            double up = 0;
            for (int c = 0; c < cols; ++c) {
              gate += w.dense().data[static_cast<std::size_t>(r) * cols + c] * y[c];
              up += w.dense().data[static_cast<std::size_t>(ffn + r) * cols + c] * y[c];
            }
            // |silu'| <= 1.1 and |silu(g)| <= |g|.
            const double limit = 1.1 * bound[r] * (std::fabs(up) + bound[ffn + r]) +
                                 std::fabs(gate) * bound[ffn + r] + 4e-6 * std::fabs(gate * up) +
                                 1e-30;
            const std::size_t at = static_cast<std::size_t>(i) * ffn + r;
            worst =
                std::fmax(worst, std::fabs(static_cast<double>(got[at]) - expected[at]) / limit);
          }
        }
        CHECK(worst <= 1.0);
      }
    }
  }
}

TEST_CASE("embed_rows: exactly the dequantised rows") {
  Random random(14);
  SerialExecutor serial;
  CpuOps ops(test::isas().front(), serial);
  for (const DataType type : test::weight_types()) {
    const TestMatrix table(random, type, 50, 64);
    std::vector<std::int32_t> tokens(70);
    for (auto& t : tokens) t = random.below(50);
    std::vector<float> out(tokens.size() * 64);
    ops.embed_rows({70, tokens.data(), table.packed(), out.data()});
    std::vector<float> expected(64);
    for (std::size_t i = 0; i < tokens.size(); ++i) {
      convert_row_to_f32(type, 64, table.row(tokens[i]), expected.data());
      CHECK(test::same_bits(out.data() + i * 64, expected.data(), 64));
    }
  }
}

TEST_CASE("norm_qkv_rope_append: q, and K and V in their slots, against the reference") {
  Random random(15);
  for (const Isa isa : test::isas()) {
    ThreadPool pool(2);
    CpuOps ops(isa, pool);
    for (const DataType kv_type : {DataType::f16, DataType::f32}) {
      for (const int d : {16, 24, 64, 128}) {
        CAPTURE(to_string(isa));
        CAPTURE(d);
        const int heads = 4;
        const int kv_heads = 2;
        const int cols = 64;
        const int block_size = d == 24 ? 32 : 16;
        const DataType type = d == 64 ? DataType::f32 : DataType::q8_0;
        const TestMatrix w(random, type, (heads + 2 * kv_heads) * d, cols);
        const int n = 9;
        const auto x = test::activations(random, n, cols);
        const auto norm = test::norm_weights(random, cols);
        std::vector<float> cosines(static_cast<std::size_t>(n) * d / 2);
        std::vector<float> sines(cosines.size());
        for (std::size_t i = 0; i < cosines.size(); ++i) {
          const float angle = random.uniform(0.0f, 6.0f);
          cosines[i] = std::cos(angle);
          sines[i] = std::sin(angle);
        }
        const auto table = test::shuffled_blocks(random, 6);
        // Two sequences; slots are not positions.
        const std::vector<std::int32_t> slots = {3, 4, 17, 2, 31, 0, 1, 2, 20};
        const std::vector<std::int32_t> positions = {0, 1, 2, 3, 4, 5, 6, 7, 8};
        const SequenceRows sequences[] = {{0, 5, 0, table.data()}, {5, 4, 0, table.data() + 3}};
        test::TestKv got_kv(kv_type, 6, kv_heads, d, block_size);
        test::TestKv expected_kv(kv_type, 6, kv_heads, d, block_size);
        std::vector<float> got(static_cast<std::size_t>(n) * heads * d);
        std::vector<float> expected(got.size());
        NormQkvRopeAppendParams params;
        params.batch = {n, positions.data(), slots.data(), nullptr, nullptr, sequences};
        params.x = x.data();
        params.norm_weight = norm.data();
        params.norm_eps = 1e-5f;
        params.qkv = w.packed();
        params.num_heads = heads;
        params.rope_cos = cosines.data();
        params.rope_sin = sines.data();
        params.kv = got_kv.layer();
        params.q = got.data();
        ops.norm_qkv_rope_append(params);
        params.kv = expected_kv.layer();
        params.q = expected.data();
        reference::norm_qkv_rope_append(params, w.dense());
        double worst = 0;
        double largest_bound = 0;
        for (int i = 0; i < n; ++i) {
          const auto y = normed(x.data() + static_cast<std::size_t>(i) * cols, norm, 1e-5f);
          const auto bound = product_bound(w.dense(), y, is_quantised(type));
          for (int r = 0; r < heads * d; ++r) {
            const int partner = r % d < d / 2 ? r + d / 2 : r - d / 2;
            const std::size_t at = static_cast<std::size_t>(i) * heads * d + r;
            const double limit = bound[r] + bound[partner] + 1e-5 * std::fabs(expected[at]);
            worst =
                std::fmax(worst, std::fabs(static_cast<double>(got[at]) - expected[at]) / limit);
          }
          largest_bound = std::fmax(largest_bound, *std::max_element(bound.begin(), bound.end()));
        }
        CHECK(worst <= 1.0);
        // K and V: same places written, values within the bound and the type's rounding.
        const auto compare = [&](const void* a, const void* b, std::size_t bytes) {
          const std::size_t count = bytes / (kv_type == DataType::f32 ? 4 : 2);
          int wrong = 0;
          for (std::size_t i = 0; i < count; ++i) {
            const double u = reference::load_element(a, kv_type, i);
            const double v = reference::load_element(b, kv_type, i);
            if (std::isnan(u) || std::isnan(v)) {
              wrong += std::isnan(u) != std::isnan(v);
            } else {
              wrong += std::fabs(u - v) > 2 * largest_bound + 2e-3 * std::fabs(v);
            }
          }
          return wrong;
        };
        CHECK(compare(got_kv.layer().keys, expected_kv.layer().keys, got_kv.key_bytes().size()) ==
              0);
        CHECK(compare(got_kv.layer().values, expected_kv.layer().values,
                      got_kv.value_bytes().size()) == 0);
      }
    }
  }
}

TEST_CASE("row invariance: every width, any neighbours, any number of threads, bit for bit") {
  Random random(16);
  const int cols = 96;
  const int rows = 160;
  const int most = 300;
  std::vector<int> widths;
  for (int w = 1; w <= 64; ++w) widths.push_back(w);
  for (const int w : {127, 128, 129, 200, 300}) widths.push_back(w);
  for (const Isa isa : test::isas()) {
    for (const DataType type : test::weight_types()) {
      CAPTURE(to_string(isa));
      CAPTURE(test::name(type));
      const TestMatrix w(random, type, rows, cols);
      const auto x = test::activations(random, most, cols);
      const auto norm = test::norm_weights(random, cols);
      const auto residual = test::activations(random, most, rows);
      // Width 1, one thread: what every other run must reproduce.
      std::vector<float> head(static_cast<std::size_t>(most) * rows);
      std::vector<float> ffn(static_cast<std::size_t>(most) * rows / 2);
      std::vector<float> sum = residual;
      SerialExecutor serial;
      CpuOps alone(isa, serial);
      for (std::int32_t i = 0; i < most; ++i) {
        const float* xi = x.data() + static_cast<std::size_t>(i) * cols;
        alone.norm_head({1, &i, x.data(), norm.data(), 1e-5f, w.packed(), &head[i * rows]});
        alone.norm_gate_up({1, xi, norm.data(), 1e-5f, w.packed(), &ffn[i * rows / 2]});
        alone.project_residual({1, xi, w.packed(), &sum[i * rows]});
      }
      for (const int threads : {1, 2, 4}) {
        ThreadPool pool(threads);
        CpuOps ops(isa, pool);
        int wrong = 0;
        for (std::size_t k = threads == 1 ? 0 : 2; k < widths.size(); k += threads) {
          const int n = widths[k];
          std::vector<std::int32_t> ids(n);
          for (auto& id : ids) id = random.below(most);
          std::vector<float> got(static_cast<std::size_t>(n) * rows);
          ops.norm_head({n, ids.data(), x.data(), norm.data(), 1e-5f, w.packed(), got.data()});
          for (int i = 0; i < n; ++i) {
            wrong += !test::same_bits(&got[i * rows], &head[ids[i] * rows], rows);
          }
          const int first = random.below(most - n + 1);
          const float* xi = x.data() + static_cast<std::size_t>(first) * cols;
          got.assign(static_cast<std::size_t>(n) * rows / 2, 0.0f);
          ops.norm_gate_up({n, xi, norm.data(), 1e-5f, w.packed(), got.data()});
          wrong += !test::same_bits(got.data(), &ffn[first * rows / 2], got.size());
          got.assign(residual.begin() + first * rows, residual.begin() + (first + n) * rows);
          ops.project_residual({n, xi, w.packed(), got.data()});
          wrong += !test::same_bits(got.data(), &sum[first * rows], got.size());
        }
        CHECK(wrong == 0);
      }
    }
  }
}

TEST_CASE("a NaN or infinity in one row stays in that row") {
  Random random(17);
  for (const Isa isa : test::isas()) {
    SerialExecutor serial;
    CpuOps ops(isa, serial);
    for (const DataType type : {DataType::q4_1, DataType::q8_0, DataType::f16}) {
      const TestMatrix w(random, type, 32, 64);
      auto in = test::activations(random, 8, 64);
      std::vector<float> clean(8 * 32);
      ops.project_residual({8, in.data(), w.packed(), clean.data()});
      in[3 * 64 + 5] = NAN;
      in[5 * 64 + 9] = INFINITY;
      std::vector<float> got(8 * 32);
      ops.project_residual({8, in.data(), w.packed(), got.data()});
      for (const int r : {0, 1, 2, 4, 6, 7}) {
        CHECK(test::same_bits(&got[r * 32], &clean[r * 32], 32));
      }
    }
  }
}
