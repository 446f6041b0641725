#pragma once

#include "kernels/cuda/batch.h"

namespace specdec::kernels::cuda {

/// One row of a batch, whose keys so far lie in the slots of their positions.
__device__ __forceinline__ void write_row(const DeviceBatch& batch, int row, int token,
                                          int position, int slot) {
  batch.tokens[row] = token;
  batch.positions[row] = position;
  batch.slots[row] = slot;
  batch.path_offsets[row] = -1;
}
__device__ __forceinline__ void write_padding(const DeviceBatch& batch, int row) {
  write_row(batch, row, 0, 0, kPaddingSlot);
}

}  // namespace specdec::kernels::cuda
