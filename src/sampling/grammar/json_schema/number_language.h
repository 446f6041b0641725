#pragma once

#include <cstdint>

#include "sampling/grammar/json_schema/decimal.h"
#include "sampling/grammar/regex_pool.h"

namespace specdec::grammar {

/// Sets of numbers as expressions over their JSON texts, exactly: no floating point.
///
/// A text without exponent can be compared digit by digit. Of those with one, only two kinds are
/// known, which is how serialisers write what is very large or very small: a normalised mantissa
/// with an exponent from 16 to 307 (at most 17 digits) or from -5 to -307. Where every number of
/// the schema lies between them, each is above, below or between all bounds whatever its digits
/// are.
class NumberLanguage {
 public:
  struct Exponents {
    bool large = true;  ///< no number of the schema is 10^16 or more; no multipleOf but 1
    bool small = true;  ///< none, but 0, is nearer to zero than 10^-4
  };
  NumberLanguage(RegexPool& pool, Exponents exponents);

  /// Every JSON number, exponents of any form included.
  RegexRef any() const noexcept { return any_; }
  /// Integers; with `fraction`, 1.0 is one (since draft 6).
  RegexRef integer(bool fraction);
  RegexRef equal(const Decimal& value);
  RegexRef less(const Decimal& bound, bool or_equal) { return join(below(bound, or_equal)); }
  RegexRef greater(const Decimal& bound, bool or_equal);
  /// `divisor` is positive. Throws Error(unsupported) where it has too many digits.
  RegexRef multiple_of(const Decimal& divisor);
  RegexRef complement(RegexRef numbers);

 private:
  /// Texts without their sign: of numbers without one, and with one.
  struct BySign {
    RegexRef positive;
    RegexRef negative;
  };
  RegexRef join(const BySign& numbers);
  BySign below(const Decimal& bound, bool or_equal);
  RegexRef unsigned_below(const Decimal& bound, bool or_equal);
  RegexRef unsigned_equal(const Decimal& value);
  RegexRef digit(char first = '0', char last = '9');
  RegexRef digits(std::uint32_t min);

  RegexPool& pool_;
  RegexRef point_;
  RegexRef integer_part_;  // 0, or no leading 0
  RegexRef fraction_;      // a point and digits, or nothing
  RegexRef zeros_;         // a point and zeros, or nothing
  RegexRef plain_;         // without sign and exponent
  RegexRef large_;         // never() if unused
  RegexRef small_;
  RegexRef unsigned_;  // all that is compared
  RegexRef universe_;
  RegexRef any_;
};

}  // namespace specdec::grammar
