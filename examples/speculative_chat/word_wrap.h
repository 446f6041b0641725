#pragma once

#include <string>
#include <string_view>

namespace specdec::chat {

/// Breaks streamed text between words at the terminal's width. A word is shown as it grows; when it
/// turns out too long for its line, it is erased there and written again on the next.
class WordWrap {
 public:
  /// What to write for the next piece of text, whole UTF-8 without control characters but newline,
  /// tab and whole sequences that set a colour. `width`: columns of the terminal now.
  std::string feed(std::string_view text, int width);
  /// The cursor stands at the start of a line, `column` columns in.
  void reset(int column = 0);

 private:
  void put(std::string_view character, int columns, int limit, std::string& out);

  int column_ = 0;
  std::string word_;  // what has been written of the current word
  int word_columns_ = 0;
};

}  // namespace specdec::chat
