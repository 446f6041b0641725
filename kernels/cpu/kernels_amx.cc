// The vector type comes first: the _inl.h files are written over it.
// clang-format off
#include "kernels/cpu/simd_avx512.h"
#include "kernels/cpu/math_inl.h"
#include "kernels/cpu/rows_inl.h"
#include "kernels/cpu/gemm_inl.h"
#include "kernels/cpu/gemm_amx_inl.h"
#include "kernels/cpu/attention_inl.h"
// clang-format on

namespace specdec::kernels {

const KernelTable& amx_kernels() noexcept {
  static constexpr KernelTable kTable = {
      .prepare = prepare,
      .gemm = gemm_amx,
      .rms_norm = rms_norm,
      .silu_mul = silu_mul_row,
      .rope_append = rope_append,
      .scores = scores,
      .softmax = softmax,
      .weigh = weigh,
      .combine = combine,
      .divide = divide,
  };
  return kTable;
}

}  // namespace specdec::kernels
