#include "support/quantise.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>

namespace specdec::testing {
namespace {

using kernels::DataType;

constexpr std::size_t kBlock = 32;

void append(std::vector<std::byte>& out, const void* data, std::size_t size) {
  const auto* begin = static_cast<const std::byte*>(data);
  out.insert(out.end(), begin, begin + size);
}

void append_half(std::vector<std::byte>& out, float value) {
  const std::uint16_t half = half_from_float(value);
  append(out, &half, sizeof half);
}

void append_nibbles(std::vector<std::byte>& out, std::span<const float> block, float scale,
                    float shift) {
  const float inverse = scale == 0.0f ? 0.0f : 1.0f / scale;
  const auto level = [&](std::size_t i) {
    return static_cast<unsigned>(
        std::clamp(std::floor((block[i] - shift) * inverse + 0.5f), 0.0f, 15.0f));
  };
  for (std::size_t i = 0; i < kBlock / 2; ++i) {
    out.push_back(static_cast<std::byte>(level(i) | (level(i + kBlock / 2) << 4)));
  }
}

void append_block(std::vector<std::byte>& out, std::span<const float> block, DataType type) {
  const auto [low, high] = std::ranges::minmax(block);
  const float extreme = -low > high ? low : high;  // of the largest magnitude, with its sign
  if (type == DataType::q8_0) {
    const float scale = std::fabs(extreme) / 127.0f;
    append_half(out, scale);
    for (const float value : block) {
      const float level = scale == 0.0f ? 0.0f : std::round(value / scale);
      out.push_back(static_cast<std::byte>(static_cast<std::int8_t>(level)));
    }
  } else if (type == DataType::q4_0) {
    const float scale = extreme / -8.0f;
    append_half(out, scale);
    append_nibbles(out, block, scale, -8.0f * scale);
  } else {
    const float scale = (high - low) / 15.0f;
    append_half(out, scale);
    append_half(out, low);
    append_nibbles(out, block, scale, low);
  }
}

template <typename T>
T load(const std::byte* at) {
  T value;
  std::memcpy(&value, at, sizeof value);
  return value;
}

void read_block(std::vector<float>& out, const std::byte* block, DataType type) {
  const float scale = float_from_half(load<std::uint16_t>(block));
  if (type == DataType::q8_0) {
    for (std::size_t i = 0; i < kBlock; ++i) {
      out.push_back(scale * static_cast<float>(load<std::int8_t>(block + 2 + i)));
    }
    return;
  }
  const bool has_minimum = type == DataType::q4_1;
  const float minimum = has_minimum ? float_from_half(load<std::uint16_t>(block + 2)) : 0.0f;
  const std::byte* nibbles = block + (has_minimum ? 4 : 2);
  for (std::size_t i = 0; i < kBlock; ++i) {
    const auto pair = std::to_integer<unsigned>(nibbles[i % (kBlock / 2)]);
    const auto level = static_cast<int>(i < kBlock / 2 ? pair & 15u : pair >> 4);
    out.push_back(has_minimum ? scale * static_cast<float>(level) + minimum
                              : scale * static_cast<float>(level - 8));
  }
}

}  // namespace

std::uint16_t half_from_float(float value) {
  const auto bits = std::bit_cast<std::uint32_t>(value);
  const std::uint32_t sign = (bits >> 16) & 0x8000u;
  const float magnitude = std::fabs(value);
  if (std::isnan(value)) return static_cast<std::uint16_t>(sign | 0x7e00u);
  if (magnitude >= 65520.0f) return static_cast<std::uint16_t>(sign | 0x7c00u);
  // nearbyint rounds to even; a carry out of the mantissa is the next exponent, as it should be.
  int exponent = 0;
  std::frexp(magnitude, &exponent);
  exponent = std::max(exponent - 1, -14);
  const float steps = std::nearbyint(std::ldexp(magnitude, 10 - exponent));
  const auto field =
      static_cast<std::uint32_t>(steps) + (static_cast<std::uint32_t>(exponent + 14) << 10);
  return static_cast<std::uint16_t>(sign | field);
}

std::uint16_t bfloat_from_float(float value) {
  const auto bits = std::bit_cast<std::uint32_t>(value);
  if (std::isnan(value)) return static_cast<std::uint16_t>((bits >> 16) | 0x40u);
  return static_cast<std::uint16_t>((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);
}

float float_from_half(std::uint16_t half) {
  const int exponent = (half >> 10) & 31;
  const int mantissa = half & 1023;
  float magnitude = 0;
  if (exponent == 31) {
    magnitude = mantissa == 0 ? INFINITY : NAN;
  } else if (exponent == 0) {
    magnitude = std::ldexp(static_cast<float>(mantissa), -24);
  } else {
    magnitude = std::ldexp(static_cast<float>(mantissa + 1024), exponent - 25);
  }
  return std::copysign(magnitude, (half & 0x8000) != 0 ? -1.0f : 1.0f);
}

std::vector<std::byte> quantise(std::span<const float> values, DataType type) {
  std::vector<std::byte> out;
  if (type == DataType::f32) {
    append(out, values.data(), values.size_bytes());
  } else if (type == DataType::f16 || type == DataType::bf16) {
    for (const float value : values) {
      const std::uint16_t bits =
          type == DataType::f16 ? half_from_float(value) : bfloat_from_float(value);
      append(out, &bits, sizeof bits);
    }
  } else {
    for (std::size_t i = 0; i + kBlock <= values.size(); i += kBlock) {
      append_block(out, values.subspan(i, kBlock), type);
    }
  }
  return out;
}

std::vector<float> dequantise(std::span<const std::byte> bytes, DataType type) {
  std::vector<float> out;
  const std::byte* at = bytes.data();
  const std::byte* end = at + bytes.size();
  while (at < end) {
    switch (type) {
      case DataType::f32:
        out.push_back(load<float>(at));
        at += 4;
        break;
      case DataType::f16:
        out.push_back(float_from_half(load<std::uint16_t>(at)));
        at += 2;
        break;
      case DataType::bf16:
        out.push_back(
            std::bit_cast<float>(static_cast<std::uint32_t>(load<std::uint16_t>(at)) << 16));
        at += 2;
        break;
      default:
        read_block(out, at, type);
        at += type == DataType::q8_0 ? 34 : type == DataType::q4_0 ? 18 : 20;
    }
  }
  return out;
}

}  // namespace specdec::testing
