#pragma once

#include <string>
#include <string_view>

namespace specdec {

/// Streaming detokeniser: takes bytes as tokens deliver them, lets out whole UTF-8 characters only.
/// Bytes that can no longer become a character come out as U+FFFD, one per maximal invalid part, as
/// Python's errors="replace" has it. Holds at most three bytes.
class Utf8Stream {
 public:
  /// Appends to `out` every character that `bytes` completes.
  void feed(std::string_view bytes, std::string& out);
  /// The text is over: an unfinished character becomes U+FFFD.
  void flush(std::string& out);

 private:
  std::string pending_;
};

}  // namespace specdec
