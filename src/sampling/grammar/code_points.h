#pragma once

#include <compare>
#include <optional>
#include <string_view>
#include <vector>

#include "sampling/grammar/regex_pool.h"

namespace specdec::grammar {

inline constexpr char32_t kMaxCodePoint = 0x10FFFF;

struct CodePointRange {
  char32_t first = 0;
  char32_t last = 0;
  auto operator<=>(const CodePointRange&) const = default;
};

/// A set of code points as ascending ranges that neither overlap nor touch. Surrogates may be
/// members; UTF-8 has no bytes for them.
class CodePointSet {
 public:
  CodePointSet() = default;
  CodePointSet(char32_t first, char32_t last) : ranges_{{first, last}} {}
  /// In any order; they may overlap.
  explicit CodePointSet(std::vector<CodePointRange> ranges);
  /// Every code point but surrogates.
  static CodePointSet all();

  void add(char32_t first, char32_t last);
  void add(const CodePointSet& other);
  CodePointSet inverted() const;  ///< all() less this
  CodePointSet intersected(const CodePointSet& other) const;
  /// With both cases of its ASCII letters.
  CodePointSet ascii_case_closed() const;
  bool contains(char32_t code_point) const noexcept;
  bool empty() const noexcept { return ranges_.empty(); }
  const std::vector<CodePointRange>& ranges() const noexcept { return ranges_; }

 private:
  void normalise(std::size_t sorted);
  void join();
  std::vector<CodePointRange> ranges_;
};

/// The members of a Unicode general category by its short or long name ("L", "Lu", "Letter",
/// "Decimal_Number", "gc=Nd", "Any", "ASCII"); no value for other names.
std::optional<CodePointSet> unicode_category(std::string_view name);

/// What a range costs of a pool's budget where an expression is made of it: about the steps that
/// take as long.
inline constexpr std::uint64_t kRangeSteps = 4;

/// Matches one character of the set, as UTF-8.
RegexRef utf8_regex(RegexPool& pool, const CodePointSet& set);

}  // namespace specdec::grammar
