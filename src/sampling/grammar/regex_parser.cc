#include "sampling/grammar/regex_parser.h"

#include <map>
#include <string>
#include <utility>

#include "sampling/grammar/text_cursor.h"

namespace specdec::grammar {
namespace {

constexpr int kMaxGroupDepth = 200;
constexpr std::uint32_t kMaxRepeat = 0x3FFFFFFF;
constexpr std::size_t kMaxRanges = 1 << 18;  // of all character classes; \pL has 659

CodePointSet digits() { return {U'0', U'9'}; }

CodePointSet white_space() {  // ECMA-262: WhiteSpace and LineTerminator
  CodePointSet set(9, 13);
  for (const char32_t c : {0x20, 0xA0, 0x1680, 0x2028, 0x2029, 0x202F, 0x205F, 0x3000, 0xFEFF})
    set.add(c, c);
  set.add(0x2000, 0x200A);
  return set;
}

CodePointSet line_terminators() {
  CodePointSet set(U'\n', U'\n');
  set.add(U'\r', U'\r');
  set.add(0x2028, 0x2029);
  return set;
}

class Parser {
 public:
  Parser(std::string_view pattern, std::string_view name) : in_(pattern, name) {}

  RegexNode parse() {
    RegexNode node = choice(0);
    if (!in_.done()) in_.expected("an operator or the end");
    return node;
  }

 private:
  static void add(RegexNode& parent, RegexNode part) {
    parent.contextual = parent.contextual || part.contextual;
    parent.parts.push_back(std::move(part));
  }

  RegexNode choice(int depth) {
    if (depth > kMaxGroupDepth)
      in_.fail("groups nest more than " + std::to_string(kMaxGroupDepth) + " deep");
    RegexNode node{.kind = RegexNode::Kind::choice, .offset = in_.offset()};
    do {
      add(node, sequence(depth));
    } while (in_.take("|"));
    if (node.parts.size() > 1) return node;
    RegexNode only = std::move(node.parts[0]);
    return only;
  }

  RegexNode sequence(int depth) {
    RegexNode node{.kind = RegexNode::Kind::sequence, .offset = in_.offset()};
    while (!in_.done() && in_.peek() != '|' && in_.peek() != ')') add(node, quantified(depth));
    return node;
  }

  RegexNode quantified(int depth) {
    const std::size_t offset = in_.offset();
    RegexNode node = atom(depth);
    while (!in_.done()) {
      std::uint32_t min = 0;
      std::optional<std::uint32_t> max;
      if (in_.take("*")) {
      } else if (in_.take("+")) {
        min = 1;
      } else if (in_.take("?")) {
        max = 1;
      } else if (!bounds(min, max)) {
        break;
      }
      if (node.kind == RegexNode::Kind::repeat && node.offset == offset)
        in_.fail_at(in_.offset() - 1, "nothing to repeat: a quantifier follows a quantifier");
      in_.take("?");  // lazy: the same strings match
      if (in_.peek() == '+') in_.fail("possessive quantifiers are not supported");
      RegexNode repeated{.kind = RegexNode::Kind::repeat, .min = min, .max = max, .offset = offset};
      add(repeated, std::move(node));
      node = std::move(repeated);
    }
    return node;
  }

  // {m}, {m,} or {m,M}; anything else is a brace.
  bool bounds(std::uint32_t& min, std::optional<std::uint32_t>& max) {
    const std::size_t begin = in_.offset();
    if (!in_.take("{")) return false;
    const auto low = in_.take_number(kMaxRepeat);
    bool closed = false;
    if (low.has_value()) {
      min = *low;
      if (in_.take(","))
        max = in_.take_number(kMaxRepeat);
      else
        max = min;
      closed = in_.take("}");
    }
    if (!closed) {
      in_.seek(begin);
      max.reset();
      min = 0;
      return false;
    }
    if (max.has_value() && *max < min) in_.fail_at(begin, "the bounds of a repeat are reversed");
    return true;
  }

  RegexNode atom(int depth) {
    const std::size_t offset = in_.offset();
    switch (in_.peek()) {
      case '(':
        return group(depth);
      case '[':
        return character(bracket());
      case '.':
        in_.skip(1);
        return character(line_terminators().inverted());
      case '^':
        in_.skip(1);
        return {.kind = RegexNode::Kind::begin, .contextual = true, .offset = offset};
      case '$':
        in_.skip(1);
        return {.kind = RegexNode::Kind::end, .contextual = true, .offset = offset};
      case '*':
      case '+':
      case '?':
        in_.fail("nothing to repeat");
      case '\\':
        if (in_.starts_with("\\b") || in_.starts_with("\\B")) {
          const bool negative = in_.peek(1) == 'B';
          in_.skip(2);
          return {.kind = RegexNode::Kind::word_boundary,
                  .contextual = true,
                  .negative = negative,
                  .offset = offset};
        }
        return character(escape(false));
      default: {
        const char32_t c = in_.next();
        return character({c, c});
      }
    }
  }

  RegexNode character(CodePointSet set) {
    count(set);
    if (ignore_case_) {
      for (const char* name : {"Lu", "Ll", "Lt"})
        if (set.ranges().size() < 8 &&
            !set.intersected(*category(name)).intersected({0x80, kMaxCodePoint}).empty() &&
            set.ranges().front().first == set.ranges().back().last)
          in_.fail("(?i) is supported for ASCII letters alone");
      set = set.ascii_case_closed();
    }
    return {.kind = RegexNode::Kind::set, .set = std::move(set)};
  }

  RegexNode group(int depth) {
    const std::size_t offset = in_.offset();
    const bool outer_case = ignore_case_;
    in_.skip(1);
    bool look = false, negative = false;
    if (in_.take("?")) {
      if (in_.take(":")) {
      } else if (in_.take("=")) {
        look = true;
      } else if (in_.take("!")) {
        look = negative = true;
      } else if (in_.starts_with("<=") || in_.starts_with("<!")) {
        in_.fail_at(offset, "look-behind is not supported");
      } else if (in_.take("i)")) {  // to the end of the enclosing group
        ignore_case_ = true;
        return {.kind = RegexNode::Kind::sequence, .offset = offset};
      } else if (in_.take("i:")) {
        ignore_case_ = true;
      } else if (in_.take("P<") || in_.take("<")) {
        while (!in_.done() && in_.peek() != '>') in_.next();
        if (!in_.take(">")) in_.expected("'>' after the name of a group");
      } else {
        in_.fail_at(offset, "this kind of group is not supported");
      }
    }
    RegexNode node = choice(depth + 1);
    if (!in_.take(")")) in_.expected("')'");
    ignore_case_ = outer_case;
    node.offset = offset;
    if (look) {
      RegexNode ahead{.kind = RegexNode::Kind::look_ahead,
                      .contextual = true,
                      .negative = negative,
                      .offset = offset};
      ahead.parts.push_back(std::move(node));
      return ahead;
    }
    // A group of its own, so that (a*)* is no quantifier after a quantifier.
    RegexNode wrapped{.kind = RegexNode::Kind::sequence, .offset = offset};
    add(wrapped, std::move(node));
    return wrapped;
  }

  // After a backslash. In brackets \b is the backspace and \- a hyphen.
  CodePointSet escape(bool in_brackets) {
    const std::size_t offset = in_.offset();
    in_.skip(1);
    if (in_.done()) in_.expected("a character after '\\'");
    const auto one = [](char32_t c) { return CodePointSet(c, c); };
    const char c = in_.peek();
    switch (c) {
      case 'd':
        in_.skip(1);
        return digits();
      case 'D':
        in_.skip(1);
        return digits().inverted();
      case 'w':
        in_.skip(1);
        return word_characters();
      case 'W':
        in_.skip(1);
        return word_characters().inverted();
      case 's':
        in_.skip(1);
        return white_space();
      case 'S':
        in_.skip(1);
        return white_space().inverted();
      case 'p':
      case 'P':
        return property();
      case 't':
        in_.skip(1);
        return one(U'\t');
      case 'n':
        in_.skip(1);
        return one(U'\n');
      case 'v':
        in_.skip(1);
        return one(U'\v');
      case 'f':
        in_.skip(1);
        return one(U'\f');
      case 'r':
        in_.skip(1);
        return one(U'\r');
      case '0':
        if (in_.peek(1) >= '0' && in_.peek(1) <= '9') break;
        in_.skip(1);
        return one(0);
      case 'b':
        if (!in_brackets) break;
        in_.skip(1);
        return one(U'\b');
      case 'c': {
        const char letter = static_cast<char>(in_.peek(1) | 0x20);
        if (letter < 'a' || letter > 'z') break;
        in_.skip(2);
        return one(static_cast<char32_t>(letter & 31));
      }
      case 'x':
        in_.skip(1);
        if (const auto value = in_.take_hex(2)) return one(*value);
        in_.expected("two hexadecimal digits");
      case 'u':
        in_.skip(1);
        return one(unicode_escape());
      default:
        break;
    }
    const bool letter = (c | 0x20) >= 'a' && (c | 0x20) <= 'z';
    if (c >= '1' && c <= '9') in_.fail_at(offset, "back-references are not supported");
    if (letter || c == '0')
      in_.fail_at(offset, std::string("\\") + c + " is not an escape that is supported");
    return one(in_.next());
  }

  char32_t unicode_escape() {
    if (in_.take("{")) {
      char32_t value = 0;
      int count = 0;
      while (const auto hex = in_.take_hex(1)) {
        value = value * 16 + *hex;
        if (value > kMaxCodePoint || ++count > 8) in_.fail("a code point above 10FFFF");
      }
      if (count == 0 || !in_.take("}")) in_.expected("hexadecimal digits and '}'");
      return value;
    }
    const auto unit = in_.take_hex(4);
    if (!unit) in_.expected("four hexadecimal digits");
    if (*unit >= 0xD800 && *unit < 0xDC00 && in_.starts_with("\\u")) {
      const std::size_t back = in_.offset();
      in_.skip(2);
      const auto low = in_.take_hex(4);
      if (low && *low >= 0xDC00 && *low < 0xE000)
        return 0x10000 + ((*unit - 0xD800) << 10) + (*low - 0xDC00);
      in_.seek(back);
    }
    return *unit;
  }

  CodePointSet property() {
    const std::size_t offset = in_.offset() - 1;
    const bool negative = in_.peek() == 'P';
    in_.skip(1);
    std::string name;
    if (in_.take("{")) {
      while (!in_.done() && in_.peek() != '}') name.push_back(in_.peek()), in_.skip(1);
      if (!in_.take("}")) in_.expected("'}'");
    } else if (!in_.done()) {
      name.push_back(in_.peek());
      in_.skip(1);
    }
    const std::optional<CodePointSet>& set = category(name);
    if (!set) in_.fail_at(offset, "'" + name + "' is not a general category");
    return negative ? set->inverted() : *set;
  }

  CodePointSet bracket() {
    const std::size_t offset = in_.offset();
    in_.skip(1);
    const bool negative = in_.take("^");
    std::vector<CodePointRange> ranges;
    const auto add = [&](const CodePointSet& members) {
      count(members);
      ranges.insert(ranges.end(), members.ranges().begin(), members.ranges().end());
    };
    while (!in_.take("]")) {
      if (in_.done()) in_.fail_at(offset, "'[' without ']'");
      if (in_.starts_with("[:")) in_.fail("POSIX classes are not supported");
      const std::size_t begin = in_.offset();
      const CodePointSet low = bracket_member();
      if (in_.peek() != '-' || in_.peek(1) == ']' || in_.peek(1) == '\0') {
        add(low);
        continue;
      }
      if (!is_single(low)) {  // [\w-.]: a hyphen
        add(low);
        continue;
      }
      in_.skip(1);
      const CodePointSet high = bracket_member();
      if (!is_single(high)) {
        add(low);
        add({U'-', U'-'});
        add(high);
        continue;
      }
      const char32_t first = low.ranges()[0].first, last = high.ranges()[0].first;
      if (first > last) in_.fail_at(begin, "the bounds of a range are reversed");
      add({first, last});
    }
    const CodePointSet set(std::move(ranges));
    return negative ? (ignore_case_ ? set.ascii_case_closed() : set).inverted() : set;
  }

  // Categories are large: a short pattern could ask for far too much of them.
  void count(const CodePointSet& set) {
    if (set.ranges().size() > 1) num_ranges_ += set.ranges().size();
    if (num_ranges_ > kMaxRanges) in_.fail("its classes have more ranges than the limit allows");
  }

  const std::optional<CodePointSet>& category(const std::string& name) {
    const auto [entry, added] = categories_.try_emplace(name);
    if (added) entry->second = unicode_category(name);
    return entry->second;
  }

  static bool is_single(const CodePointSet& set) {
    return set.ranges().size() == 1 && set.ranges()[0].first == set.ranges()[0].last;
  }

  CodePointSet bracket_member() {
    if (in_.peek() == '\\') return escape(true);
    const char32_t c = in_.next();
    return {c, c};
  }

  TextCursor in_;
  bool ignore_case_ = false;
  std::size_t num_ranges_ = 0;
  std::map<std::string, std::optional<CodePointSet>> categories_;
};

}  // namespace

CodePointSet word_characters() {
  CodePointSet set = digits();
  set.add(U'A', U'Z');
  set.add(U'_', U'_');
  set.add(U'a', U'z');
  return set;
}

RegexNode parse_regex_syntax(std::string_view pattern, std::string_view name) {
  return Parser(pattern, name).parse();
}

}  // namespace specdec::grammar
