#pragma once

#include <cstddef>
#include <string_view>

namespace specdec {

/// Length of the well-formed UTF-8 sequence at the start of `text` (Unicode, table 3-7: no
/// surrogates, no overlong forms, nothing above U+10FFFF); 0 when there is none.
inline std::size_t utf8_sequence_length(std::string_view text) noexcept {
  if (text.empty()) return 0;
  const auto at = [&](std::size_t i) {
    return i < text.size() ? static_cast<unsigned char>(text[i]) : 0u;
  };
  const auto tail = [&](std::size_t i) { return (at(i) & 0xC0u) == 0x80u; };
  const unsigned lead = at(0);
  if (lead < 0x80) return 1;
  if (lead < 0xC2) return 0;
  if (lead < 0xE0) return tail(1) ? 2 : 0;
  if (lead < 0xF0) {
    const unsigned low = lead == 0xE0 ? 0xA0 : 0x80;
    const unsigned high = lead == 0xED ? 0x9F : 0xBF;
    return at(1) >= low && at(1) <= high && tail(2) ? 3 : 0;
  }
  if (lead < 0xF5) {
    const unsigned low = lead == 0xF0 ? 0x90 : 0x80;
    const unsigned high = lead == 0xF4 ? 0x8F : 0xBF;
    return at(1) >= low && at(1) <= high && tail(2) && tail(3) ? 4 : 0;
  }
  return 0;
}

/// The code point of one well-formed sequence, the first byte of anything else.
inline char32_t utf8_code_point(std::string_view text) noexcept {
  const auto at = [&](std::size_t i) {
    return static_cast<char32_t>(static_cast<unsigned char>(text[i]));
  };
  switch (utf8_sequence_length(text)) {
    case 0:
      return text.empty() ? 0 : at(0);
    case 1:
      return at(0);
    case 2:
      return (at(0) & 0x1F) << 6 | (at(1) & 0x3F);
    case 3:
      return (at(0) & 0x0F) << 12 | (at(1) & 0x3F) << 6 | (at(2) & 0x3F);
    default:
      return (at(0) & 0x07) << 18 | (at(1) & 0x3F) << 12 | (at(2) & 0x3F) << 6 | (at(3) & 0x3F);
  }
}

/// Length of the longest well-formed UTF-8 prefix of `text`.
inline std::size_t utf8_valid_prefix(std::string_view text) noexcept {
  std::size_t length = 0;
  while (length < text.size()) {
    const std::size_t n = utf8_sequence_length(text.substr(length));
    if (n == 0) break;
    length += n;
  }
  return length;
}

}  // namespace specdec
