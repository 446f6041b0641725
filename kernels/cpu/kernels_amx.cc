// The vector type comes first: the _inl.h files are written over it.
// clang-format off
#include "kernels/cpu/simd_avx512.h"
#include "kernels/cpu/math_inl.h"
#include "kernels/cpu/rows_inl.h"
#include "kernels/cpu/gemm_inl.h"
#include "kernels/cpu/gemm_amx_inl.h"
#include "kernels/cpu/attention_inl.h"
#include "kernels/cpu/table_inl.h"
// clang-format on

namespace specdec::kernels {

const KernelTable& amx_kernels() noexcept {
  static constexpr KernelTable kWithTiles = [] {
    KernelTable table = kKernels;
    table.gemm = gemm_amx;
    return table;
  }();
  return kWithTiles;
}

}  // namespace specdec::kernels
