#include "engine/model/quantise.h"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>

#include "kernels/cpu/row_format.h"

namespace specdec {

void append_q8_0(std::span<const float> values, std::vector<std::byte>& out) {
  constexpr std::size_t kGroup = kernels::kGroupSize;
  for (std::size_t begin = 0; begin < values.size(); begin += kGroup) {
    const std::span<const float> group = values.subspan(begin, kGroup);
    float amax = 0;
    for (const float value : group) amax = std::max(amax, std::fabs(value));
    const float d = amax / 127.0f;
    const float inverse = d == 0 ? 0.0f : 1.0f / d;
    const std::uint16_t scale = kernels::f32_to_f16(d);
    const std::size_t at = out.size();
    out.resize(at + sizeof scale + kGroup);
    std::memcpy(&out[at], &scale, sizeof scale);
    for (std::size_t i = 0; i < kGroup; ++i) {
      const long rounded = std::lround(std::clamp(group[i] * inverse, -127.0f, 127.0f));
      out[at + sizeof scale + i] = static_cast<std::byte>(static_cast<std::int8_t>(rounded));
    }
  }
}

}  // namespace specdec
