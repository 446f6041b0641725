#pragma once

#include <vector>

#include "gpu_fixtures.h"

// What a tensor core makes of a product: sums in double precision, and how far off its own may be.

namespace specdec::kernels::test {

/// The GPU's compute capability, without the minor version.
int compute_major();

/// How a tensor core adds: so many products at a time and the running sum are cut (towards zero) to
/// multiples of `grain` times the power of two of the largest of them, added exactly, and the
/// result cut to a float. The power of a product is that of its factors' exponents, a subnormal
/// factor having the exponent of the smallest normal number: sums of products of subnormals alone
/// lose bits that float arithmetic would keep. Fasi et al. 2021 (doi.org/10.7717/peerj-cs.330),
/// Khattak and Mikaitis 2025 (arXiv 2512.07004).
/// Of TF32, twice as wide, it takes half as many at a time.
struct TensorCore {
  int products;
  double grain;
  static TensorCore of_gpu(DataType operand_type);
};

/// Of every value the power of two that a tensor core goes by; 0 of 0.
std::vector<double> powers(const std::vector<float>& values, DataType operand_type);

/// A matrix that is one side of a product.
struct Side {
  std::vector<float> values;  // rounded
  std::vector<double> powers;
};

/// One sum of a product.
struct Sum {
  double exact = 0;
  double bound = 1e-30;  // of a tensor core's error
  float cut = 0;         // the tensor core's sum
};

/// Row `r` of `w` times row `t` of `x`, in `chains` sums that take steps of 16 columns in turn and
/// are then added as floats.
Sum sum_of(const Side& w, int r, const Side& x, int t, int cols, int chains,
           const TensorCore& core);

/// The same of floats in full precision, eight products at a time. Each float becomes a TF32 and
/// the nearest TF32 of the rest: off by 2^-23 of it, and both rests, each 2^-11 at most, are not
/// multiplied. Three runs of a tensor core, cut to floats, make a step's sum, which is added by
/// rounding to the nearest.
Sum full_sum_of(const Side& w, int r, const Side& x, int t, int cols, const TensorCore& core);

}  // namespace specdec::kernels::test
