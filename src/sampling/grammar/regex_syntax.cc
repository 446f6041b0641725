#include "sampling/grammar/regex_syntax.h"

#include <array>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include "sampling/grammar/text_cursor.h"

namespace specdec::grammar {
namespace {

constexpr int kMaxGroupDepth = 200;
constexpr std::uint32_t kMaxRepeat = 0x3FFFFFFF;
constexpr std::uint32_t kMaxUnrolled = 16;  // copies of a repeated body that looks around

struct Node {
  enum class Kind { set, sequence, choice, repeat, begin, end, word_boundary, look_ahead };
  Kind kind = Kind::sequence;
  bool contextual = false;  // depends on what stands around it: an anchor or look-ahead is in it
  bool negative = false;    // word_boundary: \B; look_ahead: (?!
  std::uint32_t min = 0;
  std::optional<std::uint32_t> max = {};
  std::size_t offset = 0;
  CodePointSet set = {};
  std::vector<Node> parts = {};
};

CodePointSet digits() { return {U'0', U'9'}; }

CodePointSet word_characters() {
  CodePointSet set = digits();
  set.add(U'A', U'Z');
  set.add(U'_', U'_');
  set.add(U'a', U'z');
  return set;
}

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

  Node parse() {
    Node node = choice(0);
    if (!in_.done()) in_.expected("an operator or the end");
    return node;
  }

 private:
  static void add(Node& parent, Node part) {
    parent.contextual = parent.contextual || part.contextual;
    parent.parts.push_back(std::move(part));
  }

  Node choice(int depth) {
    if (depth > kMaxGroupDepth)
      in_.fail("groups nest more than " + std::to_string(kMaxGroupDepth) + " deep");
    Node node{.kind = Node::Kind::choice, .offset = in_.offset()};
    do {
      add(node, sequence(depth));
    } while (in_.take("|"));
    if (node.parts.size() > 1) return node;
    Node only = std::move(node.parts[0]);
    return only;
  }

  Node sequence(int depth) {
    Node node{.kind = Node::Kind::sequence, .offset = in_.offset()};
    while (!in_.done() && in_.peek() != '|' && in_.peek() != ')') add(node, quantified(depth));
    return node;
  }

  Node quantified(int depth) {
    const std::size_t offset = in_.offset();
    Node node = atom(depth);
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
      if (node.kind == Node::Kind::repeat && node.offset == offset)
        in_.fail_at(in_.offset() - 1, "nothing to repeat: a quantifier follows a quantifier");
      in_.take("?");  // lazy: the same strings match
      if (in_.peek() == '+') in_.fail("possessive quantifiers are not supported");
      Node repeated{.kind = Node::Kind::repeat, .min = min, .max = max, .offset = offset};
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

  Node atom(int depth) {
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
        return {.kind = Node::Kind::begin, .contextual = true, .offset = offset};
      case '$':
        in_.skip(1);
        return {.kind = Node::Kind::end, .contextual = true, .offset = offset};
      case '*':
      case '+':
      case '?':
        in_.fail("nothing to repeat");
      case '\\':
        if (in_.starts_with("\\b") || in_.starts_with("\\B")) {
          const bool negative = in_.peek(1) == 'B';
          in_.skip(2);
          return {.kind = Node::Kind::word_boundary,
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

  Node character(CodePointSet set) {
    if (ignore_case_) {
      for (const char* name : {"Lu", "Ll", "Lt"})
        if (set.ranges().size() < 8 &&
            !set.intersected(*unicode_category(name)).intersected({0x80, kMaxCodePoint}).empty() &&
            set.ranges().front().first == set.ranges().back().last)
          in_.fail("(?i) is supported for ASCII letters alone");
      set = set.ascii_case_closed();
    }
    return {.kind = Node::Kind::set, .set = std::move(set)};
  }

  Node group(int depth) {
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
        return {.kind = Node::Kind::sequence, .offset = offset};
      } else if (in_.take("i:")) {
        ignore_case_ = true;
      } else if (in_.take("P<") || in_.take("<")) {
        while (!in_.done() && in_.peek() != '>') in_.next();
        if (!in_.take(">")) in_.expected("'>' after the name of a group");
      } else {
        in_.fail_at(offset, "this kind of group is not supported");
      }
    }
    Node node = choice(depth + 1);
    if (!in_.take(")")) in_.expected("')'");
    ignore_case_ = outer_case;
    node.offset = offset;
    if (look) {
      Node ahead{.kind = Node::Kind::look_ahead,
                 .contextual = true,
                 .negative = negative,
                 .offset = offset};
      ahead.parts.push_back(std::move(node));
      return ahead;
    }
    // A group of its own, so that (a*)* is no quantifier after a quantifier.
    Node wrapped{.kind = Node::Kind::sequence, .offset = offset};
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
    const auto set = unicode_category(name);
    if (!set) in_.fail_at(offset, "'" + name + "' is not a general category");
    return negative ? set->inverted() : *set;
  }

  CodePointSet bracket() {
    const std::size_t offset = in_.offset();
    in_.skip(1);
    const bool negative = in_.take("^");
    CodePointSet set;
    while (!in_.take("]")) {
      if (in_.done()) in_.fail_at(offset, "'[' without ']'");
      if (in_.starts_with("[:")) in_.fail("POSIX classes are not supported");
      const std::size_t begin = in_.offset();
      const CodePointSet low = bracket_member();
      if (in_.peek() != '-' || in_.peek(1) == ']' || in_.peek(1) == '\0') {
        set.add(low);
        continue;
      }
      if (!is_single(low)) {  // [\w-.]: a hyphen
        set.add(low);
        continue;
      }
      in_.skip(1);
      const CodePointSet high = bracket_member();
      if (!is_single(high)) {
        set.add(low);
        set.add(U'-', U'-');
        set.add(high);
        continue;
      }
      const char32_t first = low.ranges()[0].first, last = high.ranges()[0].first;
      if (first > last) in_.fail_at(begin, "the bounds of a range are reversed");
      set.add(CodePointSet(first, last));
    }
    return negative ? (ignore_case_ ? set.ascii_case_closed() : set).inverted() : set;
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
};

/// Compiles by continuations: what a part matches followed by all that comes after, to the end of
/// the text. An anchor or a look-ahead is then an intersection with what comes after.
class Compiler {
 public:
  Compiler(RegexPool& pool, const RegexSyntaxOptions& options, std::string_view pattern)
      : pool_(pool), options_(options), pattern_(pattern) {}

  RegexRef compile(const Node& root) {
    if (!root.contextual && options_.anchored) return plain(root);
    if (options_.anchored) return before(root, after_all(pool_.empty()))[kStart];
    const RegexRef text = pool_.star(any_character());
    const Rest anchored = before(root, after_all(text));
    if (anchored[kAfterWord] == pool_.never() && anchored[kAfterOther] == pool_.never())
      return anchored[kStart];
    // What follows a match is free: `anything` absorbs the matches that are still looked for.
    const Rest match = before(root, after_all(pool_.anything()));
    return pool_.all_of(text, skip(text, match)[kStart]);
  }

 private:
  // What stands before a place in the text; it picks which rest may follow.
  enum Before { kStart, kAfterWord, kAfterOther };
  using Rest = std::array<RegexRef, 3>;

  static Rest after_all(RegexRef rest) { return {rest, rest, rest}; }

  RegexRef encode(const CodePointSet& set) {
    return options_.encode ? options_.encode(pool_, set) : utf8_regex(pool_, set);
  }
  RegexRef any_character() {
    if (!any_) any_ = encode(CodePointSet::all());
    return *any_;
  }
  RegexRef word_character() {
    if (!word_) word_ = encode(word_characters());
    return *word_;
  }

  RegexRef plain(const Node& node) {
    switch (node.kind) {
      case Node::Kind::set:
        return character(node.set);
      case Node::Kind::repeat:
        return pool_.repeat(plain(node.parts[0]), node.min, node.max);
      case Node::Kind::choice: {
        std::vector<RegexRef> options;
        for (const Node& part : node.parts) options.push_back(plain(part));
        return pool_.any_of(options);
      }
      default: {
        RegexRef rest = pool_.empty();
        for (std::size_t i = node.parts.size(); i-- > 0;)
          rest = pool_.concat(plain(node.parts[i]), rest);
        return rest;
      }
    }
  }

  RegexRef character(const CodePointSet& set) {
    if (set.ranges().size() != 1 || set.ranges()[0].first != set.ranges()[0].last)
      return encode(set);
    const auto [entry, added] = characters_.try_emplace(set.ranges()[0].first);
    if (added) entry->second = encode(set);
    return entry->second;
  }

  // `matched`, an expression without context, and then `rest`.
  Rest skip(RegexRef matched, const Rest& rest) {
    Rest whole;
    if (rest[kAfterWord] == rest[kAfterOther]) {
      whole = after_all(pool_.concat(matched, rest[kAfterOther]));
    } else {
      const RegexRef text = pool_.star(any_character());
      const RegexRef to_word = pool_.concat(text, word_character());
      const RegexRef after_word = pool_.all_of(matched, to_word);
      const RegexRef after_other =
          pool_.all_of({matched, pool_.complement(to_word), pool_.complement(pool_.empty())});
      whole = after_all(pool_.any_of(pool_.concat(after_word, rest[kAfterWord]),
                                     pool_.concat(after_other, rest[kAfterOther])));
      if (pool_.nullable(matched))
        for (int at : {kStart, kAfterWord, kAfterOther})
          whole[static_cast<std::size_t>(at)] =
              pool_.any_of(whole[static_cast<std::size_t>(at)], rest[static_cast<std::size_t>(at)]);
      return whole;
    }
    if (rest[kStart] != rest[kAfterOther] && pool_.nullable(matched)) {
      const RegexRef some = pool_.all_of(matched, pool_.complement(pool_.empty()));
      whole[kStart] = pool_.any_of(pool_.concat(some, rest[kAfterOther]), rest[kStart]);
    }
    return whole;
  }

  Rest before(const Node& node, const Rest& rest) {
    if (!node.contextual) return skip(plain(node), rest);
    Rest whole = after_all(pool_.never());
    const auto each = [&](auto make) {
      for (std::size_t at = 0; at < whole.size(); ++at) whole[at] = make(at);
    };
    switch (node.kind) {
      case Node::Kind::set:
        break;
      case Node::Kind::sequence:
        whole = rest;
        for (std::size_t i = node.parts.size(); i-- > 0;) whole = before(node.parts[i], whole);
        break;
      case Node::Kind::choice:
        for (const Node& part : node.parts) {
          const Rest option = before(part, rest);
          each([&](std::size_t at) { return pool_.any_of(whole[at], option[at]); });
        }
        break;
      case Node::Kind::begin:
        whole[kStart] = rest[kStart];
        break;
      case Node::Kind::end:
        each([&](std::size_t at) {
          return pool_.nullable(rest[at]) ? pool_.empty() : pool_.never();
        });
        break;
      case Node::Kind::word_boundary: {
        const RegexRef word_next = pool_.concat(word_character(), pool_.anything());
        const RegexRef other_next = pool_.complement(word_next);
        each([&](std::size_t at) {
          const bool word_before = at == kAfterWord;
          return pool_.all_of(rest[at], word_before == node.negative ? word_next : other_next);
        });
        break;
      }
      case Node::Kind::look_ahead: {
        const Rest ahead = before(node.parts[0], after_all(pool_.anything()));
        each([&](std::size_t at) {
          return pool_.all_of(rest[at], node.negative ? pool_.complement(ahead[at]) : ahead[at]);
        });
        break;
      }
      case Node::Kind::repeat:
        whole = unrolled(node, rest);
        break;
    }
    return whole;
  }

  Rest unrolled(const Node& node, const Rest& rest) {
    // A body that matches nothing but the empty string: once is as good as many times.
    const bool assertion = matches_empty_only(node.parts[0]);
    const std::uint32_t min = assertion ? std::min(node.min, 1u) : node.min;
    const std::uint32_t max = assertion ? 1 : node.max.value_or(kMaxUnrolled + 1);
    if (max > kMaxUnrolled)
      TextCursor(pattern_, options_.name)
          .fail_at(node.offset, "an anchor or look-ahead in a repeat of more than " +
                                    std::to_string(kMaxUnrolled) + " is not supported");
    Rest whole = rest;
    for (std::uint32_t i = max; i-- > 0;) {
      const Rest more = before(node.parts[0], whole);
      for (std::size_t at = 0; at < whole.size(); ++at)
        whole[at] = i < min ? more[at] : pool_.any_of(more[at], rest[at]);
    }
    return whole;
  }

  static bool matches_empty_only(const Node& node) {
    if (node.kind == Node::Kind::set) return false;
    if (node.kind == Node::Kind::look_ahead) return true;
    for (const Node& part : node.parts)
      if (!matches_empty_only(part)) return false;
    return true;
  }

  RegexPool& pool_;
  const RegexSyntaxOptions& options_;
  std::string_view pattern_;
  std::optional<RegexRef> any_;
  std::optional<RegexRef> word_;
  std::unordered_map<char32_t, RegexRef> characters_;
};

}  // namespace

RegexRef parse_regex(RegexPool& pool, std::string_view pattern, const RegexSyntaxOptions& options) {
  const Node root = Parser(pattern, options.name).parse();
  return Compiler(pool, options, pattern).compile(root);
}

}  // namespace specdec::grammar
