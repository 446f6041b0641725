// Weights as the kernels lay them out: what packing makes of them, and an embedding's rows.
#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <iterator>
#include <vector>

#include "gpu_fixtures.h"
#include "kernels/cuda/packing.h"
#include "kernels/cuda/rows.h"

using namespace specdec::kernels;
using namespace specdec::kernels::test;

TEST_CASE("cuda packing: a quantised weight is rounded to f16 once") {
  // scale 683 (or f16's largest), minimum 2^-24 (or none), every number 3.
  const auto packed = [](std::uint16_t scale, std::uint16_t minimum) {
    std::byte group[20];
    std::memcpy(group, &scale, sizeof scale);
    std::memcpy(group + 2, &minimum, sizeof minimum);
    std::memset(group + 4, 0x33, 16);
    const std::byte* rows[cuda::kTileRows];
    std::fill(std::begin(rows), std::end(rows), group);
    std::vector<std::byte> unit(cuda::unit_bytes(DataType::f16));
    cuda::pack_tile(DataType::q4_1, DataType::f16, cuda::kUnitCols, rows, unit.data());
    std::uint16_t first = 0;
    std::memcpy(&first, unit.data(), sizeof first);
    return first;
  };
  CHECK(packed(0x6156, 0x0000) == 0x6800);  // 2049 lies between 2048, which is even, and 2050
  CHECK(packed(0x6156, 0x0001) == 0x6801);  // and a trifle more is nearer to 2050
  CHECK(packed(0x6156, 0x8001) == 0x6800);
  CHECK(packed(0x7bff, 0x0000) == 0x7c00);  // as f16 arithmetic has it: infinity
  CHECK(packed(0xfbff, 0x0000) == 0xfc00);
}

TEST_CASE("cuda embed_rows: the table's rows, dequantised" * doctest::skip(!has_gpu())) {
  Random random(33);
  const Scratch scratch;
  for (const Kept type : kept_types()) {
    CAPTURE(name(type));
    const TestMatrix table(random, type.type, 70, 96);
    const GpuMatrix packed(table, type);
    const std::vector<std::int32_t> tokens = {0, 69, 15, 16, 33, 33, 7};
    const Device<std::int32_t> ids(tokens);
    const Device<float> out(tokens.size() * 96);
    require_ok(
        cuda::embed_rows({static_cast<int>(tokens.size()), ids.get(), packed.packed(), out.get()},
                         scratch.launch()));
    const auto got = out.host();
    const bool as_f16 = type.type == DataType::f32 && type.packed == DataType::f16;
    const auto dense = as_f16 ? rounded_weights(table, type) : table.dense();
    double worst = 0;
    for (std::size_t i = 0; i < got.size(); ++i) {
      const double expected = dense.data[static_cast<std::size_t>(tokens[i / 96]) * 96 + i % 96];
      worst = std::fmax(worst, std::fabs(got[i] - expected) / (std::fabs(expected) + 0.02));
    }
    CHECK(worst < 2e-7);  // q4_1's multiply-add rounds once, the reference twice
    if (type.packed == DataType::f32) CHECK(worst == 0);
  }
}
