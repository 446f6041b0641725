#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace specdec {

/// The byte-level alphabet of GPT-2 (bytes_to_unicode in its encoder.py): each byte has a printable
/// stand-in code point below 0x144, so that a vocabulary file is valid text.
struct ByteLevelAlphabet {
  std::array<std::uint16_t, 256> code_point;  // of a byte
  std::array<std::int16_t, 0x144> byte;       // of a code point; -1 = not in the alphabet
};

const ByteLevelAlphabet& byte_level_alphabet() noexcept;

/// Appends the bytes that a byte-level token stands for. False, with `bytes` as it was, when the
/// token has a character outside the alphabet (an added token stored literally).
bool append_byte_level_decoded(std::string_view token, std::string& bytes);

/// The stand-in text of raw bytes.
std::string byte_level_encoded(std::string_view bytes);

}  // namespace specdec
