#include "sampling/grammar/json_schema/decimal.h"

#include <algorithm>
#include <cstddef>

namespace specdec::grammar {
namespace {

constexpr std::int64_t kMostExponent = 100'000;

bool is_digit(char c) { return c >= '0' && c <= '9'; }

}  // namespace

Decimal Decimal::of(std::int64_t value) { return *parse(std::to_string(value)); }

std::optional<Decimal> Decimal::parse(std::string_view text) {
  Decimal number;
  std::size_t at = 0;
  if (at < text.size() && text[at] == '-') {
    number.negative = true;
    ++at;
  }
  for (bool fraction = false; at < text.size(); ++at) {
    if (text[at] == '.') {
      fraction = true;
    } else if (is_digit(text[at])) {
      number.digits.push_back(text[at]);
      if (fraction) --number.exponent;
    } else {
      break;
    }
  }
  if (at < text.size()) {  // e or E
    ++at;
    const bool down = at < text.size() && text[at] == '-';
    if (at < text.size() && !is_digit(text[at])) ++at;
    std::int64_t exponent = 0;
    for (; at < text.size(); ++at) {
      exponent = exponent * 10 + (text[at] - '0');
      if (exponent > kMostExponent) return std::nullopt;
    }
    number.exponent += down ? -exponent : exponent;
  }
  const std::size_t first = number.digits.find_first_not_of('0');
  if (first == std::string::npos) return Decimal{};
  number.digits.erase(0, first);
  while (number.digits.back() == '0') {
    number.digits.pop_back();
    ++number.exponent;
  }
  if (std::max(number.magnitude(), -number.exponent) > kMostExponent) return std::nullopt;
  return number;
}

std::optional<std::uint32_t> Decimal::to_count() const {
  if (is_zero()) return 0;
  if (negative || !is_integer() || magnitude() > 9) return std::nullopt;
  std::uint64_t value = 0;
  for (const char digit : integer_digits()) {
    value = value * 10 + static_cast<std::uint64_t>(digit - '0');
  }
  if (value >= 0xFFFFFFFF) return std::nullopt;
  return static_cast<std::uint32_t>(value);
}

std::string Decimal::integer_digits() const {
  if (is_zero() || magnitude() < 0) return "0";
  const auto size = static_cast<std::size_t>(magnitude() + 1);
  std::string result = digits.substr(0, size);
  result.resize(size, '0');
  return result;
}

std::string Decimal::fraction_digits() const {
  if (is_zero() || is_integer()) return "";
  const auto size = static_cast<std::size_t>(-exponent);
  if (digits.size() >= size) return digits.substr(digits.size() - size);
  return std::string(size - digits.size(), '0') + digits;
}

std::string Decimal::text() const {
  const std::string fraction = fraction_digits();
  return (negative ? "-" : "") + integer_digits() + (fraction.empty() ? "" : "." + fraction);
}

Decimal Decimal::negated() const {
  Decimal result = *this;
  if (!is_zero()) result.negative = !negative;
  return result;
}

std::strong_ordering Decimal::operator<=>(const Decimal& other) const {
  if (is_zero() || other.is_zero() || negative != other.negative) {
    const auto sign = [](const Decimal& number) {
      return number.is_zero() ? 0 : number.negative ? -1 : 1;
    };
    return sign(*this) <=> sign(other);
  }
  std::strong_ordering order = magnitude() <=> other.magnitude();
  // Digits without trailing zeros: a proper prefix is the smaller number, as strings order it.
  if (order == 0) order = digits.compare(other.digits) <=> 0;
  return negative ? 0 <=> order : order;
}

}  // namespace specdec::grammar
