#include "kernels/cpu/row_format.h"

#include <doctest/doctest.h>

#include <cmath>
#include <cstring>

#include "kernel_fixtures.h"
#include "kernels/cpu/packing.h"
#include "kernels/reference/kv_access.h"

using namespace specdec::kernels;
using test::Random;

TEST_CASE("f16: every bit pattern converts to the value that IEEE 754 gives it") {
  int wrong = 0;
  for (int bits = 0; bits < 65536; ++bits) {
    const auto half = static_cast<std::uint16_t>(bits);
    const double expected = reference::load_element(&half, DataType::f16, 0);
    const float got = f16_to_f32(half);
    if (std::isnan(expected)) {
      wrong += !std::isnan(got);
    } else {
      wrong += static_cast<double>(got) != expected || std::signbit(got) != std::signbit(expected);
      wrong += f32_to_f16(got) != half;
    }
  }
  CHECK(wrong == 0);
  CHECK(std::isnan(f16_to_f32(f32_to_f16(NAN))));
}

TEST_CASE("f16: rounding is to nearest even, at ties, borders and in subnormals") {
  Random random(1);
  int wrong = 0;
  for (int i = 0; i < 100000; ++i) {
    const auto half = static_cast<std::uint16_t>(random.below(0x7c00));
    const float low = f16_to_f32(half);
    const float high = half == 0x7bff ? 65536.0f : f16_to_f32(static_cast<std::uint16_t>(half + 1));
    const float middle = low + (high - low) * 0.5f;
    for (const float v : {middle, std::nextafter(middle, 0.0f), std::nextafter(middle, 1e9f),
                          random.uniform(low, high)}) {
      std::uint16_t expected;
      reference::store_element(&expected, DataType::f16, 0, static_cast<double>(v));
      wrong += f32_to_f16(v) != expected;
      wrong += f32_to_f16(-v) != (expected | 0x8000);
    }
  }
  CHECK(wrong == 0);
}

TEST_CASE("rows dequantise to their exact values, from the file and from the packed form") {
  Random random(2);
  for (const DataType type : test::weight_types()) {
    CAPTURE(test::name(type));
    const int cols = is_quantised(type) ? 96 : 45;
    const test::TestMatrix matrix(random, type, 53, cols);
    std::vector<float> from_file(cols);
    std::vector<float> from_packed(cols);
    for (int r = 0; r < 53; ++r) {
      convert_row_to_f32(type, cols, matrix.row(r), from_file.data());
      unpack_row(matrix.packed(), r, from_packed.data());
      CHECK(test::same_bits(from_file.data(), from_packed.data(), cols));
      for (int c = 0; c < cols; ++c) {
        const float expected = matrix.dense().data[static_cast<std::size_t>(r) * cols + c];
        // d * q + m is rounded twice here, once in the fixture (which works in double).
        CHECK(from_file[c] == doctest::Approx(expected).epsilon(3e-7).scale(0.1));
      }
    }
  }
}

TEST_CASE("row sizes") {
  CHECK(row_bytes(DataType::q8_0, 576) == 18 * 34);
  CHECK(row_bytes(DataType::q4_0, 576) == 18 * 18);
  CHECK(row_bytes(DataType::q4_1, 576) == 18 * 20);
  CHECK(row_bytes(DataType::f32, 7) == 28);
  CHECK(row_bytes(DataType::bf16, 7) == 14);
  CHECK(CpuOps::packed_bytes(DataType::q4_1, 17, 64) == 2 * 2 * 320);
}
