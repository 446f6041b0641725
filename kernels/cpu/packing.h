#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/cpu/row_format.h"
#include "kernels/ops.h"

namespace specdec::kernels {

// A packed matrix is a sequence of tiles of 16 rows; a tile is a sequence of k steps, one stream to
// read from front to back. Lane r of every vector is row r of the tile. The layout is the same for
// every Isa: AVX2 reads each 64-byte vector as two halves of 8 rows.
//
// Step of a quantised type, 32 k wide; byte 4 * r + i of a vector belongs to row r:
//   q4_0  f16 d[16]            u8 q[4][64]   q[j]: low nibbles k = 4j + i, high nibbles k = 16 + 4j
//   q4_1  f16 d[16], f16 m[16] u8 q[4][64]                                               + i
//   q8_0  f16 d[16]            u8 q[8][64]   q[j]: k = 4j + i, biased by 128 (VNNI takes unsigned)
// Step of a float type, 1 k wide: f32, f16 or bf16 [16].

/// Bytes of one step.
constexpr std::size_t step_bytes(DataType type) noexcept {
  switch (type) {
    case DataType::f32:
      return 64;
    case DataType::f16:
    case DataType::bf16:
      return 32;
    case DataType::q8_0:
      return 32 + 8 * 64;
    case DataType::q4_0:
      return 32 + 4 * 64;
    case DataType::q4_1:
      return 64 + 4 * 64;
  }
  return 0;
}

constexpr int steps(DataType type, int cols) noexcept {
  return is_quantised(type) ? cols / kGroupSize : cols;
}

constexpr std::size_t tile_bytes(DataType type, int cols) noexcept {
  return step_bytes(type) * static_cast<std::size_t>(steps(type, cols));
}

/// Packs `count` <= 16 rows, padded with zeros, into one tile.
void pack_tile(DataType type, int cols, int count, const std::byte* const* rows,
               std::byte* tile) noexcept;

/// Dequantises row `row` of a packed matrix: the bits of convert_row_to_f32.
void unpack_row(const PackedMatrix& matrix, int row, float* out) noexcept;

}  // namespace specdec::kernels
