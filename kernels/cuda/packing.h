#pragma once

#include <cstddef>

#include "kernels/cuda/operand.h"
#include "kernels/ops.h"

namespace specdec::kernels::cuda {

/// Weights on the device: [tiles][units], a unit being 16 rows x 32 columns in the order in which
/// the 32 lanes of a warp hold the A operand of mma.m16n8k16, so that each lane reads its share of
/// a unit with one or two vector loads. Lane (g, c) = (lane / 4, lane % 4) holds, of each step of
/// 16 columns, rows g and g + 8, columns 2c, 2c + 1, 2c + 8, 2c + 9.
///   f32        [4 steps][32 lanes][4], as m16n8k8 has it                     2048 bytes
///   f16, bf16  [2 steps][32 lanes][8]                                       1024
///   q8_0       [32 lanes][2 steps][8] unsigned (q + 128), f16 scales[16]     544
///   q4_0       [32 lanes][2 steps] nibbles, f16 scales[16]                   288
///   q4_1       [32 lanes][2 steps] nibbles, f16 {scale, minimum}[16]         320
/// In m16n8k8, whose steps have 8 columns, lane (g, c) holds rows g and g + 8 of column c, then of
/// column c + 4. Floats are kept as the file has them and become TF32, one or a sum of two
/// (PackedMatrix::full_precision), as they are multiplied: so an embedding's rows are its own.
std::size_t unit_bytes(DataType packed_type) noexcept;

/// What `source` type is kept as, if it is not unpacked to f16; f32 as `f32_as`, f16 or f32.
DataType packed_type(DataType source, DataType f32_as = DataType::f16) noexcept;
/// How a product with a packed matrix takes its activations: f16 or bf16 operands (bf16 for bf16,
/// f16 for all others but f32), or, for f32, floats, of which it makes operands itself.
DataType operand_type(DataType packed_type) noexcept;
/// Bytes of an element of the operand that the tensor cores then read.
int operand_element_bytes(DataType packed_type) noexcept;

/// Which matrix rows a tile holds: rows 0..7 of tile t are first, first + 1, .., rows 8..15 those
/// `distance` further on. With a pair distance, rows that are used together share a thread.
struct TileRows {
  int first = 0;
  int distance = 8;
  int valid = 8;  // of each half; further ones are padding

  SPECDEC_HOST_DEVICE static TileRows of(int tile, int pair_distance);
};

SPECDEC_HOST_DEVICE TileRows TileRows::of(int tile, int pair_distance) {
  const int distance = pair_distance > 0 ? pair_distance : kTileRows / 2;
  const int tiles = ceil_div(distance, kTileRows / 2);  // in a span of 2 * distance rows
  const int begin = tile % tiles * (kTileRows / 2);
  const int left = distance - begin;
  return {tile / tiles * 2 * distance + begin, distance, left < 8 ? left : 8};
}

SPECDEC_HOST_DEVICE int num_tiles(int rows, int pair_distance) {
  const int distance = pair_distance > 0 ? pair_distance : kTileRows / 2;
  return ceil_div(rows, 2 * distance) * ceil_div(distance, kTileRows / 2);
}

/// Bytes of the packed matrix.
std::size_t packed_bytes(DataType packed_type, int rows, int cols, int pair_distance) noexcept;

/// Packs one tile from its 16 rows as they lie in a model file (`type`: the file's; null: a row of
/// zeros) into `out`, [units of the row], as `packed`: packed_type(type), or f16 for quantised
/// types. Then every weight is what the kernels make of it as they multiply: products keep their
/// bits (an embedding's rows, which are never rounded, do not). Quantised rows are whole groups
/// of 32.
void pack_tile(DataType type, DataType packed, int cols, const std::byte* const rows[kTileRows],
               std::byte* out);

}  // namespace specdec::kernels::cuda
