#pragma once

#include <array>
#include <cstdint>
#include <span>

#include "kernels/sampling/philox.h"
#include "kernels/sampling/row_numbers.h"

/// Passes over one logits row, dispatched at run time (AVX-512, AVX2, plain). Every result has the
/// same bits on every path: maxima and integer sums do not depend on order, and float sums run in
/// one fixed order (16 lanes within a chunk, a fixed tree over the lanes, chunks in double).
namespace specdec::row_math {

constexpr int num_chunks(std::size_t row) { return static_cast<int>((row + kChunk - 1) / kChunk); }

struct RowScan {
  float max = 0;
  bool has_nan = false;
};

/// Maximum of the row and of each chunk, chunk_max [num_chunks].
RowScan scan(std::span<const float> row, std::span<float> chunk_max);

/// Sum of exp((row[i] - max) * scale); -infinity counts 0. max >= every row[i].
double sum_exp(std::span<const float> row, float max, float scale);

/// out[i] = exp((row[i] - max) * scale).
void exp_row(std::span<const float> row, float max, float scale, std::span<float> out);

/// out[i] = exp((row[i] - max) * scale) in units of 1 / kUnitMass, rounded; returns their sum.
std::int64_t exp_masses(std::span<const float> row, float max, float scale,
                        std::span<std::int32_t> out);

/// Words [first, first + kChunk) of a random stream; first % kChunk == 0.
void random_words(const RandomStream& stream, std::uint32_t first,
                  std::span<std::uint32_t, kChunk> out);

/// An upper bound, up to rounding of 1e-5 * (1 + |result|), of (row[i] - max) * scale + the Gumbel
/// noise of words[i], over all i; bounds[i] gets each one. row.size() <= kChunk.
///
/// With d = 1 - u: -log(1 - d) >= d, so g = -log(-log(u)) <= -log(d); and log2(d) >= bits(d) / 2^23
/// - 127 for the float bits of d, because log2(1 + m) >= m on [0, 1].
float noisy_bound(std::span<const float> row, float max, float scale,
                  std::span<const std::uint32_t, kChunk> words, std::span<float, kChunk> bounds);

/// The instruction sets that passes are compiled for, worst first.
enum class Isa : std::uint8_t { plain, avx2, avx512 };
Isa best_isa();
/// Runs the calling thread's passes on `isa`, or the best below it that this machine has; for tests
/// and benchmarks.
void force_isa(Isa isa);

}  // namespace specdec::row_math
