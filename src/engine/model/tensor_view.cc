#include "engine/model/tensor_view.h"

#include <bit>
#include <cstring>

namespace specdec {
namespace {

using kernels::DataType;

float float_from_bits(std::uint32_t bits) noexcept { return std::bit_cast<float>(bits); }

/// IEEE 754 binary16 to binary32, exact.
float float_from_half(std::uint16_t half) noexcept {
  const std::uint32_t sign = static_cast<std::uint32_t>(half & 0x8000u) << 16;
  const std::uint32_t exponent = (half >> 10) & 0x1fu;
  const std::uint32_t mantissa = half & 0x3ffu;
  if (exponent == 0) {
    const float magnitude = static_cast<float>(mantissa) * 0x1p-24f;
    return sign != 0 ? -magnitude : magnitude;
  }
  if (exponent == 31) return float_from_bits(sign | 0x7f800000u | (mantissa << 13));
  return float_from_bits(sign | ((exponent + 112) << 23) | (mantissa << 13));
}

}  // namespace

int block_elements(DataType type) noexcept {
  return type == DataType::q8_0 || type == DataType::q4_0 || type == DataType::q4_1 ? 32 : 1;
}

std::size_t tensor_bytes(DataType type, std::size_t elements) noexcept {
  switch (type) {
    case DataType::f32:
      return elements * 4;
    case DataType::f16:
    case DataType::bf16:
      return elements * 2;
    case DataType::q8_0:
      return elements / 32 * 34;  // f16 scale, 32 int8
    case DataType::q4_0:
      return elements / 32 * 18;  // f16 scale, 32 nibbles
    case DataType::q4_1:
      return elements / 32 * 20;  // f16 scale, f16 minimum, 32 nibbles
  }
  return 0;
}

std::string_view to_string(DataType type) noexcept {
  switch (type) {
    case DataType::f32:
      return "F32";
    case DataType::f16:
      return "F16";
    case DataType::bf16:
      return "BF16";
    case DataType::q8_0:
      return "Q8_0";
    case DataType::q4_0:
      return "Q4_0";
    case DataType::q4_1:
      return "Q4_1";
  }
  return "?";
}

std::string shape_text(std::span<const std::int64_t> shape) {
  std::string text = "[";
  for (std::size_t i = 0; i < shape.size(); ++i) {
    if (i != 0) text += ", ";
    text += std::to_string(shape[i]);
  }
  return text + "]";
}

std::vector<float> read_floats(const TensorView& tensor) {
  const DataType type = tensor.type.value_or(DataType::f32);
  const std::size_t width = type == DataType::f32 ? 4 : 2;
  std::vector<float> values(tensor.data.size() / width);
  for (std::size_t i = 0; i < values.size(); ++i) {
    if (type == DataType::f32) {
      std::memcpy(&values[i], tensor.data.data() + i * width, width);
      continue;
    }
    std::uint16_t bits = 0;
    std::memcpy(&bits, tensor.data.data() + i * width, width);
    values[i] = type == DataType::f16 ? float_from_half(bits)
                                      : float_from_bits(static_cast<std::uint32_t>(bits) << 16);
  }
  return values;
}

bool is_utf8(std::string_view text) noexcept {
  const auto* at = reinterpret_cast<const unsigned char*>(text.data());
  const auto* end = at + text.size();
  while (at != end) {
    const unsigned char lead = *at++;
    if (lead < 0x80) continue;
    if (lead < 0xc2 || lead > 0xf4) return false;
    const int following = lead < 0xe0 ? 1 : lead < 0xf0 ? 2 : 3;
    if (end - at < following) return false;
    // The second byte's range excludes overlong forms, surrogates and code points past U+10FFFF.
    const unsigned low = lead == 0xe0 ? 0xa0 : lead == 0xf0 ? 0x90 : 0x80;
    const unsigned high = lead == 0xed ? 0x9f : lead == 0xf4 ? 0x8f : 0xbf;
    if (at[0] < low || at[0] > high) return false;
    for (int i = 1; i < following; ++i) {
      if ((at[i] & 0xc0) != 0x80) return false;
    }
    at += following;
  }
  return true;
}

std::string in_quotes(std::string_view text) {
  constexpr std::size_t kLongest = 80;
  constexpr char kHex[] = "0123456789abcdef";
  std::string result = "'";
  for (const char c : text.substr(0, kLongest)) {
    const auto byte = static_cast<unsigned char>(c);
    if (byte >= 0x20 && byte < 0x7f) {
      result += c;
    } else {
      result += {'\\', 'x', kHex[byte >> 4], kHex[byte & 15]};
    }
  }
  return result + (text.size() > kLongest ? "...'" : "'");
}

}  // namespace specdec
