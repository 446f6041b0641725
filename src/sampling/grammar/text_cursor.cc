#include "sampling/grammar/text_cursor.h"

#include <algorithm>
#include <cstdint>

#include "sampling/grammar/utf8.h"
#include "specdec/error.h"

namespace specdec::grammar {

TextCursor::TextCursor(std::string_view text, std::string_view name) : text_(text), name_(name) {
  for (std::size_t i = 0; i < text.size();) {
    const std::size_t length = utf8_length(text.substr(i));
    if (length == 0) fail_at(i, "a byte that is not UTF-8");
    i += length;
  }
}

bool TextCursor::take(std::string_view prefix) noexcept {
  if (!starts_with(prefix)) return false;
  at_ += prefix.size();
  return true;
}

char32_t TextCursor::next() noexcept {
  const char32_t code_point = utf8_decode(rest());
  at_ += utf8_length(rest());
  return code_point;
}

std::optional<char32_t> TextCursor::take_hex(std::size_t digits) noexcept {
  char32_t value = 0;
  for (std::size_t i = 0; i < digits; ++i) {
    const char c = peek(i);
    const bool decimal = c >= '0' && c <= '9';
    const char lower = static_cast<char>(c | 0x20);
    if (!decimal && (lower < 'a' || lower > 'f')) return std::nullopt;
    value = value * 16 + static_cast<char32_t>(decimal ? c - '0' : lower - 'a' + 10);
  }
  at_ += digits;
  return value;
}

std::optional<std::uint32_t> TextCursor::take_number(std::uint32_t limit) {
  if (peek() < '0' || peek() > '9') return std::nullopt;
  const std::size_t begin = at_;
  std::uint64_t value = 0;
  for (; peek() >= '0' && peek() <= '9'; ++at_) {
    value = value * 10 + static_cast<std::uint64_t>(peek() - '0');
    if (value > limit) fail_at(begin, "a number above " + std::to_string(limit));
  }
  return static_cast<std::uint32_t>(value);
}

void TextCursor::fail_at(std::size_t offset, const std::string& what) const {
  const std::string_view before = text_.substr(0, offset);
  const auto line = 1 + std::count(before.begin(), before.end(), '\n');
  const std::size_t line_begin = before.rfind('\n') + 1;  // npos + 1 is 0
  std::size_t column = 1;
  for (std::size_t i = line_begin; i < before.size(); ++i)
    column += (static_cast<unsigned char>(before[i]) & 0xC0) != 0x80;
  throw Error(ErrorCode::invalid_argument, std::string(name_) + ":" + std::to_string(line) + ":" +
                                               std::to_string(column) + ": " + what);
}

void TextCursor::expected(const std::string& what) const {
  if (done()) fail("expected " + what + ", found the end");
  const std::string_view found = rest().substr(0, std::max<std::size_t>(1, utf8_length(rest())));
  const bool control = static_cast<unsigned char>(found[0]) < 0x20;
  fail("expected " + what + ", found " +
       (control ? std::string("a control character") : "'" + std::string(found) + "'"));
}

}  // namespace specdec::grammar
