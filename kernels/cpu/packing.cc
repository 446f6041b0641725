#include "kernels/cpu/packing.h"

#include <cstring>

namespace specdec::kernels {
namespace {

constexpr int kRows = 16;

void pack_quantised_step(DataType type, int row, const std::byte* group, std::byte* step) noexcept {
  const bool q8 = type == DataType::q8_0;
  std::memcpy(step + 2 * row, group, 2);
  if (type == DataType::q4_1) std::memcpy(step + 32 + 2 * row, group + 2, 2);
  const std::byte* source = group + (type == DataType::q4_1 ? 4 : 2);
  std::byte* q = step + (type == DataType::q4_1 ? 64 : 32) + 4 * row;
  const int vectors = q8 ? 8 : 4;
  for (int j = 0; j < vectors; ++j) {
    for (int i = 0; i < 4; ++i) {
      q[64 * j + i] = q8 ? source[4 * j + i] ^ std::byte{0x80} : source[4 * j + i];
    }
  }
}

float load_f16(const std::byte* at) noexcept {
  std::uint16_t bits;
  std::memcpy(&bits, at, sizeof bits);
  return f16_to_f32(bits);
}

}  // namespace

void pack_tile(DataType type, int cols, int count, const std::byte* const* rows,
               std::byte* tile) noexcept {
  const std::size_t step_size = step_bytes(type);
  const int num_steps = steps(type, cols);
  if (count < kRows) std::memset(tile, 0, step_size * static_cast<std::size_t>(num_steps));
  const std::size_t source_size =
      is_quantised(type) ? row_bytes(type, kGroupSize) : row_bytes(type, 1);
  for (int s = 0; s < num_steps; ++s) {
    std::byte* step = tile + step_size * static_cast<std::size_t>(s);
    for (int row = 0; row < count; ++row) {
      const std::byte* source = rows[row] + source_size * static_cast<std::size_t>(s);
      if (is_quantised(type)) {
        pack_quantised_step(type, row, source, step);
      } else {
        std::memcpy(step + source_size * static_cast<std::size_t>(row), source, source_size);
      }
    }
  }
}

void unpack_row(const PackedMatrix& matrix, int row, float* out) noexcept {
  const std::size_t step_size = step_bytes(matrix.type);
  const auto* step = static_cast<const std::byte*>(matrix.data) +
                     tile_bytes(matrix.type, matrix.cols) * static_cast<std::size_t>(row / kRows);
  const int r = row % kRows;
  const int num_steps = steps(matrix.type, matrix.cols);
  for (int s = 0; s < num_steps; ++s, step += step_size) {
    switch (matrix.type) {
      case DataType::f32:
        std::memcpy(out + s, step + 4 * r, 4);
        break;
      case DataType::f16:
        out[s] = load_f16(step + 2 * r);
        break;
      case DataType::bf16: {
        std::uint16_t bits;
        std::memcpy(&bits, step + 2 * r, sizeof bits);
        out[s] = bf16_to_f32(bits);
        break;
      }
      case DataType::q8_0: {
        const float d = load_f16(step + 2 * r);
        for (int k = 0; k < kGroupSize; ++k) {
          const int q = static_cast<int>(step[32 + 64 * (k / 4) + 4 * r + k % 4]) - 128;
          out[kGroupSize * s + k] = d * static_cast<float>(q);
        }
        break;
      }
      case DataType::q4_0:
      case DataType::q4_1: {
        const bool has_min = matrix.type == DataType::q4_1;
        const float d = load_f16(step + 2 * r);
        const float m = has_min ? load_f16(step + 32 + 2 * r) : 0.0f;
        const std::byte* q = step + (has_min ? 64 : 32) + 4 * r;
        for (int k = 0; k < 16; ++k) {
          const int both = static_cast<int>(q[64 * (k / 4) + k % 4]);
          const int low = has_min ? both & 15 : (both & 15) - 8;
          const int high = has_min ? both >> 4 : (both >> 4) - 8;
          out[kGroupSize * s + k] =
              has_min ? d * static_cast<float>(low) + m : d * static_cast<float>(low);
          out[kGroupSize * s + 16 + k] =
              has_min ? d * static_cast<float>(high) + m : d * static_cast<float>(high);
        }
        break;
      }
    }
  }
}

}  // namespace specdec::kernels
