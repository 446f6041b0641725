#include "sampling/row_math.h"

#include "sampling/row_math_body.h"

#if defined(__x86_64__)
#if !defined(__clang__)
#pragma GCC diagnostic ignored "-Wuninitialized"  // g++ 12's own _mm512_undefined_epi32
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#endif
#include <immintrin.h>
#define SPECDEC_AVX512 __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl")))
#define SPECDEC_AVX2 __attribute__((target("avx2")))
#endif

namespace specdec::row_math {
namespace {

struct Table {
  RowScan (*scan)(std::span<const float>, std::span<float>);
  double (*sum_exp)(std::span<const float>, float, float);
  void (*exp_row)(std::span<const float>, float, float, std::span<float>);
  std::int64_t (*exp_masses)(std::span<const float>, float, float, std::span<std::int32_t>);
  float (*noisy_bound)(std::span<const float>, float, float, std::span<const std::uint32_t, kChunk>,
                       std::span<float, kChunk>);
  void (*random_words)(const RandomStream&, std::uint32_t, std::span<std::uint32_t, kChunk>);
};

#define SPECDEC_ROW_MATH_WRAPPERS(TARGET, W)                                                      \
  TARGET RowScan scan(std::span<const float> row, std::span<float> chunk_max) {                   \
    return body::scan<W>(row, chunk_max);                                                         \
  }                                                                                               \
  TARGET double sum_exp(std::span<const float> row, float max, float scale) {                     \
    return body::sum_exp<W>(row, max, scale);                                                     \
  }                                                                                               \
  TARGET void exp_row(std::span<const float> row, float max, float scale, std::span<float> out) { \
    body::exp_row<W>(row, max, scale, out);                                                       \
  }                                                                                               \
  TARGET std::int64_t exp_masses(std::span<const float> row, float max, float scale,              \
                                 std::span<std::int32_t> out) {                                   \
    return body::exp_masses<W>(row, max, scale, out);                                             \
  }                                                                                               \
  TARGET float noisy_bound(std::span<const float> row, float max, float scale,                    \
                           std::span<const std::uint32_t, kChunk> words,                          \
                           std::span<float, kChunk> bounds) {                                     \
    return body::noisy_bound<W>(row, max, scale, words, bounds);                                  \
  }
#define SPECDEC_ROW_MATH_TABLE \
  { scan, sum_exp, exp_row, exp_masses, noisy_bound, random_words }

namespace plain {
SPECDEC_ROW_MATH_WRAPPERS(, 4)
void random_words(const RandomStream& stream, std::uint32_t first,
                  std::span<std::uint32_t, kChunk> out) {
  for (std::uint32_t i = 0; i < kChunk; i += 4) {
    const PhiloxBlock block = stream.block((first + i) / 4);
    for (std::uint32_t j = 0; j < 4; ++j) out[i + j] = block[j];
  }
}
constexpr Table kTable = SPECDEC_ROW_MATH_TABLE;
}  // namespace plain

#if defined(__x86_64__)
// A 64-bit lane holds one counter word of one block in its low half. The high half may hold
// anything: the widening multiply reads the low one.
namespace avx2 {
SPECDEC_ROW_MATH_WRAPPERS(SPECDEC_AVX2, 8)
SPECDEC_AVX2 void random_words(const RandomStream& stream, std::uint32_t first,
                               std::span<std::uint32_t, kChunk> out) {
  const __m256i mul0 = _mm256_set1_epi64x(kPhiloxMul0);
  const __m256i mul1 = _mm256_set1_epi64x(kPhiloxMul1);
  const __m256i low = _mm256_set1_epi64x(0xFFFFFFFF);
  for (int i = 0; i < kChunk; i += 16) {
    __m256i c0 = _mm256_add_epi64(_mm256_set1_epi64x((first + static_cast<std::uint32_t>(i)) / 4),
                                  _mm256_set_epi64x(3, 2, 1, 0));
    __m256i c1 = _mm256_set1_epi64x(stream.position_low);
    __m256i c2 = _mm256_set1_epi64x(stream.position_high);
    __m256i c3 = _mm256_set1_epi64x(stream.lane);
    PhiloxKey key = stream.key;
    for (int round = 0; round < kPhiloxRounds; ++round) {
      const __m256i product0 = _mm256_mul_epu32(c0, mul0);
      const __m256i product1 = _mm256_mul_epu32(c2, mul1);
      c0 = _mm256_xor_si256(_mm256_xor_si256(_mm256_srli_epi64(product1, 32), c1),
                            _mm256_set1_epi64x(key[0]));
      c2 = _mm256_xor_si256(_mm256_xor_si256(_mm256_srli_epi64(product0, 32), c3),
                            _mm256_set1_epi64x(key[1]));
      c1 = product1;
      c3 = product0;
      key[0] += kPhiloxWeyl0;
      key[1] += kPhiloxWeyl1;
    }
    const __m256i pair0 = _mm256_or_si256(_mm256_and_si256(c0, low), _mm256_slli_epi64(c1, 32));
    const __m256i pair1 = _mm256_or_si256(_mm256_and_si256(c2, low), _mm256_slli_epi64(c3, 32));
    const __m256i even = _mm256_unpacklo_epi64(pair0, pair1);  // blocks 0, 2
    const __m256i odd = _mm256_unpackhi_epi64(pair0, pair1);   // blocks 1, 3
    auto* target = reinterpret_cast<__m256i*>(out.data() + i);
    _mm256_storeu_si256(target, _mm256_permute2x128_si256(even, odd, 0x20));
    _mm256_storeu_si256(target + 1, _mm256_permute2x128_si256(even, odd, 0x31));
  }
}
constexpr Table kTable = SPECDEC_ROW_MATH_TABLE;
}  // namespace avx2

namespace avx512 {
SPECDEC_ROW_MATH_WRAPPERS(SPECDEC_AVX512, 16)
SPECDEC_AVX512 void random_words(const RandomStream& stream, std::uint32_t first,
                                 std::span<std::uint32_t, kChunk> out) {
  const __m512i mul0 = _mm512_set1_epi64(kPhiloxMul0);
  const __m512i mul1 = _mm512_set1_epi64(kPhiloxMul1);
  const __m512i low = _mm512_set1_epi64(0xFFFFFFFF);
  const __m512i first_half = _mm512_set_epi64(11, 10, 3, 2, 9, 8, 1, 0);
  const __m512i second_half = _mm512_set_epi64(15, 14, 7, 6, 13, 12, 5, 4);
  for (int i = 0; i < kChunk; i += 32) {
    __m512i c0 = _mm512_add_epi64(_mm512_set1_epi64((first + static_cast<std::uint32_t>(i)) / 4),
                                  _mm512_set_epi64(7, 6, 5, 4, 3, 2, 1, 0));
    __m512i c1 = _mm512_set1_epi64(stream.position_low);
    __m512i c2 = _mm512_set1_epi64(stream.position_high);
    __m512i c3 = _mm512_set1_epi64(stream.lane);
    PhiloxKey key = stream.key;
    for (int round = 0; round < kPhiloxRounds; ++round) {
      const __m512i product0 = _mm512_mul_epu32(c0, mul0);
      const __m512i product1 = _mm512_mul_epu32(c2, mul1);
      c0 = _mm512_ternarylogic_epi64(_mm512_srli_epi64(product1, 32), c1, _mm512_set1_epi64(key[0]),
                                     0x96);
      c2 = _mm512_ternarylogic_epi64(_mm512_srli_epi64(product0, 32), c3, _mm512_set1_epi64(key[1]),
                                     0x96);
      c1 = product1;
      c3 = product0;
      key[0] += kPhiloxWeyl0;
      key[1] += kPhiloxWeyl1;
    }
    const __m512i pair0 = _mm512_or_si512(_mm512_and_si512(c0, low), _mm512_slli_epi64(c1, 32));
    const __m512i pair1 = _mm512_or_si512(_mm512_and_si512(c2, low), _mm512_slli_epi64(c3, 32));
    const __m512i even = _mm512_unpacklo_epi64(pair0, pair1);  // blocks 0, 2, 4, 6
    const __m512i odd = _mm512_unpackhi_epi64(pair0, pair1);   // blocks 1, 3, 5, 7
    _mm512_storeu_si512(out.data() + i, _mm512_permutex2var_epi64(even, first_half, odd));
    _mm512_storeu_si512(out.data() + i + 16, _mm512_permutex2var_epi64(even, second_half, odd));
  }
}
constexpr Table kTable = SPECDEC_ROW_MATH_TABLE;
}  // namespace avx512
#endif

const Table& pick(Isa isa) {
#if defined(__x86_64__)
  if (isa == Isa::avx512) return avx512::kTable;
  if (isa == Isa::avx2) return avx2::kTable;
#endif
  static_cast<void>(isa);
  return plain::kTable;
}

thread_local Isa forced = best_isa();

const Table& table() { return pick(forced); }

}  // namespace

Isa best_isa() {
#if defined(__x86_64__)
  static const Isa best = [] {
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
        __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl")) {
      return Isa::avx512;
    }
    return __builtin_cpu_supports("avx2") ? Isa::avx2 : Isa::plain;
  }();
  return best;
#else
  return Isa::plain;
#endif
}

void force_isa(Isa isa) { forced = isa < best_isa() ? isa : best_isa(); }

RowScan scan(std::span<const float> row, std::span<float> chunk_max) {
  return table().scan(row, chunk_max);
}
double sum_exp(std::span<const float> row, float max, float scale) {
  return table().sum_exp(row, max, scale);
}
void exp_row(std::span<const float> row, float max, float scale, std::span<float> out) {
  table().exp_row(row, max, scale, out);
}
std::int64_t exp_masses(std::span<const float> row, float max, float scale,
                        std::span<std::int32_t> out) {
  return table().exp_masses(row, max, scale, out);
}
float noisy_bound(std::span<const float> row, float max, float scale,
                  std::span<const std::uint32_t, kChunk> words, std::span<float, kChunk> bounds) {
  return table().noisy_bound(row, max, scale, words, bounds);
}
void random_words(const RandomStream& stream, std::uint32_t first,
                  std::span<std::uint32_t, kChunk> out) {
  table().random_words(stream, first, out);
}

}  // namespace specdec::row_math
