// What an EAGLE head needs beside a Llama layer, on the GPU: against the double-precision
// reference, and row invariance bit for bit.
#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <optional>

#include "gpu_fixtures.h"
#include "kernels/cuda/cuda_ops.h"
#include "kernels/cuda/product.h"
#include "kernels/cuda/rows.h"

using namespace specdec::kernels;
using namespace specdec::kernels::test;

namespace {

const float* as_floats(const Device<std::byte>& operand) {
  return reinterpret_cast<const float*>(operand.get());
}

/// `rows` of a head's input: tokens of a table, states with outliers, the norms of both.
struct Entries {
  static constexpr int kVocab = 70;

  Entries(Random& random, Kept type, int num_rows, int width)
      : rows(num_rows),
        hidden(width),
        table(TestMatrix(random, type.type, kVocab, hidden), type),
        states(activations(random, rows, hidden)),
        token_norm(norm_weights(random, hidden)),
        state_norm(norm_weights(random, hidden)),
        states_device(states),
        token_norm_device(token_norm),
        state_norm_device(state_norm) {
    for (int r = 0; r < rows; ++r) {
      tokens.push_back(random.below(kVocab));
      state_rows.push_back(random.below(rows));
    }
    tokens_device.emplace(tokens);
    state_rows_device.emplace(state_rows);
  }

  /// Rows from `begin` on.
  JoinEntriesParams on_gpu(int begin, int count) const {
    return {.num_rows = count,
            .tokens = tokens_device->get() + begin,
            .table = table.packed(),
            .states = states_device.get(),
            .state_rows = state_rows_device->get() + begin,
            .token_norm_weight = token_norm_device.get(),
            .state_norm_weight = state_norm_device.get(),
            .norm_eps = 1e-5f};
  }
  /// From the table as embed_rows() reads it (product_test).
  std::vector<float> exact(const Scratch& scratch) const {
    std::vector<std::int32_t> all(kVocab);
    for (int i = 0; i < kVocab; ++i) all[static_cast<std::size_t>(i)] = i;
    const Device<std::int32_t> ids(all);
    const Device<float> embedded(static_cast<std::size_t>(kVocab) * hidden);
    require_ok(
        cuda::embed_rows({kVocab, ids.get(), table.packed(), embedded.get()}, scratch.launch()));
    std::vector<float> out(static_cast<std::size_t>(rows) * 2 * hidden);
    reference::join_entries({.num_rows = rows,
                             .tokens = tokens.data(),
                             .states = states.data(),
                             .state_rows = state_rows.data(),
                             .token_norm_weight = token_norm.data(),
                             .state_norm_weight = state_norm.data(),
                             .norm_eps = 1e-5f,
                             .out = out.data()},
                            {kVocab, hidden, embedded.host()});
    return out;
  }
  const float* state(int row) const {
    return &states[static_cast<std::size_t>(state_rows[static_cast<std::size_t>(row)]) * hidden];
  }

  int rows;
  int hidden;
  GpuMatrix table;
  std::vector<float> states, token_norm, state_norm;
  std::vector<std::int32_t> tokens, state_rows;
  Device<float> states_device, token_norm_device, state_norm_device;
  std::optional<Device<std::int32_t>> tokens_device, state_rows_device;
};

}  // namespace

TEST_CASE("cuda project: floats in; the product of their operand, bit for bit, at any width" *
          doctest::skip(!has_gpu())) {
  Random random(51);
  const Scratch scratch;
  constexpr int kRows = 80;
  constexpr int kMost = 130;
  for (const Kept type : kept_types())
    for (const int cols : {64, 576}) {
      CAPTURE(name(type));
      CAPTURE(cols);
      const TestMatrix w(random, type.type, kRows, cols);
      const GpuMatrix packed(w, type);
      const auto in = activations(random, kMost, cols);
      const Device<float> in_device(in);
      // product_test has what an operand's product is.
      const Device<float> all(static_cast<std::size_t>(kMost) * kRows);
      const auto operand_of_all = make_operand(in, kMost, cols, type);
      cuda::Product product;
      product.weight = packed.packed();
      product.tokens = operand_of_all.get();
      product.num_tokens = kMost;
      product.output = cuda::ProductOutput::store;
      product.out = all.get();
      require_ok(cuda::multiply(product, scratch.launch()));
      const auto expected = all.host();

      for (const int n : {1, 2, 7, 8, 9, 33, 64, 65, kMost}) {
        CAPTURE(n);
        const int begin = random.below(kMost - n + 1);
        const float* part = in_device.get() + static_cast<std::size_t>(begin) * cols;
        const Device<float> out(static_cast<std::size_t>(n) * kRows);
        require_ok(cuda::project({n, part, packed.packed(), out.get()}, scratch.launch()));
        const auto got = out.host();
        CHECK(
            same_bits(got.data(), &expected[static_cast<std::size_t>(begin) * kRows], got.size()));
        // The residual's form: from floats and from an operand, added to what is there.
        std::vector<float> residual(got.size());
        for (float& value : residual) value = random.normal();
        std::vector<float> sums(got.size());
        for (std::size_t i = 0; i < sums.size(); ++i) sums[i] = residual[i] + got[i];
        const Device<float> from_floats(residual);
        require_ok(cuda::project_residual({n, part, packed.packed(), from_floats.get()},
                                          scratch.launch()));
        CHECK(same_bits(from_floats.host().data(), sums.data(), sums.size()));
        if (operand_of(type) == DataType::f32) continue;  // ops write floats for it
        const std::vector<float> rows(in.begin() + static_cast<std::ptrdiff_t>(begin) * cols,
                                      in.begin() + static_cast<std::ptrdiff_t>(begin + n) * cols);
        const auto operand = make_operand(rows, n, cols, type);
        const Device<float> from_operand(residual);
        require_ok(cuda::project_residual(
            {n, as_floats(operand), packed.packed(), from_operand.get(), operand_of(type)},
            scratch.launch()));
        CHECK(same_bits(from_operand.host().data(), sums.data(), sums.size()));
      }
      // An operand of the other type is refused, not misread.
      const DataType other = operand_of(type) == DataType::bf16 ? DataType::f16 : DataType::bf16;
      CHECK(cuda::project_residual({1, in_device.get(), packed.packed(), all.get(), other},
                                   scratch.launch()) == cudaErrorInvalidValue);
    }
}

TEST_CASE("cuda join_entries: both norms side by side, whatever rows ride along" *
          doctest::skip(!has_gpu())) {
  Random random(52);
  const Scratch scratch;
  struct Shape {
    Kept type;
    int hidden;
  };
  // Halves that end within a unit of 32 columns, and more columns than a thread keeps.
  std::vector<Shape> shapes = {{Kept(DataType::bf16), 40},   {Kept(DataType::f16), 72},
                               {Kept(DataType::bf16), 104},  {Kept(DataType::bf16), 1032},
                               {Kept(DataType::bf16), 4096}, {Kept(DataType::f16), 16384}};
  for (const Kept type : kept_types()) {
    shapes.push_back({type, 32});
    shapes.push_back({type, 576});
  }
  for (const auto& [type, hidden] : shapes) {
    CAPTURE(name(type));
    CAPTURE(hidden);
    const Entries in(random, type, 19, hidden);
    const std::size_t width = static_cast<std::size_t>(hidden) * 2;
    const auto expected = in.exact(scratch);
    const Device<float> out(expected.size());
    const Device<float> residual(expected.size() / 2);
    JoinEntriesParams params = in.on_gpu(0, in.rows);
    params.out = out.get();
    params.residual = residual.get();
    require_ok(cuda::join_entries(params, scratch.launch()));
    const auto got = out.host();
    double worst = 0;
    for (std::size_t i = 0; i < got.size(); ++i) {
      const double difference = std::fabs(static_cast<double>(got[i]) - expected[i]);
      worst = std::isnan(difference)
                  ? INFINITY
                  : std::fmax(worst, difference / (4e-6 * std::fabs(expected[i]) + 1e-37));
    }
    CHECK(worst <= 1.0);
    const auto kept = residual.host();
    for (int r = 0; r < in.rows; ++r)
      CHECK(same_bits(&kept[static_cast<std::size_t>(r) * hidden], in.state(r),
                      static_cast<std::size_t>(hidden)));

    for (const DataType operand_type : {DataType::f16, DataType::bf16}) {
      // An operand holds the same numbers, rounded; its padding is zero.
      const Device<std::byte> operand(cuda::operand_bytes(in.rows, 2 * hidden));
      params.out = reinterpret_cast<float*>(operand.get());
      params.out_type = operand_type;
      require_ok(cuda::join_entries(params, scratch.launch()));
      const int padded = cuda::padded_cols(2 * hidden);
      const auto read = read_operand(operand.host(), in.rows, padded, operand_type);
      int wrong = 0;
      for (int r = 0; r < in.rows; ++r)
        for (int c = 0; c < padded; ++c) {
          const float element = read[static_cast<std::size_t>(r) * padded + c];
          const float wanted =
              c < 2 * hidden ? rounded(got[r * width + static_cast<std::size_t>(c)], operand_type)
                             : 0.0f;
          wrong += !same_bits(&element, &wanted, 1);
        }
      CHECK(wrong == 0);
    }

    int wrong = 0;
    for (int r = 0; r < in.rows; ++r) {
      JoinEntriesParams one = in.on_gpu(r, 1);
      const Device<float> alone(width);
      one.out = alone.get();
      require_ok(cuda::join_entries(one, scratch.launch()));
      wrong += !same_bits(alone.host().data(), &got[r * width], width);
    }
    CHECK(wrong == 0);

    // The residual as it is joined; then in place of the states.
    JoinEntriesParams normed = in.on_gpu(0, in.rows);
    normed.out = out.get();
    normed.residual = residual.get();
    normed.normed_residual = true;
    require_ok(cuda::join_entries(normed, scratch.launch()));
    const auto check_normed = [&](const std::vector<float>& written) {
      const auto joined = out.host();
      for (int r = 0; r < in.rows; ++r)
        CHECK(same_bits(&written[static_cast<std::size_t>(r) * hidden],
                        &joined[r * width + static_cast<std::size_t>(hidden)],
                        static_cast<std::size_t>(hidden)));
    };
    check_normed(residual.host());
    CHECK(same_bits(out.host().data(), got.data(), got.size()));
    std::vector<float> gathered;
    for (int r = 0; r < in.rows; ++r)
      gathered.insert(gathered.end(), in.state(r), in.state(r) + hidden);
    const Device<float> states(gathered);
    normed.states = states.get();
    normed.state_rows = nullptr;
    normed.residual = states.get();
    require_ok(cuda::join_entries(normed, scratch.launch()));
    check_normed(states.host());
    CHECK(same_bits(out.host().data(), got.data(), got.size()));
  }
}

TEST_CASE("cuda copy_rows: by row ids on either side, more than travel with one launch" *
          doctest::skip(!has_gpu())) {
  Random random(53);
  const Scratch scratch;
  for (const int cols : {1, 6, 64, 4096})
    for (const int count : {1, 3, 480, 481, 1200}) {
      CAPTURE(cols);
      CAPTURE(count);
      if (cols == 4096 && count > 500) continue;
      const int rows = count + 5;
      std::vector<float> source(static_cast<std::size_t>(rows) * cols);
      for (float& value : source) value = random.normal();
      std::vector<std::int32_t> from;
      for (int i = 0; i < count; ++i) from.push_back(random.below(rows));
      std::vector<std::int32_t> to = shuffled_blocks(random, rows);
      to.resize(static_cast<std::size_t>(count));
      const Device<float> source_device(source);
      for (const std::int32_t* source_rows : {from.data(), static_cast<std::int32_t*>(nullptr)})
        for (const std::int32_t* destination_rows :
             {to.data(), static_cast<std::int32_t*>(nullptr)}) {
          std::vector<float> expected(source.size(), -1.0f);
          const Device<float> destination(expected);
          reference::copy_rows(
              {count, cols, source.data(), source_rows, expected.data(), destination_rows});
          require_ok(cuda::copy_rows(
              {count, cols, source_device.get(), source_rows, destination.get(), destination_rows},
              scratch.launch()));
          CHECK(destination.host() == expected);
        }
    }
}

TEST_CASE("cuda qkv without a norm: floats and an operand alike, every row as alone" *
          doctest::skip(!has_gpu())) {
  Random random(54);
  const Scratch scratch;
  constexpr int d = 32;
  constexpr int kHeads = 2;
  constexpr int n = 20;
  constexpr int cols = 80;
  for (const Kept type :
       {kTf32, kFloat32, Kept(DataType::f32), Kept(DataType::bf16), Kept(DataType::f16)})
    for (const DataType cache : {DataType::f16, DataType::f32}) {
      CAPTURE(name(type));
      CAPTURE(name(cache));
      const TestMatrix w(random, type.type, (kHeads + 2) * d, cols);
      const GpuMatrix packed(w, type, d / 2);
      const auto dense = rounded_weights(w, type);
      auto x = activations(random, n, cols);
      for (float& value : x) value = rounded(std::clamp(value, -100.0f, 100.0f), type);
      std::vector<float> cosines(static_cast<std::size_t>(n) * d / 2);
      std::vector<float> sines(cosines.size());
      for (std::size_t i = 0; i < cosines.size(); ++i) {
        const float angle = random.uniform(0.0f, 6.0f);
        cosines[i] = std::cos(angle);
        sines[i] = std::sin(angle);
      }
      std::vector<std::int32_t> slots(n);
      for (int i = 0; i < n; ++i) slots[static_cast<std::size_t>(i)] = i;
      const std::vector<std::int32_t> table = {1, 0};
      const SequenceRows sequence = {0, n, 0, table.data(), 2};
      const Device<float> x_device(x);
      const auto operand = make_operand(x, n, cols, type);
      const Device<float> cosines_device(cosines);
      const Device<float> sines_device(sines);

      TestKv host_kv(cache, 2, 1, d, 16);
      std::vector<float> expected(static_cast<std::size_t>(n) * kHeads * d);
      NormQkvRopeAppendParams params;
      params.batch = {n, slots.data(), slots.data(), nullptr, nullptr, {&sequence, 1}};
      params.num_heads = kHeads;
      params.x = x.data();
      params.rope_cos = cosines.data();
      params.rope_sin = sines.data();
      params.kv = host_kv.layer();
      params.q = expected.data();
      GpuKv kv(host_kv);
      reference::norm_qkv_rope_append(params, dense);

      NormQkvRopeAppendParams on_gpu = params;
      const GpuBatch batch(params.batch);
      const Device<float> q(expected.size());
      on_gpu.batch = batch.view();
      on_gpu.qkv = packed.packed();
      on_gpu.x = x_device.get();
      on_gpu.rope_cos = cosines_device.get();
      on_gpu.rope_sin = sines_device.get();
      on_gpu.kv = kv.layer();
      on_gpu.q = q.get();
      require_ok(cuda::norm_qkv_rope_append(on_gpu, scratch.launch()));
      const auto got = q.host();
      double largest = 0;
      for (const float value : expected) largest = std::fmax(largest, std::fabs(value));
      double worst = 0;
      for (std::size_t i = 0; i < got.size(); ++i) {
        const double difference = std::fabs(static_cast<double>(got[i]) - expected[i]);
        worst = std::isnan(difference) ? INFINITY : std::fmax(worst, difference);
      }
      CHECK(worst <= 1e-5 * largest);  // the inputs are exact: sums in float, two rotations
      std::vector<std::byte> keys;
      std::vector<std::byte> values;
      kv.read(keys, values);

      if (operand_of(type) != DataType::f32) {
        on_gpu.x = as_floats(operand);
        on_gpu.x_type = operand_of(type);
        require_ok(cuda::norm_qkv_rope_append(on_gpu, scratch.launch()));
        CHECK(same_bits(q.host().data(), got.data(), got.size()));
      }
      on_gpu.x_type = DataType::f32;
      const std::size_t row_size = static_cast<std::size_t>(kHeads) * d;
      for (int r = 0; r < n; ++r) {
        const SequenceRows one = {0, 1, 0, table.data(), 2};
        const GpuBatch alone(BatchView{1, &slots[r], &slots[r], nullptr, nullptr, {&one, 1}});
        const Device<float> own(row_size);
        on_gpu.batch = alone.view();
        on_gpu.x = x_device.get() + static_cast<std::size_t>(r) * cols;
        on_gpu.q = own.get();
        require_ok(cuda::norm_qkv_rope_append(on_gpu, scratch.launch()));
        CHECK(same_bits(own.host().data(), &got[r * row_size], row_size));
      }
      std::vector<std::byte> keys_alone;
      std::vector<std::byte> values_alone;
      kv.read(keys_alone, values_alone);
      CHECK(keys_alone == keys);
      CHECK(values_alone == values);
      if (cache == DataType::f32) {
        const auto compare = [&](const std::vector<std::byte>& a, const std::vector<std::byte>& b) {
          const auto* u = reinterpret_cast<const float*>(a.data());
          const auto* v = reinterpret_cast<const float*>(b.data());
          int misplaced = 0;
          double most = 0;
          double largest_entry = 0;
          for (std::size_t i = 0; i < a.size() / sizeof(float); ++i) {
            misplaced += std::isnan(u[i]) != std::isnan(v[i]);
            if (std::isnan(u[i]) || std::isnan(v[i])) continue;
            most = std::fmax(most, std::fabs(static_cast<double>(u[i]) - v[i]));
            largest_entry = std::fmax(largest_entry, std::fabs(v[i]));
          }
          CHECK(misplaced == 0);
          CHECK(most <= 1e-5 * largest_entry);
        };
        compare(keys, host_kv.key_bytes());
        compare(values, host_kv.value_bytes());
      }
    }
}
