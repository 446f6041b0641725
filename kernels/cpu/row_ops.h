#pragma once

#include <span>

namespace specdec::kernels {

/// Reductions and maps over one row of logits, for sampling. Results are a function of the values
/// and their order alone (fixed reduction order, no threads) on one machine. Thread-safe.

/// Index of the largest value; ties go to the lowest index and a NaN never wins. -1 when the row is
/// empty or holds nothing but NaN.
int argmax(std::span<const float> row);

/// The largest value, NaN ignored; -infinity for an empty row.
float max_value(std::span<const float> row);

/// log(sum_i exp(row[i])), summed in double; -infinity for an empty row or one of -infinities.
float log_sum_exp(std::span<const float> row);

/// out[i] = exp(row[i] - shift); out has row's length and may be row itself. Within 4 units in the
/// last place for results in the normal range; smaller ones may become 0.
void exp_minus(std::span<const float> row, float shift, std::span<float> out);

}  // namespace specdec::kernels
