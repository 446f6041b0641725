#pragma once

#include <compare>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace specdec::grammar {

/// A JSON number, exactly: sign * digits * 10^exponent. Zero has no digits; other numbers neither
/// begin nor end with the digit 0, so equal numbers have equal members.
struct Decimal {
  bool negative = false;
  std::string digits;
  std::int64_t exponent = 0;

  static Decimal of(std::int64_t value);
  /// A number in JSON's syntax; no value where the exponent is past +-100,000.
  static std::optional<Decimal> parse(std::string_view text);

  bool is_zero() const noexcept { return digits.empty(); }
  bool is_integer() const noexcept { return exponent >= 0; }
  /// The power of ten of its first digit: 0 for 1 to 9.99.., -1 for 0.1 to 0.99...
  std::int64_t magnitude() const noexcept {
    return exponent + static_cast<std::int64_t>(digits.size()) - 1;
  }
  /// The value, if it is an integer from 0 to 2^32 - 2.
  std::optional<std::uint32_t> to_count() const;
  /// Without its sign, written without an exponent, as digits before and after the point.
  std::string integer_digits() const;   ///< "0" below one
  std::string fraction_digits() const;  ///< "" for integers; never ends with 0
  std::string text() const;

  Decimal negated() const;
  bool operator==(const Decimal&) const = default;
  std::strong_ordering operator<=>(const Decimal& other) const;
};

}  // namespace specdec::grammar
