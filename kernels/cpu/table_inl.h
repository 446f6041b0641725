#pragma once

// The kernels of one instruction set; after the other _inl.h files.

#include "kernels/cpu/kernel_table.h"

namespace specdec::kernels {
namespace {

constexpr KernelTable kKernels = {
    .prepare = prepare,
    .quantise = quantise,
    .gemm = gemm,
    .rms_norm = rms_norm,
    .silu_mul = silu_mul_row,
    .rope_append = rope_append,
    .scores = scores,
    .softmax = softmax,
    .weigh = weigh,
    .combine = combine,
    .divide = divide,
};

}  // namespace
}  // namespace specdec::kernels
