#pragma once

#include <cuda_runtime_api.h>

#include <cstddef>
#include <cstdint>

#include "kernels/ops.h"

namespace specdec::kernels::bench {

/// Random numbers that make sense as packed weights of `type`, made on the device.
cudaError_t fill_random(std::byte* out, std::size_t bytes, DataType type, std::uint32_t seed);

/// A copy of a multiple of 8 KiB by the multiprocessors: what the memory gives to kernels (copy
/// engines give less).
cudaError_t copy_on_processors(void* to, const void* from, std::size_t bytes, cudaStream_t stream);

}  // namespace specdec::kernels::bench
