#include "kernels/reference/kv_access.h"

#include <cmath>
#include <cstring>
#include <limits>

namespace specdec::kernels::reference {
namespace {

// IEEE binary16, from its definition: slow and plain, to check the bit-twiddling versions against.
double half_to_double(std::uint16_t bits) {
  const int exponent = bits >> 10 & 31;
  const int mantissa = bits & 1023;
  const double unit = static_cast<double>(1u << exponent) * 0x1p-25;
  double magnitude = exponent == 0 ? mantissa * 0x1p-24 : (1024 + mantissa) * unit;
  if (exponent == 31) {
    magnitude = mantissa == 0 ? std::numeric_limits<double>::infinity()
                              : std::numeric_limits<double>::quiet_NaN();
  }
  return (bits & 0x8000) != 0 ? -magnitude : magnitude;
}

std::uint16_t double_to_half(double value) {
  const auto sign = static_cast<std::uint16_t>(std::signbit(value) ? 0x8000 : 0);
  const double magnitude = std::fabs(value);
  if (std::isnan(value)) return static_cast<std::uint16_t>(sign | 0x7e00);
  if (magnitude >= 65520.0) return static_cast<std::uint16_t>(sign | 0x7c00);
  if (magnitude == 0) return sign;
  int exponent = 0;
  std::frexp(magnitude, &exponent);
  if (exponent < -13) exponent = -13;
  // nearbyint rounds ties to even, in units of the last place of this binade.
  const double units = std::nearbyint(std::ldexp(magnitude, 11 - exponent));
  const int biased = exponent + 14;  // units < 1024: subnormal, which has biased exponent 1 - 1
  return static_cast<std::uint16_t>(sign + ((biased - 1) << 10) + static_cast<int>(units));
}

}  // namespace

std::size_t key_index(const KvLayer& kv, int block, int head, int dim, int offset) {
  return ((static_cast<std::size_t>(block) * kv.num_kv_heads + head) * kv.head_dim + dim) *
             kv.block_size +
         offset;
}

std::size_t value_index(const KvLayer& kv, int block, int head, int offset, int dim) {
  return ((static_cast<std::size_t>(block) * kv.num_kv_heads + head) * kv.block_size + offset) *
             kv.head_dim +
         dim;
}

double load_element(const void* base, DataType type, std::size_t index) {
  if (type == DataType::f32) return static_cast<const float*>(base)[index];
  return half_to_double(static_cast<const std::uint16_t*>(base)[index]);
}

void store_element(void* base, DataType type, std::size_t index, double value) {
  if (type == DataType::f32) {
    static_cast<float*>(base)[index] = static_cast<float>(value);
  } else {
    static_cast<std::uint16_t*>(base)[index] = double_to_half(static_cast<float>(value));
  }
}

}  // namespace specdec::kernels::reference
