#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "sampling/grammar/code_points.h"
#include "sampling/grammar/regex_pool.h"

namespace specdec::grammar {

/// What stands between the quotes of a JSON string, as expressions over bytes.
///
/// Each character has its raw form, or the escape that JSON demands; control characters and those
/// from U+007F on may also be written \uXXXX (as Python's ensure_ascii does). Printable ASCII has
/// one form only. So a text decodes to one string, and sets of strings may be intersected and
/// complemented (within any()) as sets of texts.
class StringLanguage {
 public:
  explicit StringLanguage(RegexPool& pool);

  /// Every string.
  RegexRef any() const noexcept { return any_; }
  RegexRef literal(std::string_view utf8);
  RegexRef one_of(std::span<const std::string_view> strings);
  /// From `min` to `max` code points.
  RegexRef length(std::uint32_t min, std::optional<std::uint32_t> max);
  /// Strings that hold a match of the ECMA-262 pattern. Throws Error(invalid_argument).
  RegexRef pattern(std::string_view ecma, std::string_view name);
  RegexRef complement(RegexRef strings);
  /// One character of the set.
  RegexRef encode(const CodePointSet& set);

 private:
  RegexPool& pool_;
  std::map<std::vector<std::pair<char32_t, char32_t>>, RegexRef> encoded_;  // used to make char_
  RegexRef char_;
  RegexRef any_;
  std::map<std::string, RegexRef, std::less<>> patterns_;
};

}  // namespace specdec::grammar
