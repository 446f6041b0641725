#pragma once

// Included only by files compiled for AVX-512 (F, BW, VL, DQ, VNNI). Everything is in an unnamed
// namespace and nothing from the standard library is instantiated here: no function compiled for
// this instruction set may be merged with one that runs on lesser processors.

#include <immintrin.h>

#include <cstddef>
#include <cstdint>
#include <cstring>

namespace specdec::kernels {
namespace {

using F = __m512;
using I = __m512i;
constexpr int kLanes = 16;
constexpr int kVectorRegisters = 32;

inline F zero() { return _mm512_setzero_ps(); }
inline F set1(float v) { return _mm512_set1_ps(v); }
inline F load(const float* at) { return _mm512_loadu_ps(at); }
inline void store(float* at, F v) { _mm512_storeu_ps(at, v); }
inline F load_f16(const void* at) {
  return _mm512_cvtph_ps(_mm256_loadu_si256(static_cast<const __m256i*>(at)));
}
inline F load_bf16(const void* at) {
  const I wide = _mm512_cvtepu16_epi32(_mm256_loadu_si256(static_cast<const __m256i*>(at)));
  return _mm512_castsi512_ps(_mm512_slli_epi32(wide, 16));
}
inline void store_f16(void* at, F v) {
  _mm256_storeu_si256(static_cast<__m256i*>(at),
                      _mm512_cvtps_ph(v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
}
// The first 8 lanes only; the others are 0.
inline F load_8(const float* at) { return _mm512_zextps256_ps512(_mm256_loadu_ps(at)); }
inline F load_f16_8(const void* at) {
  return _mm512_zextps256_ps512(_mm256_cvtph_ps(_mm_loadu_si128(static_cast<const __m128i*>(at))));
}
inline void store_8(float* at, F v) { _mm256_storeu_ps(at, _mm512_castps512_ps256(v)); }

inline F add(F a, F b) { return _mm512_add_ps(a, b); }
inline F sub(F a, F b) { return _mm512_sub_ps(a, b); }
inline F mul(F a, F b) { return _mm512_mul_ps(a, b); }
inline F div(F a, F b) { return _mm512_div_ps(a, b); }
inline F fma(F a, F b, F c) { return _mm512_fmadd_ps(a, b, c); }
inline F fnma(F a, F b, F c) { return _mm512_fnmadd_ps(a, b, c); }
/// b when either is NaN.
inline F max(F a, F b) { return _mm512_max_ps(a, b); }
inline F min(F a, F b) { return _mm512_min_ps(a, b); }
inline F abs(F a) { return _mm512_abs_ps(a); }
inline F round_even(F a) { return _mm512_roundscale_ps(a, 8); }
/// v * 2^n; n integral, or NaN when v is NaN.
inline F scale_exponent(F v, F n) { return _mm512_scalef_ps(v, n); }
inline float reduce_add(F v) {
  const __m256 a = _mm256_add_ps(_mm512_castps512_ps256(v), _mm512_extractf32x8_ps(v, 1));
  const __m128 b = _mm_add_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
  const __m128 c = _mm_add_ps(b, _mm_movehl_ps(b, b));
  return _mm_cvtss_f32(_mm_add_ss(c, _mm_movehdup_ps(c)));
}
inline float reduce_max(F v) {
  const __m256 a = _mm256_max_ps(_mm512_castps512_ps256(v), _mm512_extractf32x8_ps(v, 1));
  const __m128 b = _mm_max_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
  const __m128 c = _mm_max_ps(b, _mm_movehl_ps(b, b));
  return _mm_cvtss_f32(_mm_max_ss(c, _mm_movehdup_ps(c)));
}
/// Lanes [0, n) from v, the others from `other`; n may lie outside [0, kLanes].
inline F first_lanes(int n, F v, F other) {
  const auto mask = static_cast<__mmask16>(n >= 16 ? 0xffffu : n <= 0 ? 0u : (1u << n) - 1u);
  return _mm512_mask_blend_ps(mask, other, v);
}

/// Rounds 32 values (|v| <= 127) to int8, ties to even; returns their sum.
inline int quantise_32(const F* v, std::int8_t* out) {
  const I a = _mm512_cvtps_epi32(v[0]);
  const I b = _mm512_cvtps_epi32(v[1]);
  _mm_storeu_si128(reinterpret_cast<__m128i*>(out), _mm512_cvtsepi32_epi8(a));
  _mm_storeu_si128(reinterpret_cast<__m128i*>(out + 16), _mm512_cvtsepi32_epi8(b));
  const I both = _mm512_add_epi32(a, b);
  const __m256i c =
      _mm256_add_epi32(_mm512_castsi512_si256(both), _mm512_extracti64x4_epi64(both, 1));
  const __m128i d = _mm_add_epi32(_mm256_castsi256_si128(c), _mm256_extracti128_si256(c, 1));
  const __m128i e = _mm_add_epi32(d, _mm_shuffle_epi32(d, 0x4e));
  return _mm_cvtsi128_si32(_mm_add_epi32(e, _mm_shuffle_epi32(e, 0xb1)));
}

// Integer dot products of 32-wide groups: lane r sums w[r][k] * x[k]. VNNI multiplies unsigned
// weights by signed activations; a weight's bias (8 or 128) comes off through the start value.
inline I load_bytes(const void* at) { return _mm512_loadu_si512(at); }
inline I low_nibbles(I v) { return _mm512_and_si512(v, _mm512_set1_epi8(15)); }
inline I high_nibbles(I v) {
  return _mm512_and_si512(_mm512_srli_epi16(v, 4), _mm512_set1_epi8(15));
}
inline I broadcast_4(const std::int8_t* at) {
  std::int32_t four;
  std::memcpy(&four, at, sizeof four);
  return _mm512_set1_epi32(four);
}
struct NibbleDot {
  I sum;
  void start(std::int32_t bias) { sum = _mm512_set1_epi32(bias); }
  void step(I w, I x) { sum = _mm512_dpbusd_epi32(sum, w, x); }
  F finish() const { return _mm512_cvtepi32_ps(sum); }
};
struct ByteDot {
  I sum;
  static I prepare(I w) { return w; }
  void start(std::int32_t bias) { sum = _mm512_set1_epi32(bias); }
  void step(I w, I x) { sum = _mm512_dpbusd_epi32(sum, w, x); }
  F finish() const { return _mm512_cvtepi32_ps(sum); }
};

}  // namespace
}  // namespace specdec::kernels
