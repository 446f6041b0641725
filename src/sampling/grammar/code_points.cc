#include "sampling/grammar/code_points.h"

#include <algorithm>
#include <array>
#include <iterator>

#include "sampling/grammar/unicode_categories.h"

namespace specdec::grammar {
namespace {

// Short names are those of the enumeration, in its order.
constexpr std::string_view kShortNames[] = {
    "Cc", "Cf", "Co", "Cs", "Ll", "Lm", "Lo", "Lt", "Lu", "Mc", "Me", "Mn", "Nd", "Nl", "No",
    "Pc", "Pd", "Pe", "Pf", "Pi", "Po", "Ps", "Sc", "Sk", "Sm", "So", "Zl", "Zp", "Zs"};

struct LongName {
  std::string_view name;
  std::string_view short_name;
};
// PropertyValueAliases.txt of the Unicode Character Database.
constexpr LongName kLongNames[] = {
    {"Other", "C"},
    {"Control", "Cc"},
    {"cntrl", "Cc"},
    {"Format", "Cf"},
    {"Unassigned", "Cn"},
    {"Private_Use", "Co"},
    {"Surrogate", "Cs"},
    {"Letter", "L"},
    {"Lowercase_Letter", "Ll"},
    {"Modifier_Letter", "Lm"},
    {"Other_Letter", "Lo"},
    {"Titlecase_Letter", "Lt"},
    {"Uppercase_Letter", "Lu"},
    {"Mark", "M"},
    {"Combining_Mark", "M"},
    {"Spacing_Mark", "Mc"},
    {"Enclosing_Mark", "Me"},
    {"Nonspacing_Mark", "Mn"},
    {"Number", "N"},
    {"Decimal_Number", "Nd"},
    {"digit", "Nd"},
    {"Letter_Number", "Nl"},
    {"Other_Number", "No"},
    {"Punctuation", "P"},
    {"punct", "P"},
    {"Connector_Punctuation", "Pc"},
    {"Dash_Punctuation", "Pd"},
    {"Close_Punctuation", "Pe"},
    {"Final_Punctuation", "Pf"},
    {"Initial_Punctuation", "Pi"},
    {"Other_Punctuation", "Po"},
    {"Open_Punctuation", "Ps"},
    {"Symbol", "S"},
    {"Currency_Symbol", "Sc"},
    {"Modifier_Symbol", "Sk"},
    {"Math_Symbol", "Sm"},
    {"Other_Symbol", "So"},
    {"Separator", "Z"},
    {"Line_Separator", "Zl"},
    {"Paragraph_Separator", "Zp"},
    {"Space_Separator", "Zs"},
};

// UTF-8 of one range whose bounds have the same length, split where a continuation byte would not
// run over its whole range (R. Cox, "Regular expression matching in the wild"; Thompson's paths).
void push_utf8_range(RegexPool& pool, char32_t first, char32_t last, int length,
                     std::vector<RegexRef>& options) {
  constexpr unsigned kLead[] = {0, 0, 0xC0, 0xE0, 0xF0};
  struct Piece {
    char32_t first, last;
    int tail;  // continuation bytes
    std::vector<RegexRef> prefix;
  };
  std::vector<Piece> open{{first, last, length - 1, {}}};
  while (!open.empty()) {
    Piece piece = std::move(open.back());
    open.pop_back();
    const int shift = 6 * piece.tail;
    const char32_t unit = char32_t{1} << shift;
    const auto lead = [&](char32_t bits) {
      const unsigned mark = piece.tail == length - 1 ? (length == 1 ? 0u : kLead[length]) : 0x80u;
      return mark | static_cast<unsigned>(bits >> shift);
    };
    const auto is_whole = [&](char32_t lo, char32_t hi) {
      return lo % unit == 0 && hi % unit == unit - 1;
    };
    // The lead byte runs over [a, b] with all continuations free, or is one byte.
    const auto within = [&](char32_t lo, char32_t hi, bool free) {
      std::vector<RegexRef> prefix = piece.prefix;
      prefix.push_back(pool.byte_class(ByteSet::range(lead(lo), lead(hi))));
      if (free) {
        for (int i = 0; i < piece.tail; ++i)
          prefix.push_back(pool.byte_class(ByteSet::range(0x80, 0xBF)));
        options.push_back(pool.concat(prefix));
      } else {
        open.push_back({lo % unit, hi % unit, piece.tail - 1, std::move(prefix)});
      }
    };
    char32_t lo = piece.first, hi = piece.last;
    if (is_whole(lo, hi)) {
      within(lo, hi, true);
    } else if (lo / unit == hi / unit) {
      within(lo, hi, false);
    } else {
      if (lo % unit != 0) {
        const char32_t end = lo | (unit - 1);
        within(lo, end, false);
        lo = end + 1;
      }
      if (hi % unit != unit - 1) {
        const char32_t begin = hi & ~(unit - 1);
        within(begin, hi, false);
        hi = begin - 1;  // may fall below lo
      }
      if (lo < hi) within(lo, hi, true);
    }
  }
}

}  // namespace

CodePointSet CodePointSet::all() {
  CodePointSet set(0, 0xD7FF);
  set.ranges_.push_back({0xE000, kMaxCodePoint});
  return set;
}

// The ranges up to `sorted` are a set, those from there on as well.
void CodePointSet::normalise(std::size_t sorted) {
  std::inplace_merge(
      ranges_.begin(), ranges_.begin() + static_cast<std::ptrdiff_t>(sorted), ranges_.end(),
      [](const CodePointRange& a, const CodePointRange& b) { return a.first < b.first; });
  join();
}

CodePointSet::CodePointSet(std::vector<CodePointRange> ranges) : ranges_(std::move(ranges)) {
  std::sort(ranges_.begin(), ranges_.end());
  join();
}

// Ranges that overlap or touch become one; they are sorted.
void CodePointSet::join() {
  std::size_t kept = 0;
  for (const CodePointRange& range : ranges_) {
    if (kept > 0 && range.first <= ranges_[kept - 1].last + 1)
      ranges_[kept - 1].last = std::max(ranges_[kept - 1].last, range.last);
    else
      ranges_[kept++] = range;
  }
  ranges_.resize(kept);
}

void CodePointSet::add(char32_t first, char32_t last) {
  if (first > last) return;
  const std::size_t sorted = ranges_.size();
  if (sorted == 0 || ranges_.back().last + 1 < first) {
    ranges_.push_back({first, last});
  } else if (ranges_.back().first <= first) {
    ranges_.back().last = std::max(ranges_.back().last, last);
  } else {
    ranges_.push_back({first, last});
    normalise(sorted);
  }
}

void CodePointSet::add(const CodePointSet& other) {
  if (other.ranges_.size() == 1) return add(other.ranges_[0].first, other.ranges_[0].last);
  const std::size_t sorted = ranges_.size();
  ranges_.insert(ranges_.end(), other.ranges_.begin(), other.ranges_.end());
  normalise(sorted);
}

CodePointSet CodePointSet::inverted() const {
  CodePointSet rest;
  char32_t next = 0;
  for (const CodePointRange& range : ranges_) {
    if (range.first > next) rest.ranges_.push_back({next, range.first - 1});
    next = range.last + 1;
  }
  if (next <= kMaxCodePoint) rest.ranges_.push_back({next, kMaxCodePoint});
  return rest.intersected(all());
}

CodePointSet CodePointSet::intersected(const CodePointSet& other) const {
  CodePointSet both;
  std::size_t i = 0, j = 0;
  while (i < ranges_.size() && j < other.ranges_.size()) {
    const CodePointRange& a = ranges_[i];
    const CodePointRange& b = other.ranges_[j];
    const char32_t first = std::max(a.first, b.first), last = std::min(a.last, b.last);
    if (first <= last) both.ranges_.push_back({first, last});
    (a.last < b.last ? i : j)++;
  }
  return both;
}

CodePointSet CodePointSet::ascii_case_closed() const {
  CodePointSet closed = *this;
  constexpr char32_t kDistance = U'a' - U'A';
  for (const CodePointRange& r : intersected({U'A', U'Z'}).ranges_)
    closed.add(r.first + kDistance, r.last + kDistance);
  for (const CodePointRange& r : intersected({U'a', U'z'}).ranges_)
    closed.add(r.first - kDistance, r.last - kDistance);
  return closed;
}

bool CodePointSet::contains(char32_t code_point) const noexcept {
  const auto after = std::upper_bound(
      ranges_.begin(), ranges_.end(), code_point,
      [](char32_t value, const CodePointRange& range) { return value < range.first; });
  return after != ranges_.begin() && code_point <= std::prev(after)->last;
}

std::optional<CodePointSet> unicode_category(std::string_view name) {
  for (const std::string_view prefix : {"gc=", "General_Category="})
    if (name.starts_with(prefix)) name.remove_prefix(prefix.size());
  if (name == "Any") return CodePointSet::all();
  if (name == "ASCII") return CodePointSet(0, 0x7F);
  for (const LongName& entry : kLongNames)
    if (entry.name == name) name = entry.short_name;
  if (name.empty() || name.size() > 2) return std::nullopt;
  if (name == "LC") {
    CodePointSet cased = *unicode_category("Lu");
    cased.add(*unicode_category("Ll"));
    cased.add(*unicode_category("Lt"));
    return cased;
  }
  const bool unassigned = name == "Cn" || name == "C";
  CodePointSet members, assigned;
  for (const CategoryRange& range : unicode_categories()) {
    const std::string_view category = kShortNames[static_cast<std::size_t>(range.category)];
    if (unassigned) assigned.add(range.first, range.last);
    if (category.starts_with(name)) members.add(range.first, range.last);
  }
  if (members.empty() && !unassigned) return std::nullopt;
  if (unassigned) members.add(assigned.inverted());
  return members;
}

RegexRef utf8_regex(RegexPool& pool, const CodePointSet& set) {
  constexpr CodePointRange kLengths[] = {
      {0, 0x7F}, {0x80, 0x7FF}, {0x800, 0xFFFF}, {0x10000, kMaxCodePoint}};
  ByteSet ascii;
  std::vector<RegexRef> options;
  const CodePointSet characters = set.intersected(CodePointSet::all());
  pool.charge(kRangeSteps * characters.ranges().size());
  for (const CodePointRange& range : characters.ranges()) {
    for (int length = 1; length <= 4; ++length) {
      const CodePointRange& span = kLengths[length - 1];
      const char32_t first = std::max(range.first, span.first);
      const char32_t last = std::min(range.last, span.last);
      if (first > last) continue;
      if (length == 1)
        ascii = ascii | ByteSet::range(first, last);
      else
        push_utf8_range(pool, first, last, length, options);
    }
  }
  options.push_back(pool.byte_class(ascii));
  return pool.any_of(options);
}

}  // namespace specdec::grammar
