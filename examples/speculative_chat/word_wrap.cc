#include "examples/speculative_chat/word_wrap.h"

#include <wchar.h>

#include <algorithm>

#include "tools/cli/terminal.h"

namespace specdec::chat {

void WordWrap::reset(int column) {
  column_ = column;
  word_.clear();
  word_columns_ = 0;
}

std::string WordWrap::feed(std::string_view text, int width) {
  // The last column stays empty: in it, terminals differ in where the cursor is.
  const int limit = std::max(width, 20) - 1;
  std::string out;
  while (!text.empty()) {
    if (const std::size_t end = text.find('m'); text.starts_with("\x1b[") && end != text.npos) {
      out += text.substr(0, end + 1);  // a colour: no width, and it moves with its word
      word_ += text.substr(0, end + 1);
      text.remove_prefix(end + 1);
      continue;
    }
    const std::size_t length = cli::character_size(text);
    const std::string_view character = text.substr(0, length);
    text.remove_prefix(length);
    if (character == "\n") {
      out += '\n';
      reset();
    } else if (character == "\t") {
      put("\t", 8 - column_ % 8, limit, out);
    } else {
      // POSIX; by the locale's character set. Unknown characters count as one column.
      const int columns = wcwidth(static_cast<wchar_t>(cli::code_point(character)));
      put(character, std::max(columns, columns < 0 ? 1 : 0), limit, out);
    }
  }
  return out;
}

void WordWrap::put(std::string_view character, int columns, int limit, std::string& out) {
  const bool space = character == " " || character == "\t";
  if (column_ + columns > limit) {
    const bool can_move = !space && word_columns_ > 0 && word_columns_ < column_;
    if (can_move) out += "\x1b[" + std::to_string(word_columns_) + "D\x1b[K";
    out += '\n';
    column_ = 0;
    if (space) {
      reset();
      return;  // the line break stands for it
    }
    if (can_move) {
      out += word_;
      column_ = word_columns_;
    } else {
      word_.clear();
      word_columns_ = 0;
    }
  }
  out += character;
  column_ += columns;
  if (space) {
    word_.clear();
    word_columns_ = 0;
  } else {
    word_ += character;
    word_columns_ += columns;
  }
}

}  // namespace specdec::chat
