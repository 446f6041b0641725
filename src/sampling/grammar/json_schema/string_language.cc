#include "sampling/grammar/json_schema/string_language.h"

#include <algorithm>

#include "sampling/grammar/regex_syntax.h"

namespace specdec::grammar {
namespace {

RegexRef hex_digits(RegexPool& pool, std::uint32_t first, std::uint32_t last) {
  ByteSet set;
  for (std::uint32_t digit = first; digit <= last; ++digit) {
    set.insert("0123456789abcdef"[digit]);
    set.insert("0123456789ABCDEF"[digit]);
  }
  return pool.byte_class(set);
}

/// The numbers from `first` to `last` as `digits` hexadecimal digits.
RegexRef hex_range(RegexPool& pool, std::uint32_t first, std::uint32_t last, int digits) {
  if (digits == 0) return pool.empty();
  const int shift = 4 * (digits - 1);
  const std::uint32_t rest = (1u << shift) - 1;
  std::uint32_t low = first >> shift;
  std::uint32_t high = last >> shift;
  if (low == high) {
    return pool.concat(hex_digits(pool, low, low),
                       hex_range(pool, first & rest, last & rest, digits - 1));
  }
  std::vector<RegexRef> options;
  if ((first & rest) != 0) {
    options.push_back(
        pool.concat(hex_digits(pool, low, low), hex_range(pool, first & rest, rest, digits - 1)));
    ++low;
  }
  if ((last & rest) != rest) {
    options.push_back(
        pool.concat(hex_digits(pool, high, high), hex_range(pool, 0, last & rest, digits - 1)));
    --high;
  }
  if (low <= high) {
    options.push_back(
        pool.concat(hex_digits(pool, low, high), hex_range(pool, 0, rest, digits - 1)));
  }
  return pool.any_of(options);
}

/// \uXXXX for code points of the basic plane.
RegexRef basic_escape(RegexPool& pool, std::uint32_t first, std::uint32_t last) {
  return pool.concat(pool.literal("\\u"), hex_range(pool, first, last, 4));
}

/// Surrogate pairs for code points from U+10000 on.
void append_pair_escapes(RegexPool& pool, std::uint32_t first, std::uint32_t last,
                         std::vector<RegexRef>& options) {
  const auto pair = [&](std::uint32_t high_first, std::uint32_t high_last, std::uint32_t low_first,
                        std::uint32_t low_last) {
    options.push_back(pool.concat(basic_escape(pool, 0xD800 + high_first, 0xD800 + high_last),
                                  basic_escape(pool, 0xDC00 + low_first, 0xDC00 + low_last)));
  };
  first -= 0x10000;
  last -= 0x10000;
  std::uint32_t high = first >> 10;
  std::uint32_t high_last = last >> 10;
  const std::uint32_t low = first & 0x3FF;
  const std::uint32_t low_last = last & 0x3FF;
  if (high == high_last) return pair(high, high, low, low_last);
  if (low != 0) pair(high, high, low, 0x3FF), ++high;
  if (low_last != 0x3FF) pair(high_last, high_last, 0, low_last), --high_last;
  if (high <= high_last) pair(high, high_last, 0, 0x3FF);
}

CodePointSet set_of(std::initializer_list<CodePointRange> ranges) {
  CodePointSet set;
  for (const CodePointRange& range : ranges) set.add(range.first, range.last);
  return set;
}

const CodePointSet& raw_characters() {
  static const CodePointSet set = set_of({{0x20, 0x21}, {0x23, 0x5B}, {0x5D, kMaxCodePoint}});
  return set;
}

const CodePointSet& escaped_characters() {
  static const CodePointSet set = set_of({{0, 0x1F}, {0x7F, 0xD7FF}, {0xE000, kMaxCodePoint}});
  return set;
}

/// Characters with a short escape, and its letter.
constexpr std::pair<char32_t, char> kShortEscapes[] = {
    {'"', '"'}, {'\\', '\\'}, {'\b', 'b'}, {'\f', 'f'}, {'\n', 'n'}, {'\r', 'r'}, {'\t', 't'}};

bool is_plain(char c) { return c >= 0x20 && c < 0x7F && c != '"' && c != '\\'; }

/// The code point at `at`, which is moved past it. The text is valid UTF-8.
char32_t next_code_point(std::string_view text, std::size_t& at) {
  const auto lead = static_cast<unsigned char>(text[at++]);
  if (lead < 0x80) return lead;
  const int more = lead >= 0xF0 ? 3 : lead >= 0xE0 ? 2 : 1;
  char32_t value = lead & (0x3Fu >> more);
  for (int i = 0; i < more && at < text.size(); ++i) {
    value = value << 6 | (static_cast<unsigned char>(text[at++]) & 0x3Fu);
  }
  return value;
}

}  // namespace

StringLanguage::StringLanguage(RegexPool& pool)
    : pool_(pool), char_(encode(CodePointSet::all())), any_(pool.star(char_)) {}

RegexRef StringLanguage::encode(const CodePointSet& set) {
  std::vector<std::pair<char32_t, char32_t>> key;
  for (const CodePointRange& range : set.ranges()) key.emplace_back(range.first, range.last);
  const auto [entry, is_new] = encoded_.try_emplace(std::move(key));
  if (!is_new) return entry->second;

  pool_.charge(kRangeSteps * set.ranges().size());
  std::vector<RegexRef> options = {utf8_regex(pool_, set.intersected(raw_characters()))};
  ByteSet letters;
  for (const auto& [code_point, letter] : kShortEscapes) {
    if (set.contains(code_point)) letters.insert(static_cast<unsigned char>(letter));
  }
  if (!letters.empty()) {
    options.push_back(pool_.concat(pool_.literal("\\"), pool_.byte_class(letters)));
  }
  const CodePointSet escaped = set.intersected(escaped_characters());
  for (const CodePointRange& range : escaped.ranges()) {
    if (range.first <= 0xFFFF) {
      options.push_back(
          basic_escape(pool_, range.first, std::min<std::uint32_t>(range.last, 0xFFFF)));
    }
    if (range.last > 0xFFFF) {
      append_pair_escapes(pool_, std::max<std::uint32_t>(range.first, 0x10000), range.last,
                          options);
    }
  }
  entry->second = pool_.any_of(options);
  return entry->second;
}

RegexRef StringLanguage::literal(std::string_view utf8) {
  if (std::all_of(utf8.begin(), utf8.end(), is_plain)) return pool_.literal(utf8);
  std::vector<RegexRef> parts;
  for (std::size_t at = 0; at < utf8.size();) {
    std::size_t end = at;
    while (end < utf8.size() && is_plain(utf8[end])) ++end;
    if (end > at) {
      parts.push_back(pool_.literal(utf8.substr(at, end - at)));
      at = end;
    } else {
      const char32_t code_point = next_code_point(utf8, at);
      parts.push_back(encode(CodePointSet(code_point, code_point)));
    }
  }
  return pool_.concat(parts);
}

RegexRef StringLanguage::one_of(std::span<const std::string_view> strings) {
  std::vector<std::string_view> plain;
  std::vector<RegexRef> options;
  for (const std::string_view string : strings) {
    if (std::all_of(string.begin(), string.end(), is_plain)) {
      plain.push_back(string);
    } else {
      options.push_back(literal(string));
    }
  }
  if (!plain.empty()) options.push_back(pool_.any_literal(plain));
  return pool_.any_of(options);
}

RegexRef StringLanguage::length(std::uint32_t min, std::optional<std::uint32_t> max) {
  return pool_.repeat(char_, min, max);
}

RegexRef StringLanguage::pattern(std::string_view ecma, std::string_view name) {
  const auto known = patterns_.find(ecma);
  if (known != patterns_.end()) return known->second;
  RegexSyntaxOptions options;
  options.anchored = false;
  options.encode = [this](RegexPool&, const CodePointSet& set) { return encode(set); };
  options.name = name;
  const RegexRef parsed = parse_regex(pool_, ecma, options);
  patterns_.emplace(ecma, parsed);
  return parsed;
}

RegexRef StringLanguage::complement(RegexRef strings) {
  if (strings == any_) return pool_.never();
  return pool_.all_of(any_, pool_.complement(strings));
}

}  // namespace specdec::grammar
