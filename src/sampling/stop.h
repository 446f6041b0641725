#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace specdec {

/// Finds stop strings in streamed text, across any chunk borders. Text that may be the beginning of
/// a stop string is held back; a stop string itself is never let out. Linear time (one Aho-Corasick
/// automaton over all strings).
class StopMatcher {
 public:
  /// Empty strings are ignored.
  explicit StopMatcher(const std::vector<std::string>& stop_strings = {});

  /// Takes the next bytes; appends what may be shown to `visible`. True when a stop string is
  /// complete: everything from its first byte on is dropped, and further text is ignored. The
  /// earliest-ending match wins, the longest of those.
  bool feed(std::string_view bytes, std::string& visible);
  /// The text is over without a match: lets out what was held back.
  void flush(std::string& visible);
  bool matched() const noexcept { return matched_; }

 private:
  struct State;
  std::vector<State> states_;
  std::string held_;
  int state_ = 0;
  bool matched_ = false;
};

}  // namespace specdec
