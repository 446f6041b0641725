#include "kernels/cpu/row_ops.h"

#include <cmath>
#include <cstddef>
#include <limits>

namespace specdec::kernels {

int argmax(std::span<const float> row) {
  int best = -1;
  float best_value = 0;
  for (std::size_t i = 0; i < row.size(); ++i) {
    if (std::isnan(row[i])) continue;
    if (best < 0 || row[i] > best_value) {
      best = static_cast<int>(i);
      best_value = row[i];
    }
  }
  return best;
}

float max_value(std::span<const float> row) {
  float best = -std::numeric_limits<float>::infinity();
  for (const float value : row) {
    if (value > best) best = value;
  }
  return best;
}

float log_sum_exp(std::span<const float> row) {
  const float top = max_value(row);
  if (!std::isfinite(top)) return top;
  double sum = 0;
  for (const float value : row) sum += std::exp(static_cast<double>(value) - top);
  return static_cast<float>(top + std::log(sum));
}

void exp_minus(std::span<const float> row, float shift, std::span<float> out) {
  for (std::size_t i = 0; i < row.size(); ++i) out[i] = std::exp(row[i] - shift);
}

}  // namespace specdec::kernels
