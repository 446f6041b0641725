#include "kernels/cpu/row_ops.h"

#include <cmath>

#include "kernels/cpu/cpu_ops.h"
#include "kernels/cpu/kernel_table.h"

namespace specdec::kernels {
namespace {

const KernelTable& kernels() noexcept {
  static const KernelTable& table = best_isa() == Isa::avx2 ? avx2_kernels() : avx512_kernels();
  return table;
}

}  // namespace

int argmax(std::span<const float> row) { return kernels().argmax(row.data(), row.size()); }

float max_value(std::span<const float> row) { return kernels().max_value(row.data(), row.size()); }

float log_sum_exp(std::span<const float> row) {
  const float top = max_value(row);
  if (!std::isfinite(top)) return top;
  return static_cast<float>(top + std::log(kernels().sum_exp(row.data(), row.size(), top)));
}

void exp_minus(std::span<const float> row, float shift, std::span<float> out) {
  kernels().exp_minus(row.data(), row.size(), shift, out.data());
}

}  // namespace specdec::kernels
