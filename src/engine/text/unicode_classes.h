#pragma once

#include <cstdint>

namespace specdec {

/// What pre-tokenizers tell apart. `digit_only` is a digit to the Digits pre-tokenizer alone: a
/// code point newer than the tables of the regular expressions.
enum class CharClass : std::uint8_t { other, letter, number, digit_only, space };

/// The class of a code point from U+0080 on, as Python's `tokenizers` has it. Pinned in a table, so
/// that ids do not depend on the Unicode version of the machine's libraries.
CharClass char_class(char32_t code_point) noexcept;

}  // namespace specdec
