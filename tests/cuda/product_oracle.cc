#include "product_oracle.h"

#include <algorithm>
#include <cmath>
#include <cstdint>

namespace specdec::kernels::test {

int compute_major() {
  int major = 0;
  require_ok(cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, gpu().index));
  return major;
}

TensorCore TensorCore::of_gpu(DataType operand_type) {
  const int narrower = operand_type == DataType::f32 ? 2 : 1;
  if (compute_major() == 9) return {16 / narrower, 0x1p-25};
  return {8 / narrower, 0x1p-24};
}

std::vector<double> powers(const std::vector<float>& values, DataType operand_type) {
  const int least = operand_type == DataType::f16 ? -14 : -126;
  std::vector<double> out;
  for (const float value : values)
    out.push_back(value == 0 ? 0 : std::ldexp(1.0, std::max(std::ilogb(value), least)));
  return out;
}

Sum sum_of(const Side& w, int r, const Side& x, int t, int cols, int chains,
           const TensorCore& core) {
  constexpr int kStep = 16;
  const std::size_t w_row = static_cast<std::size_t>(r) * cols;
  const std::size_t x_row = static_cast<std::size_t>(t) * cols;
  std::vector<Sum> sums(static_cast<std::size_t>(chains));
  for (int first = 0; first < cols; first += core.products) {
    Sum& sum = sums[static_cast<std::size_t>(first / kStep % chains)];
    const int end = std::min(cols, first + core.products);
    double largest = 0;
    for (int c = first; c < end; ++c)
      largest = std::max(largest, w.powers[w_row + c] * x.powers[x_row + c]);
    // Each number added loses less than a grain; |exact| + bound is no less than any sum so far.
    sum.bound +=
        (core.products + 1) * core.grain * std::max(largest, std::fabs(sum.exact) + sum.bound);
    if (sum.cut != 0) largest = std::max(largest, std::ldexp(1.0, std::ilogb(sum.cut)));
    if (largest == 0) continue;
    const double grain = core.grain * largest;
    const double grains = 1 / grain;  // in 1: exact, a power of two
    auto total = static_cast<std::int64_t>(sum.cut * grains);
    for (int c = first; c < end; ++c) {
      const double product =
          static_cast<double>(w.values[w_row + c]) * static_cast<double>(x.values[x_row + c]);
      sum.exact += product;
      total += static_cast<std::int64_t>(product * grains);
    }
    const double result = static_cast<double>(total) * grain;
    sum.cut = static_cast<float>(result);
    if (std::fabs(static_cast<double>(sum.cut)) > std::fabs(result))
      sum.cut = std::nextafter(sum.cut, 0.0f);
    sum.bound += 0x1p-23 * (std::fabs(sum.exact) + sum.bound);
  }
  Sum sum = sums[0];
  for (std::size_t i = 1; i < sums.size(); ++i) {
    sum.exact += sums[i].exact;
    sum.bound += sums[i].bound;
    sum.bound += 0x1p-24 * (std::fabs(sum.exact) + sum.bound);
    sum.cut += sums[i].cut;
  }
  return sum;
}

Sum full_sum_of(const Side& w, int r, const Side& x, int t, int cols, const TensorCore& core) {
  constexpr int kStep = 8;
  constexpr double kSplit = 2 * 0x1p-23 + 0x1p-22;
  const double run = kStep / core.products * ((core.products + 1) * core.grain + 0x1p-23);
  Sum sum;
  for (int first = 0; first < cols; first += kStep) {
    double magnitude = 0;
    for (int c = first; c < std::min(cols, first + kStep); ++c) {
      const double product = static_cast<double>(w.values[static_cast<std::size_t>(r) * cols + c]) *
                             static_cast<double>(x.values[static_cast<std::size_t>(t) * cols + c]);
      sum.exact += product;
      magnitude += std::fabs(product);
    }
    sum.bound += (kSplit + 3 * run) * magnitude;
    sum.bound += 0x1p-24 * (std::fabs(sum.exact) + sum.bound);
  }
  return sum;
}

}  // namespace specdec::kernels::test
