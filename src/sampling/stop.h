#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
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
  /// A node of the automaton: the text on the path to it is a prefix of some stop string.
  struct State {
    std::vector<std::pair<std::uint8_t, std::int32_t>> edges;  ///< by byte, ascending
    std::int32_t fail = 0;         ///< state of the longest proper suffix that is a prefix too
    std::size_t depth = 0;         ///< bytes on the path to it
    std::size_t match_length = 0;  ///< of the longest stop string that ends here; 0 = none
  };
  std::int32_t edge(std::int32_t state, std::uint8_t byte) const noexcept;
  std::int32_t advance(std::int32_t state, std::uint8_t byte) const noexcept;

  std::vector<State> states_;
  std::string held_;
  std::int32_t state_ = 0;
  bool matched_ = false;
};

}  // namespace specdec
