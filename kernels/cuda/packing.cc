#include "kernels/cuda/packing.h"

#include <cmath>
#include <cstdint>
#include <cstring>

namespace specdec::kernels::cuda {
namespace {

constexpr int kLanes = 32;

/// Round to nearest even; `too_large` for what f16's largest number is too small for.
std::uint16_t to_f16(double value, std::uint16_t too_large) {
  std::uint64_t bits;
  std::memcpy(&bits, &value, sizeof bits);
  const auto sign = static_cast<std::uint16_t>(bits >> 48 & 0x8000);
  const double magnitude = std::fabs(value);
  if (std::isnan(value)) return static_cast<std::uint16_t>(sign | 0x7e00);
  if (magnitude >= 65520) return static_cast<std::uint16_t>(sign | too_large);
  if (magnitude < 0x1p-14)  // subnormal: units of 2^-24
    return static_cast<std::uint16_t>(
        sign | static_cast<std::uint16_t>(std::nearbyint(magnitude * 0x1p24)));
  bits &= ~(std::uint64_t{1} << 63);
  constexpr int kDropped = 42;  // bits of the fraction
  constexpr std::uint64_t kBias = std::uint64_t{1023 - 15} << 52;
  const std::uint64_t half = (std::uint64_t{1} << (kDropped - 1)) - 1 + (bits >> kDropped & 1);
  return static_cast<std::uint16_t>(sign | ((bits + half - kBias) >> kDropped));
}

double from_f16(const std::byte* at) {
  std::uint16_t bits;
  std::memcpy(&bits, at, sizeof bits);
  const int exponent = bits >> 10 & 31;
  const int fraction = bits & 1023;
  const double magnitude = exponent == 31  ? (fraction == 0 ? INFINITY : NAN)
                           : exponent == 0 ? fraction * 0x1p-24
                                           : std::ldexp(1024 + fraction, exponent - 25);
  return (bits & 0x8000) != 0 ? -magnitude : magnitude;
}

/// The two columns of pair `pair` (0: row g, 1: row g + 8, 2 and 3: the same, 8 columns on).
int pair_row(int lane, int pair) { return lane / 4 + pair % 2 * 8; }
int pair_col(int lane, int pair) { return lane % 4 * 2 + pair / 2 * 8; }

std::uint16_t dense_element(DataType type, const std::byte* row, int col) {
  std::uint16_t half;
  if (type == DataType::f32) {
    float value;
    std::memcpy(&value, row + static_cast<std::size_t>(col) * sizeof value, sizeof value);
    constexpr std::uint16_t kLargest = 0x7bff;  // rather than infinity
    return to_f16(value, kLargest);
  }
  std::memcpy(&half, row + static_cast<std::size_t>(col) * sizeof half, sizeof half);
  return half;
}

void pack_dense_unit(DataType type, int cols, int first, const std::byte* const* rows,
                     std::byte* out) {
  auto* elements = reinterpret_cast<std::uint16_t*>(out);
  for (int step = 0; step < 2; ++step)
    for (int lane = 0; lane < kLanes; ++lane)
      for (int i = 0; i < 8; ++i, ++elements) {
        const std::byte* row = rows[pair_row(lane, i / 2)];
        const int col = first + step * 16 + pair_col(lane, i / 2) + i % 2;
        *elements =
            row == nullptr || col >= cols ? std::uint16_t{0} : dense_element(type, row, col);
      }
}

void pack_float_unit(int cols, int first, const std::byte* const* rows, std::byte* out) {
  for (int step = 0; step < kUnitCols / 8; ++step)
    for (int lane = 0; lane < kLanes; ++lane)
      for (int i = 0; i < 4; ++i, out += sizeof(float)) {
        const std::byte* row = rows[lane / 4 + i % 2 * 8];
        const int col = first + step * 8 + lane % 4 + i / 2 * 4;
        if (row != nullptr && col < cols)
          std::memcpy(out, row + static_cast<std::size_t>(col) * sizeof(float), sizeof(float));
        else
          std::memset(out, 0, sizeof(float));
      }
}

/// Number `i` of a group of 32 as the file has it: q4: 0..15, q8: as an unsigned byte, plus 128.
unsigned quant(DataType type, const std::byte* group, int i) {
  if (type == DataType::q8_0) return (std::to_integer<unsigned>(group[2 + i]) + 128) & 255;
  const int header = type == DataType::q4_1 ? 4 : 2;
  return std::to_integer<unsigned>(group[header + i % 16]) >> (i < 16 ? 0 : 4) & 15;
}

void pack_quantised_unit(DataType type, const std::byte* const* groups, std::byte* out) {
  const bool bytes = type == DataType::q8_0;
  auto* words = reinterpret_cast<std::uint32_t*>(out);
  for (int lane = 0; lane < kLanes; ++lane)
    for (int step = 0; step < 2; ++step) {
      std::uint32_t word[2] = {0, 0};
      for (int pair = 0; pair < 4; ++pair)
        for (int i = 0; i < 2; ++i) {
          const std::byte* group = groups[pair_row(lane, pair)];
          if (group == nullptr) continue;
          const std::uint32_t q = quant(type, group, step * 16 + pair_col(lane, pair) + i);
          if (bytes)
            word[pair / 2] |= q << (pair % 2 * 16 + i * 8);
          else
            word[0] |= q << (pair * 4 + i * 16);
        }
      *words++ = word[0];
      if (bytes) *words++ = word[1];
    }
  auto* scales = reinterpret_cast<std::byte*>(words);
  const std::size_t header = type == DataType::q4_1 ? 4 : 2;
  for (int row = 0; row < kTileRows; ++row) {
    std::byte* at = scales + static_cast<std::size_t>(row) * header;
    if (groups[row] == nullptr)
      std::memset(at, 0, header);
    else
      std::memcpy(at, groups[row], header);
  }
}

std::size_t group_bytes(DataType type) {
  return type == DataType::q8_0 ? 34 : type == DataType::q4_1 ? 20 : 18;
}

/// Weights as tensor cores get them (weights.cuh): f16 arithmetic rounds q * scale (+ minimum),
/// which is exact here, once, and makes infinity of what is too large.
void unpack_unit(DataType type, const std::byte* const* groups, std::byte* out) {
  constexpr std::uint16_t kInfinity = 0x7c00;
  const int bias = type == DataType::q8_0 ? 128 : type == DataType::q4_0 ? 8 : 0;
  double scales[kTileRows];
  double minimums[kTileRows];
  for (int row = 0; row < kTileRows; ++row) {
    const std::byte* const group = groups[row];
    scales[row] = group == nullptr ? 0 : from_f16(group);
    // Adding -0 leaves even a product of -0 as it is.
    minimums[row] = group != nullptr && type == DataType::q4_1 ? from_f16(group + 2) : -0.0;
  }
  auto* elements = reinterpret_cast<std::uint16_t*>(out);
  for (int step = 0; step < 2; ++step)
    for (int lane = 0; lane < kLanes; ++lane)
      for (int i = 0; i < 8; ++i, ++elements) {
        const int row = pair_row(lane, i / 2);
        if (groups[row] == nullptr) {
          *elements = 0;
          continue;
        }
        const int col = step * 16 + pair_col(lane, i / 2) + i % 2;
        const int q = static_cast<int>(quant(type, groups[row], col)) - bias;
        *elements = to_f16(q * scales[row] + minimums[row], kInfinity);
      }
}

bool quantised(DataType type) {
  return type == DataType::q8_0 || type == DataType::q4_0 || type == DataType::q4_1;
}

}  // namespace

std::size_t unit_bytes(DataType type) noexcept {
  return quantised(type) ? kTileRows * group_bytes(type) : type == DataType::f32 ? 2048 : 1024;
}

DataType packed_type(DataType source, DataType f32_as) noexcept {
  return source == DataType::f32 ? f32_as : source;
}

DataType operand_type(DataType type) noexcept {
  return type == DataType::bf16 || type == DataType::f32 ? type : DataType::f16;
}

int operand_element_bytes(DataType type) noexcept { return type == DataType::f32 ? 4 : 2; }

std::size_t packed_bytes(DataType type, int rows, int cols, int pair_distance) noexcept {
  return static_cast<std::size_t>(num_tiles(rows, pair_distance)) *
         static_cast<std::size_t>(ceil_div(cols, kUnitCols)) * unit_bytes(type);
}

void pack_tile(DataType type, DataType packed, int cols, const std::byte* const rows[kTileRows],
               std::byte* out) {
  const std::size_t bytes = unit_bytes(packed);
  for (int unit = 0; unit < ceil_div(cols, kUnitCols); ++unit, out += bytes) {
    if (packed == DataType::f32) {
      pack_float_unit(cols, unit * kUnitCols, rows, out);
      continue;
    }
    if (!quantised(type)) {
      pack_dense_unit(type, cols, unit * kUnitCols, rows, out);
      continue;
    }
    const std::byte* groups[kTileRows];
    for (int i = 0; i < kTileRows; ++i)
      groups[i] = rows[i] == nullptr ? nullptr
                                     : rows[i] + static_cast<std::size_t>(unit) * group_bytes(type);
    if (packed == DataType::f16)
      unpack_unit(type, groups, out);
    else
      pack_quantised_unit(type, groups, out);
  }
}

}  // namespace specdec::kernels::cuda
