#pragma once

#include <cstdint>
#include <span>

namespace specdec {

/// UnicodeData.txt, field 5, without compatibility mappings and Hangul.
struct CanonicalDecomposition {
  char32_t code_point;
  char32_t first;
  char32_t second;  // 0: a singleton
  bool composes;    // NFC puts the pair together again (not a composition exclusion)
};

/// Canonical_Combining_Class of a range of code points; 0 for all others.
struct CombiningClass {
  char32_t first;
  char32_t last;
  std::uint8_t value;
};

std::span<const CanonicalDecomposition> canonical_decompositions() noexcept;  // by code_point
std::span<const CombiningClass> combining_classes() noexcept;                 // by first

}  // namespace specdec
