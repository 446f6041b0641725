#pragma once

#include <cstddef>

#ifdef __CUDACC__
#define SPECDEC_HOST_DEVICE __host__ __device__ __forceinline__
#else
#define SPECDEC_HOST_DEVICE inline
#endif

namespace specdec::kernels::cuda {

/// Activations as the tensor cores read them: tiles of 8 tokens x 16 bytes, that is 8 columns of
/// f16 or bf16, 4 of TF32 or floats, each 128 contiguous bytes, the tiles of 8 tokens adjacent
/// along the columns. ldmatrix takes four of them at once for mma.sync; to wgmma they are core
/// matrices without swizzle.
inline constexpr int kTokenTile = 8;
/// Columns are padded with zeros to whole units of this many: two mma steps, one quantised group.
inline constexpr int kUnitCols = 32;
inline constexpr int kTileRows = 16;  // weight rows of one mma
/// Bytes of a token tile's unit, by the size of an element.
template <int kElement>
inline constexpr int kTokenUnitOf = kTokenTile* kUnitCols* kElement;
inline constexpr int kTokenUnit = kTokenUnitOf<2>;

SPECDEC_HOST_DEVICE int ceil_div(int a, int b) { return (a + b - 1) / b; }
SPECDEC_HOST_DEVICE int padded_cols(int cols) { return ceil_div(cols, kUnitCols) * kUnitCols; }

/// One token lies in a row of its own, and all eight tokens of the mma read it: a block then
/// fetches an eighth. (Rows with padding stay in their tiles, whose padding is zero from the
/// beginning.)
SPECDEC_HOST_DEVICE bool is_single_row(int num_tokens, int cols) {
  return num_tokens == 1 && cols % kUnitCols == 0;
}

/// Index of element (token, col) of an operand of `num_tokens` tokens with `cols` columns of
/// kElement bytes each.
template <int kElement = 2>
SPECDEC_HOST_DEVICE std::size_t operand_index(int token, int col, int cols, int num_tokens) {
  if (is_single_row(num_tokens, cols)) return static_cast<std::size_t>(col);
  constexpr int kCols = 16 / kElement;  // of a tile
  const int tile_cols = padded_cols(cols) / kCols;
  return ((static_cast<std::size_t>(token / kTokenTile) * tile_cols + col / kCols) * kTokenTile +
          token % kTokenTile) *
             kCols +
         col % kCols;
}

/// Bytes of an operand for `tokens` tokens.
SPECDEC_HOST_DEVICE std::size_t operand_bytes(int tokens, int cols, int element_bytes = 2) {
  return static_cast<std::size_t>(ceil_div(tokens, kTokenTile)) * kTokenTile * padded_cols(cols) *
         element_bytes;
}

}  // namespace specdec::kernels::cuda
