#include "sampling/grammar/json_schema/number_language.h"

#include <array>
#include <numeric>
#include <string>
#include <vector>

#include "specdec/error.h"

namespace specdec::grammar {
namespace {

/// Of a divisor: so many states a number may be in.
constexpr std::uint32_t kMostResidues = 50'000;

}  // namespace

NumberLanguage::NumberLanguage(RegexPool& pool, Exponents exponents) : pool_(pool) {
  point_ = pool.byte('.');
  integer_part_ = pool.any_of(pool.byte('0'), pool.concat(digit('1', '9'), digits(0)));
  fraction_ = pool.optional(pool.concat(point_, digits(1)));
  zeros_ = pool.optional(pool.concat(point_, pool.repeat(pool.byte('0'), 1, std::nullopt)));
  plain_ = pool.concat(integer_part_, fraction_);

  ByteSet e;
  e.insert('e');
  e.insert('E');
  const RegexRef exponent = pool.byte_class(e);
  ByteSet signs;
  signs.insert('+');
  signs.insert('-');
  any_ = pool.concat(std::array{pool.optional(pool.byte('-')), plain_,
                                pool.optional(pool.concat(std::array{
                                    exponent, pool.optional(pool.byte_class(signs)), digits(1)}))});

  large_ = small_ = pool.never();
  // Up to 307, so that the number fits a double.
  const RegexRef three_digits =
      pool.any_of(pool.concat(digit('1', '2'), pool.repeat(digit(), 2, 2)),
                  pool.concat(pool.literal("30"), digit('0', '7')));
  if (exponents.large) {
    const std::array from_16 = {pool.concat(pool.byte('1'), digit('6', '9')),
                                pool.concat(digit('2', '9'), digit()), three_digits};
    large_ = pool.concat(std::array{digit('1', '9'),
                                    pool.optional(pool.concat(point_, pool.repeat(digit(), 1, 16))),
                                    exponent, pool.optional(pool.byte('+')), pool.any_of(from_16)});
  }
  if (exponents.small) {
    const std::array from_5 = {pool.concat(pool.optional(pool.byte('0')), digit('5', '9')),
                               pool.concat(digit('1', '9'), digit()), three_digits};
    small_ = pool.concat(
        std::array{digit('1', '9'), fraction_, exponent, pool.byte('-'), pool.any_of(from_5)});
  }
  unsigned_ = pool.any_of(std::array{plain_, large_, small_});
  universe_ = join({unsigned_, unsigned_});
}

RegexRef NumberLanguage::digit(char first, char last) {
  return pool_.byte_class(
      ByteSet::range(static_cast<unsigned char>(first), static_cast<unsigned char>(last)));
}

RegexRef NumberLanguage::digits(std::uint32_t min) {
  return pool_.repeat(digit(), min, std::nullopt);
}

RegexRef NumberLanguage::join(const BySign& numbers) {
  return pool_.any_of(numbers.positive, pool_.concat(pool_.byte('-'), numbers.negative));
}

RegexRef NumberLanguage::integer(bool fraction) {
  RegexRef text = fraction ? pool_.concat(integer_part_, zeros_) : integer_part_;
  // At most 16 digits after the point and an exponent of 16 or more.
  if (fraction) text = pool_.any_of(text, large_);
  return join({text, text});
}

RegexRef NumberLanguage::unsigned_equal(const Decimal& value) {
  const std::string fraction = value.fraction_digits();
  if (fraction.empty()) return pool_.concat(pool_.literal(value.integer_digits()), zeros_);
  return pool_.concat(pool_.literal(value.integer_digits() + "." + fraction),
                      pool_.star(pool_.byte('0')));
}

RegexRef NumberLanguage::equal(const Decimal& value) {
  const RegexRef text = unsigned_equal(value);
  if (value.is_zero()) return join({text, text});
  return value.negative ? join({pool_.never(), text}) : text;
}

/// Plain texts that are smaller than a positive bound: shorter before the point; or as long, and
/// smaller at the first digit that differs; or the same before the point and smaller after it.
RegexRef NumberLanguage::unsigned_below(const Decimal& bound, bool or_equal) {
  const std::string whole = bound.integer_digits();
  const std::string fraction = bound.fraction_digits();
  const auto size = static_cast<std::uint32_t>(whole.size());
  std::vector<RegexRef> options;
  if (or_equal) options.push_back(unsigned_equal(bound));
  if (size > 1) {
    const RegexRef shorter = pool_.concat(digit('1', '9'), pool_.repeat(digit(), 0, size - 2));
    options.push_back(pool_.concat(pool_.any_of(pool_.byte('0'), shorter), fraction_));
  }
  for (std::uint32_t at = 0; at < size; ++at) {
    const char first = at == 0 && size > 1 ? '1' : '0';
    if (whole[at] <= first) continue;
    options.push_back(
        pool_.concat(std::array{pool_.literal(std::string_view(whole).substr(0, at)),
                                digit(first, static_cast<char>(whole[at] - 1)),
                                pool_.repeat(digit(), size - at - 1, size - at - 1), fraction_}));
  }
  if (!fraction.empty()) options.push_back(pool_.literal(whole));
  for (std::size_t at = 0; at < fraction.size(); ++at) {
    const RegexRef same = pool_.literal(whole + "." + fraction.substr(0, at));
    if (at > 0) options.push_back(same);
    if (fraction[at] == '0') continue;
    options.push_back(
        pool_.concat(std::array{same, digit('0', static_cast<char>(fraction[at] - 1)), digits(0)}));
  }
  return pool_.any_of(options);
}

NumberLanguage::BySign NumberLanguage::below(const Decimal& bound, bool or_equal) {
  const RegexRef zero = unsigned_equal(Decimal{});
  if (bound.is_zero()) {
    if (or_equal) return {zero, unsigned_};
    return {pool_.never(), pool_.all_of(unsigned_, pool_.complement(zero))};
  }
  if (!bound.negative) {
    return {pool_.any_of(unsigned_below(bound, or_equal), small_), unsigned_};
  }
  const RegexRef nearer = unsigned_below(bound.negated(), !or_equal);
  return {pool_.never(), pool_.any_of(pool_.all_of(plain_, pool_.complement(nearer)), large_)};
}

RegexRef NumberLanguage::greater(const Decimal& bound, bool or_equal) {
  const BySign mirrored = below(bound.negated(), or_equal);
  return join({mirrored.negative, mirrored.positive});
}

RegexRef NumberLanguage::multiple_of(const Decimal& divisor) {
  const bool whole = divisor.is_integer();
  const auto places = whole ? std::uint32_t{0} : static_cast<std::uint32_t>(-divisor.exponent);
  Decimal scaled = divisor;  // times 10^places
  if (!whole) scaled.exponent = 0;
  const auto modulus = scaled.to_count();
  if (!modulus.has_value() || *modulus > kMostResidues || places > 64) {
    throw Error(ErrorCode::unsupported, "multipleOf " + divisor.text() + " has too many digits");
  }
  // With `i` places after the point, the digits are a multiple of what is left of the divisor.
  std::vector<RegexRef> options;
  for (std::uint32_t i = 0; i <= places; ++i) {
    std::uint64_t left = *modulus;
    for (std::uint32_t factor = i; factor < places; ++factor) left /= std::gcd(left, 10u);
    RegexRef text = integer_part_;
    if (i > 0) {
      text = pool_.concat(std::array{integer_part_, point_, pool_.repeat(digit(), i, i)});
    }
    if (left > 1) {
      text = pool_.all_of(text, pool_.modulo(static_cast<std::uint32_t>(left), 0));
    }
    if (i == places) {
      text = pool_.concat(text, i > 0 ? pool_.star(pool_.byte('0')) : zeros_);
    }
    options.push_back(text);
  }
  if (whole && *modulus == 1) options.push_back(large_);
  const RegexRef text = pool_.any_of(options);
  return join({text, text});
}

RegexRef NumberLanguage::complement(RegexRef numbers) {
  if (numbers == any_) return pool_.never();
  return pool_.all_of(universe_, pool_.complement(numbers));
}

}  // namespace specdec::grammar
