// Operations that leave their rows as the next product's int8 activations: the same bits as by way
// of floats, at every width and with any number of threads.
#include <doctest/doctest.h>

#include <cmath>

#include "kernel_fixtures.h"
#include "kernels/cpu/row_format.h"
#include "kernels/cpu/thread_pool.h"

using namespace specdec::kernels;
using test::Random;
using test::TestMatrix;

namespace {

// Panels whole and in part, one block of rows and more.
constexpr int kWidths[] = {1, 2, 3, 7, 8, 9, 32, 33, 130};
constexpr float kEps = 1e-5f;

template <typename Body>
void for_each_setting(const Body& body) {
  for (const Isa isa : test::isas()) {
    for (const DataType type : test::weight_types()) {
      if (!is_quantised(type)) continue;
      for (const int threads : {1, 2, 3}) {
        CAPTURE(to_string(isa));
        CAPTURE(test::name(type));
        CAPTURE(threads);
        ThreadPool pool(threads);
        CpuOps ops(isa, pool);
        body(ops, type);
      }
    }
  }
}

}  // namespace

TEST_CASE("operand_type: groups for quantised weights alone") {
  for (const DataType type : test::weight_types())
    CHECK(CpuOps::operand_type(type) == (is_quantised(type) ? DataType::q8_0 : DataType::f32));
}

TEST_CASE("norm_gate_up into project_residual: groups give the bits of floats") {
  Random random(41);
  for_each_setting([&](CpuOps& ops, DataType type) {
    for (const int ffn : {32, 160}) {
      const int cols = 96;
      const int rows = 48;
      const TestMatrix gate_up(random, type, 2 * ffn, cols);
      const TestMatrix down(random, type, rows, ffn);
      const auto norm = test::norm_weights(random, cols);
      for (const int n : kWidths) {
        CAPTURE(n);
        const auto x = test::activations(random, n, cols);
        const auto before = test::activations(random, n, rows);
        const auto run = [&](DataType operand) {
          std::vector<float> between(static_cast<std::size_t>(n) * ffn, NAN);
          auto out = before;
          ops.norm_gate_up(
              {n, x.data(), norm.data(), kEps, gate_up.packed(), between.data(), operand});
          ops.project_residual({n, between.data(), down.packed(), out.data(), operand});
          return out;
        };
        const auto floats = run(DataType::f32);
        CHECK(test::same_bits(run(DataType::q8_0).data(), floats.data(), floats.size()));
      }
    }
  });
}

TEST_CASE("tree_attention into project_residual: groups give the bits of floats") {
  Random random(42);
  constexpr int kContext = 300;
  for_each_setting([&](CpuOps& ops, DataType type) {
    // In heads of 40 a group has values of two.
    for (const int d : {32, 64, 40}) {
      const int heads = 4;
      const int cols = heads * d;
      const int rows = 48;
      const TestMatrix weight(random, type, rows, cols);
      const auto table = test::shuffled_blocks(random, 14);
      test::TestKv kv(DataType::f16, 14, 2, d, 32);
      for (int slot = 0; slot < kContext + 130; ++slot) kv.fill_slot(random, table, slot);
      for (const int n : kWidths) {
        CAPTURE(d);
        CAPTURE(n);
        std::vector<std::int32_t> positions;
        for (int i = 0; i < n; ++i) positions.push_back(kContext + i);
        const SequenceRows sequence = {0, n, kContext, table.data()};
        const BatchView batch = {n,       positions.data(), positions.data(),
                                 nullptr, nullptr,          {&sequence, 1}};
        const auto q = test::activations(random, n, cols);
        const auto before = test::activations(random, n, rows);
        const auto run = [&](DataType operand) {
          std::vector<float> between(static_cast<std::size_t>(n) * cols, NAN);
          auto out = before;
          ops.tree_attention({batch, q.data(), heads, 0.1f, kv.layer(), between.data(), operand});
          ops.project_residual({n, between.data(), weight.packed(), out.data(), operand});
          return out;
        };
        const auto floats = run(DataType::f32);
        CHECK(test::same_bits(run(DataType::q8_0).data(), floats.data(), floats.size()));
      }
    }
  });
}

TEST_CASE("join_entries into norm_qkv_rope_append: groups give the bits of floats") {
  Random random(43);
  for_each_setting([&](CpuOps& ops, DataType type) {
    for (const int hidden : {64, 48}) {  // of 48 a group has values of both
      const int d = 16;
      const TestMatrix qkv(random, type, 4 * d, 2 * hidden);
      const TestMatrix embedding(random, DataType::f16, 20, hidden);
      const auto token_norm = test::norm_weights(random, hidden);
      const auto state_norm = test::norm_weights(random, hidden);
      const std::vector<float> angles(200 * d / 2, 0.6f);
      const auto table = test::shuffled_blocks(random, 5);
      for (const int n : kWidths) {
        CAPTURE(hidden);
        CAPTURE(n);
        std::vector<std::int32_t> positions, tokens;
        for (int i = 0; i < n; ++i) {
          positions.push_back(i);
          tokens.push_back(random.below(20));
        }
        const SequenceRows sequence = {0, n, 0, table.data()};
        const auto states = test::activations(random, n, hidden);
        const auto run = [&](DataType operand, test::TestKv& kv) {
          std::vector<float> joined(static_cast<std::size_t>(n) * 2 * hidden, NAN);
          std::vector<float> q(static_cast<std::size_t>(n) * 2 * d);
          ops.join_entries({.num_rows = n,
                            .tokens = tokens.data(),
                            .table = embedding.packed(),
                            .states = states.data(),
                            .token_norm_weight = token_norm.data(),
                            .state_norm_weight = state_norm.data(),
                            .norm_eps = kEps,
                            .out = joined.data(),
                            .out_type = operand});
          NormQkvRopeAppendParams params;
          params.batch = {n, positions.data(), positions.data(), nullptr, nullptr, {&sequence, 1}};
          params.x = joined.data();
          params.x_type = operand;
          params.qkv = qkv.packed();
          params.num_heads = 2;
          params.rope_cos = params.rope_sin = angles.data();
          params.kv = kv.layer();
          params.q = q.data();
          ops.norm_qkv_rope_append(params);
          return q;
        };
        test::TestKv of_floats(DataType::f16, 5, 1, d, 32);
        test::TestKv of_groups(DataType::f16, 5, 1, d, 32);
        const auto floats = run(DataType::f32, of_floats);
        CHECK(test::same_bits(run(DataType::q8_0, of_groups).data(), floats.data(), floats.size()));
        CHECK(of_groups.key_bytes() == of_floats.key_bytes());
        CHECK(of_groups.value_bytes() == of_floats.value_bytes());
      }
    }
  });
}
