#pragma once

// Included only by files compiled for AVX2, FMA and F16C. Everything is in an unnamed namespace and
// nothing from the standard library is instantiated here: no function compiled for this instruction
// set may be merged with one that runs on lesser processors.

#include <immintrin.h>

#include <cstddef>
#include <cstdint>
#include <cstring>

namespace specdec::kernels {
namespace {

using F = __m256;
using I = __m256i;
constexpr int kLanes = 8;
constexpr int kVectorRegisters = 16;

inline F zero() { return _mm256_setzero_ps(); }
inline F set1(float v) { return _mm256_set1_ps(v); }
inline F load(const float* at) { return _mm256_loadu_ps(at); }
inline void store(float* at, F v) { _mm256_storeu_ps(at, v); }
inline F load_f16(const void* at) {
  return _mm256_cvtph_ps(_mm_loadu_si128(static_cast<const __m128i*>(at)));
}
inline F load_bf16(const void* at) {
  const I wide = _mm256_cvtepu16_epi32(_mm_loadu_si128(static_cast<const __m128i*>(at)));
  return _mm256_castsi256_ps(_mm256_slli_epi32(wide, 16));
}
inline void store_f16(void* at, F v) {
  _mm_storeu_si128(static_cast<__m128i*>(at),
                   _mm256_cvtps_ph(v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
}
inline F load_8(const float* at) { return load(at); }
inline F load_f16_8(const void* at) { return load_f16(at); }
inline void store_8(float* at, F v) { store(at, v); }

inline F add(F a, F b) { return _mm256_add_ps(a, b); }
inline F sub(F a, F b) { return _mm256_sub_ps(a, b); }
inline F mul(F a, F b) { return _mm256_mul_ps(a, b); }
inline F div(F a, F b) { return _mm256_div_ps(a, b); }
inline F fma(F a, F b, F c) { return _mm256_fmadd_ps(a, b, c); }
inline F fnma(F a, F b, F c) { return _mm256_fnmadd_ps(a, b, c); }
/// b when either is NaN.
inline F max(F a, F b) { return _mm256_max_ps(a, b); }
inline F min(F a, F b) { return _mm256_min_ps(a, b); }
inline F abs(F a) { return _mm256_andnot_ps(_mm256_set1_ps(-0.0f), a); }
inline F round_even(F a) {
  return _mm256_round_ps(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
}
/// v * 2^n in two steps, so that results below 2^-126 and above 2^127 come out; n integral, |n| <=
/// 252, or NaN when v is NaN.
inline F scale_exponent(F v, F n) {
  const I whole = _mm256_cvtps_epi32(n);
  const I half = _mm256_srai_epi32(whole, 1);
  const I rest = _mm256_sub_epi32(whole, half);
  const I bias = _mm256_set1_epi32(127);
  const F a = _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_add_epi32(half, bias), 23));
  const F b = _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_add_epi32(rest, bias), 23));
  return _mm256_mul_ps(_mm256_mul_ps(v, a), b);
}
inline float reduce_add(F v) {
  const __m128 b = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
  const __m128 c = _mm_add_ps(b, _mm_movehl_ps(b, b));
  return _mm_cvtss_f32(_mm_add_ss(c, _mm_movehdup_ps(c)));
}
inline float reduce_max(F v) {
  const __m128 b = _mm_max_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
  const __m128 c = _mm_max_ps(b, _mm_movehl_ps(b, b));
  return _mm_cvtss_f32(_mm_max_ss(c, _mm_movehdup_ps(c)));
}
/// Lanes [0, n) from v, the others from `other`; n may lie outside [0, kLanes].
inline F first_lanes(int n, F v, F other) {
  const I lane = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
  const I mask = _mm256_cmpgt_epi32(_mm256_set1_epi32(n), lane);
  return _mm256_blendv_ps(other, v, _mm256_castsi256_ps(mask));
}

/// Rounds 32 values (|v| <= 127) to int8, ties to even; returns their sum.
inline int quantise_32(const F* v, std::int8_t* out) {
  const I a = _mm256_cvtps_epi32(v[0]);
  const I b = _mm256_cvtps_epi32(v[1]);
  const I c = _mm256_cvtps_epi32(v[2]);
  const I d = _mm256_cvtps_epi32(v[3]);
  const I packed = _mm256_packs_epi16(_mm256_packs_epi32(a, b), _mm256_packs_epi32(c, d));
  // The packs work in 128-bit halves: 32-bit units now lie in the order 0 2 4 6 | 1 3 5 7.
  const I order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(out), _mm256_permutevar8x32_epi32(packed, order));
  const I all = _mm256_add_epi32(_mm256_add_epi32(a, b), _mm256_add_epi32(c, d));
  const __m128i e = _mm_add_epi32(_mm256_castsi256_si128(all), _mm256_extracti128_si256(all, 1));
  const __m128i f = _mm_add_epi32(e, _mm_shuffle_epi32(e, 0x4e));
  return _mm_cvtsi128_si32(_mm_add_epi32(f, _mm_shuffle_epi32(f, 0xb1)));
}

// Integer dot products of 32-wide groups: lane r sums w[r][k] * x[k].
inline I load_bytes(const void* at) { return _mm256_loadu_si256(static_cast<const __m256i*>(at)); }
inline I low_nibbles(I v) { return _mm256_and_si256(v, _mm256_set1_epi8(15)); }
inline I high_nibbles(I v) {
  return _mm256_and_si256(_mm256_srli_epi16(v, 4), _mm256_set1_epi8(15));
}
inline I broadcast_4(const std::int8_t* at) {
  std::int32_t four;
  std::memcpy(&four, at, sizeof four);
  return _mm256_set1_epi32(four);
}
inline F pairs_to_float(I sum16, I sum32) {
  return _mm256_cvtepi32_ps(
      _mm256_add_epi32(sum32, _mm256_madd_epi16(sum16, _mm256_set1_epi16(1))));
}
/// A group is 8 steps; |16-bit sum| <= 8 * 2 * 15 * 127 = 30480, so it never saturates.
struct NibbleDot {
  I sum16;
  I bias32;
  void start(std::int32_t bias) {
    sum16 = _mm256_setzero_si256();
    bias32 = _mm256_set1_epi32(bias);
  }
  void step(I w, I x) { sum16 = _mm256_add_epi16(sum16, _mm256_maddubs_epi16(w, x)); }
  F finish() const { return pairs_to_float(sum16, bias32); }
};
/// maddubs saturates at 255 * 127 * 2, so the sign moves to the activation: |w| <= 128 gives at
/// most 2 * 128 * 127 = 32512.
struct ByteDot {
  I sum;
  static I prepare(I w) { return _mm256_xor_si256(w, _mm256_set1_epi8(-128)); }
  void start(std::int32_t) { sum = _mm256_setzero_si256(); }
  void step(I w, I x) {
    const I products = _mm256_maddubs_epi16(_mm256_abs_epi8(w), _mm256_sign_epi8(x, w));
    sum = _mm256_add_epi32(sum, _mm256_madd_epi16(products, _mm256_set1_epi16(1)));
  }
  F finish() const { return _mm256_cvtepi32_ps(sum); }
};

}  // namespace
}  // namespace specdec::kernels
