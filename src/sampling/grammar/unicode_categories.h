#pragma once

#include <cstdint>
#include <span>

namespace specdec::grammar {

// clang-format off
enum class GeneralCategory : std::uint8_t {
  kCc, kCf, kCo, kCs, kLl, kLm, kLo, kLt, kLu, kMc, kMe, kMn, kNd, kNl, kNo,
  kPc, kPd, kPe, kPf, kPi, kPo, kPs, kSc, kSk, kSm, kSo, kZl, kZp, kZs,
};
// clang-format on

struct CategoryRange {
  char32_t first;
  char32_t last;
  GeneralCategory category;
};

/// Every assigned code point, ascending.
std::span<const CategoryRange> unicode_categories() noexcept;

}  // namespace specdec::grammar
