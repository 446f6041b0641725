#include "engine/text/byte_level.h"

namespace specdec {
namespace {

constexpr bool stands_for_itself(int byte) {
  return (byte >= 0x21 && byte <= 0x7E) || (byte >= 0xA1 && byte <= 0xAC) || byte >= 0xAE;
}

constexpr ByteLevelAlphabet make_alphabet() {
  ByteLevelAlphabet alphabet{};
  for (auto& byte : alphabet.byte) byte = -1;
  int next = 0x100;
  for (int byte = 0; byte < 256; ++byte) {
    const int code_point = stands_for_itself(byte) ? byte : next++;
    alphabet.code_point[static_cast<std::size_t>(byte)] = static_cast<std::uint16_t>(code_point);
    alphabet.byte[static_cast<std::size_t>(code_point)] = static_cast<std::int16_t>(byte);
  }
  return alphabet;
}

constexpr ByteLevelAlphabet kAlphabet = make_alphabet();

}  // namespace

const ByteLevelAlphabet& byte_level_alphabet() noexcept { return kAlphabet; }

bool append_byte_level_decoded(std::string_view token, std::string& bytes) {
  const std::size_t before = bytes.size();
  for (std::size_t i = 0; i < token.size(); ++i) {
    unsigned code_point = static_cast<unsigned char>(token[i]);
    if (code_point >= 0x80) {
      // Every stand-in above ASCII is below U+0144: two UTF-8 bytes.
      const unsigned next = i + 1 < token.size() ? static_cast<unsigned char>(token[i + 1]) : 0;
      if ((code_point & 0xE0) != 0xC0 || (next & 0xC0) != 0x80)
        code_point = 0xFFFF;
      else
        code_point = (code_point & 0x1F) << 6 | (next & 0x3F);
      ++i;
    }
    if (code_point >= kAlphabet.byte.size() || kAlphabet.byte[code_point] < 0) {
      bytes.resize(before);
      return false;
    }
    bytes.push_back(static_cast<char>(kAlphabet.byte[code_point]));
  }
  return true;
}

std::string byte_level_encoded(std::string_view bytes) {
  std::string text;
  for (const char c : bytes) {
    const unsigned code_point = kAlphabet.code_point[static_cast<unsigned char>(c)];
    if (code_point < 0x80) {
      text.push_back(static_cast<char>(code_point));
    } else {
      text.push_back(static_cast<char>(0xC0 | code_point >> 6));
      text.push_back(static_cast<char>(0x80 | (code_point & 0x3F)));
    }
  }
  return text;
}

}  // namespace specdec
