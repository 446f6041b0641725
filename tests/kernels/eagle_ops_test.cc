// What an EAGLE head needs beside a Llama layer: against the double-precision reference, and row
// invariance bit for bit.
#include <doctest/doctest.h>

#include <cmath>
#include <limits>

#include "kernel_fixtures.h"
#include "kernels/cpu/thread_pool.h"
#include "kernels/reference/kv_access.h"

using namespace specdec::kernels;
using test::Random;
using test::TestMatrix;

TEST_CASE("project: what project_residual adds to nothing, for every type and width") {
  Random random(31);
  for (const Isa isa : test::isas()) {
    ThreadPool pool(2);
    CpuOps ops(isa, pool);
    for (const DataType type : test::weight_types()) {
      CAPTURE(test::name(type));
      const TestMatrix w(random, type, 80, 64);
      for (const int rows : {1, 2, 9, 64, 130}) {
        const auto in = test::activations(random, rows, 64);
        std::vector<float> got(static_cast<std::size_t>(rows) * 80, NAN);
        std::vector<float> expected(got.size(), 0.0f);
        ops.project({rows, in.data(), w.packed(), got.data()});
        ops.project_residual({rows, in.data(), w.packed(), expected.data()});
        CHECK(got == expected);
      }
    }
  }
}

TEST_CASE("join_entries: both norms side by side, whatever rows ride along") {
  Random random(32);
  constexpr int kVocab = 90;
  constexpr int kRows = 67;
  for (const Isa isa : test::isas()) {
    ThreadPool pool(3);
    CpuOps ops(isa, pool);
    for (const DataType type : test::weight_types())
      for (const int hidden : {32, 576}) {
        CAPTURE(test::name(type));
        CAPTURE(hidden);
        const TestMatrix table(random, type, kVocab, hidden);
        const auto width = static_cast<std::size_t>(hidden);
        auto states = test::activations(random, kRows, hidden);
        const auto token_norm = test::norm_weights(random, hidden);
        const auto state_norm = test::norm_weights(random, hidden);
        std::vector<std::int32_t> tokens, state_rows;
        for (int r = 0; r < kRows; ++r) {
          tokens.push_back(random.below(kVocab));
          state_rows.push_back(random.below(kRows));
        }
        std::vector<float> got(kRows * 2 * width), expected(got.size());
        std::vector<float> residual(kRows * width), expected_residual(residual.size());
        JoinEntriesParams params{.num_rows = kRows,
                                 .tokens = tokens.data(),
                                 .table = table.packed(),
                                 .states = states.data(),
                                 .state_rows = state_rows.data(),
                                 .token_norm_weight = token_norm.data(),
                                 .state_norm_weight = state_norm.data(),
                                 .norm_eps = 1e-5f,
                                 .out = got.data(),
                                 .residual = residual.data()};
        ops.join_entries(params);
        params.out = expected.data();
        params.residual = expected_residual.data();
        reference::join_entries(params, table.dense());
        double worst = 0;
        for (std::size_t i = 0; i < got.size(); ++i)
          worst = std::fmax(worst, std::fabs(static_cast<double>(got[i]) - expected[i]) /
                                       (1e-5 * std::fabs(expected[i]) + 1e-30));
        CHECK(worst <= 1.0);
        CHECK(residual == expected_residual);

        // A row alone, its state given directly.
        int wrong = 0;
        std::vector<float> alone(2 * width);
        for (std::size_t r = 0; r < kRows; ++r) {
          JoinEntriesParams one = params;
          one.num_rows = 1;
          one.tokens = &tokens[r];
          one.states = &states[static_cast<std::size_t>(state_rows[r]) * width];
          one.state_rows = nullptr;
          one.out = alone.data();
          one.residual = nullptr;
          ops.join_entries(one);
          wrong += !test::same_bits(alone.data(), &got[r * alone.size()], alone.size());
        }
        CHECK(wrong == 0);
        // The residual as it is joined, in place of the states.
        params.state_rows = nullptr;
        params.residual = states.data();
        params.normed_residual = true;
        ops.join_entries(params);
        for (std::size_t r = 0; r < kRows; ++r)
          CHECK(test::same_bits(&states[r * width], &expected[r * alone.size() + width], width));
      }
  }
}

TEST_CASE("copy_rows: by row ids on either side") {
  SerialExecutor serial;
  CpuOps ops(test::isas().front(), serial);
  const std::vector<float> source = {0, 1, 2, 3, 4, 5, 6, 7};
  std::vector<float> out(8, -1);
  const std::vector<std::int32_t> from = {3, 0};
  const std::vector<std::int32_t> to = {1, 2};
  ops.copy_rows({2, 2, source.data(), from.data(), out.data(), to.data()});
  CHECK(out == std::vector<float>{-1, -1, 6, 7, 0, 1, -1, -1});
  ops.copy_rows({2, 2, source.data(), nullptr, out.data(), to.data()});
  CHECK(out == std::vector<float>{-1, -1, 0, 1, 2, 3, -1, -1});
  std::vector<float> expected(8, -1);
  reference::copy_rows({1, 2, source.data(), from.data(), out.data(), nullptr});
  ops.copy_rows({1, 2, source.data(), from.data(), expected.data(), nullptr});
  CHECK(out[0] == expected[0]);
}

TEST_CASE("qkv without a norm: the input as it is") {
  Random random(33);
  const int d = 16;
  const int n = 7;
  for (const Isa isa : test::isas()) {
    SerialExecutor serial;
    CpuOps ops(isa, serial);
    const TestMatrix w(random, DataType::f32, 4 * d, 64);
    const auto x = test::activations(random, n, 64);
    const std::vector<float> cosines(static_cast<std::size_t>(n) * d / 2, 1.0f);
    const std::vector<float> sines(cosines.size(), 0.0f);
    const std::vector<std::int32_t> table = {0};
    const std::vector<std::int32_t> slots = {0, 1, 2, 3, 4, 5, 6};
    const SequenceRows sequence = {0, n, 0, table.data()};
    test::TestKv kv(DataType::f32, 1, 1, d, 16);
    std::vector<float> q(static_cast<std::size_t>(n) * 2 * d);
    NormQkvRopeAppendParams params;
    params.batch = {n, slots.data(), slots.data(), nullptr, nullptr, {&sequence, 1}};
    params.x = x.data();
    params.qkv = w.packed();
    params.num_heads = 2;
    params.rope_cos = cosines.data();
    params.rope_sin = sines.data();
    params.kv = kv.layer();
    params.q = q.data();
    ops.norm_qkv_rope_append(params);
    for (int r = 0; r < n; ++r)
      for (int i = 0; i < 2 * d; ++i) {
        double sum = 0;
        double magnitude = 0;
        for (int c = 0; c < 64; ++c) {
          const double product = static_cast<double>(w.dense().data[i * 64 + c]) * x[r * 64 + c];
          sum += product;
          magnitude += std::fabs(product);
        }
        CHECK(std::fabs(q[r * 2 * d + i] - sum) <= 4e-6 * magnitude + 1e-30);
      }
  }
}

TEST_CASE("attention from a first position on: what lies before it has no say") {
  Random random(34);
  const int heads = 6;
  const int kv_heads = 2;
  const int d = 32;
  for (const Isa isa : test::isas()) {
    for (const int threads : {1, 3}) {
      ThreadPool pool(threads);
      CpuOps ops(isa, pool);
      for (const int first : {1, 2, 17, 127}) {
        const auto table = test::shuffled_blocks(random, 40);
        test::TestKv kv(DataType::f32, 40, kv_heads, d, 16);
        for (int p = 0; p < 420; ++p) kv.fill_slot(random, table, p);
        // Linear rows, and nodes of a tree whose own slots lie elsewhere.
        for (const int position : {first, first + 1, 127, 128, 300, 400}) {
          CAPTURE(first);
          CAPTURE(position);
          for (const bool tree : {false, true}) {
            const int context = std::max(0, position - 3);
            std::vector<std::int32_t> path;
            for (int p = context; p <= position; ++p) path.push_back(tree ? p + 10 : p);
            const std::int32_t offset = tree ? 0 : -1;
            const std::int32_t at = position;
            const SequenceRows sequence = {0, 1, context, table.data()};
            const BatchView batch = {1, &at, &path.back(), &offset, path.data(), {&sequence, 1}};
            std::vector<float> q(static_cast<std::size_t>(heads) * d);
            for (float& v : q) v = random.normal();
            std::vector<float> got(q.size());
            std::vector<float> expected(q.size());
            TreeAttentionParams params{.batch = batch,
                                       .q = q.data(),
                                       .num_heads = heads,
                                       .scale = 0.2f,
                                       .kv = kv.layer(),
                                       .out = got.data(),
                                       .first_position = first};
            ops.tree_attention(params);
            params.out = expected.data();
            reference::tree_attention(params);
            double worst = 0;
            for (std::size_t i = 0; i < got.size(); ++i)
              worst = std::fmax(worst, std::fabs(static_cast<double>(got[i]) - expected[i]));
            CHECK(worst < 1e-4);
          }
        }
      }
    }
  }
}
