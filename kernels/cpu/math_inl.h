#pragma once

// After simd_avx2.h or simd_avx512.h. Polynomials: interpolation at Chebyshev nodes, degree 6,
// relative error 2e-8 before rounding.

#if defined(__clang__)
#define SPECDEC_UNROLL _Pragma("unroll")
#else
#define SPECDEC_UNROLL _Pragma("GCC unroll 32")
#endif

namespace specdec::kernels {
namespace {

/// 2^x; 0 for x < -150; NaN for NaN.
inline F exp2(F x) {
  const F bounded = min(set1(129.0f), max(set1(-151.0f), x));  // NaN passes: it stands second
  const F whole = round_even(bounded);
  const F f = sub(bounded, whole);
  F y = set1(0.00015461444854736328f);
  y = fma(y, f, set1(0.0013400427997112274f));
  y = fma(y, f, set1(0.009618056938052177f));
  y = fma(y, f, set1(0.05550327152013779f));
  y = fma(y, f, set1(0.24022650718688965f));
  y = fma(y, f, set1(0.6931471824645996f));
  y = fma(y, f, set1(1.0f));
  return scale_exponent(y, whole);
}

/// e^x; 0 for x < -104, infinity for x > 89, NaN for NaN. ln 2 is split in two (Cody and Waite).
inline F exp(F x) {
  const F bounded = min(set1(89.5f), max(set1(-105.0f), x));
  const F whole = round_even(mul(bounded, set1(1.4426950408889634f)));
  F f = fnma(whole, set1(0.693115234375f), bounded);
  f = fnma(whole, set1(3.194618329871446e-05f), f);
  F y = set1(0.0013941108481958508f);
  y = fma(y, f, set1(0.00837512593716383f));
  y = fma(y, f, set1(0.04166635125875473f));
  y = fma(y, f, set1(0.16666415333747864f));
  y = fma(y, f, set1(0.5f));
  y = fma(y, f, set1(1.0f));
  y = fma(y, f, set1(1.0f));
  return scale_exponent(y, whole);
}

/// Loads n <= kLanes floats; the other lanes are `fill`.
inline F load_first(const float* at, int n, float fill) {
  if (n >= kLanes) return load(at);
  float lanes[kLanes];
  for (int i = 0; i < kLanes; ++i) lanes[i] = i < n ? at[i] : fill;
  return load(lanes);
}
inline void store_first(float* at, int n, F v) {
  if (n >= kLanes) {
    store(at, v);
    return;
  }
  float lanes[kLanes];
  store(lanes, v);
  for (int i = 0; i < n; ++i) at[i] = lanes[i];
}

}  // namespace
}  // namespace specdec::kernels
