#pragma once

#include <string>
#include <string_view>

namespace specdec {

/// True when `text` is in NFC for certain: it has no code point from U+0300 on.
bool is_trivially_nfc(std::string_view text) noexcept;

/// Normalization Form C (Unicode Standard Annex 15) with the tables of Python's `tokenizers`. Bytes
/// that are no UTF-8 stay as they are and separate what is normalised.
std::string to_nfc(std::string_view text);

}  // namespace specdec
