#pragma once

#include <cstddef>
#include <string>
#include <string_view>

namespace specdec::grammar {

/// Length of the well-formed UTF-8 sequence that `text` begins with (Unicode, table 3-7); 0 when
/// there is none.
std::size_t utf8_length(std::string_view text) noexcept;

/// The code point of that sequence; there is one.
char32_t utf8_decode(std::string_view text) noexcept;

void utf8_append(std::string& text, char32_t code_point);

}  // namespace specdec::grammar
