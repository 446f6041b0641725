#include "sampling/grammar/regex_syntax.h"

#include <array>
#include <map>
#include <string>
#include <vector>

#include "sampling/grammar/regex_parser.h"
#include "sampling/grammar/text_cursor.h"

namespace specdec::grammar {
namespace {

constexpr std::uint32_t kMaxUnrolled = 16;  // copies of a repeated body that looks around

/// Compiles by continuations: what a part matches followed by all that comes after, to the end of
/// the text. An anchor or a look-ahead is then an intersection with what comes after.
class Compiler {
 public:
  Compiler(RegexPool& pool, const RegexSyntaxOptions& options, std::string_view pattern)
      : pool_(pool), options_(options), pattern_(pattern) {}

  RegexRef compile(const RegexNode& root) {
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

  RegexRef plain(const RegexNode& node) {
    switch (node.kind) {
      case RegexNode::Kind::set:
        return character(node.set);
      case RegexNode::Kind::repeat:
        return pool_.repeat(plain(node.parts[0]), node.min, node.max);
      case RegexNode::Kind::choice: {
        std::vector<RegexRef> options;
        for (const RegexNode& part : node.parts) options.push_back(plain(part));
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
    const auto [entry, added] = characters_.try_emplace(set.ranges());
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

  Rest before(const RegexNode& node, const Rest& rest) {
    if (!node.contextual) return skip(plain(node), rest);
    Rest whole = after_all(pool_.never());
    const auto each = [&](auto make) {
      for (std::size_t at = 0; at < whole.size(); ++at) whole[at] = make(at);
    };
    switch (node.kind) {
      case RegexNode::Kind::set:
        break;
      case RegexNode::Kind::sequence:
        whole = rest;
        for (std::size_t i = node.parts.size(); i-- > 0;) whole = before(node.parts[i], whole);
        break;
      case RegexNode::Kind::choice:
        for (const RegexNode& part : node.parts) {
          const Rest option = before(part, rest);
          each([&](std::size_t at) { return pool_.any_of(whole[at], option[at]); });
        }
        break;
      case RegexNode::Kind::begin:
        whole[kStart] = rest[kStart];
        break;
      case RegexNode::Kind::end:
        each([&](std::size_t at) {
          return pool_.nullable(rest[at]) ? pool_.empty() : pool_.never();
        });
        break;
      case RegexNode::Kind::word_boundary: {
        const RegexRef word_next = pool_.concat(word_character(), pool_.anything());
        const RegexRef other_next = pool_.complement(word_next);
        each([&](std::size_t at) {
          const bool word_before = at == kAfterWord;
          return pool_.all_of(rest[at], word_before == node.negative ? word_next : other_next);
        });
        break;
      }
      case RegexNode::Kind::look_ahead: {
        const Rest ahead = before(node.parts[0], after_all(pool_.anything()));
        each([&](std::size_t at) {
          return pool_.all_of(rest[at], node.negative ? pool_.complement(ahead[at]) : ahead[at]);
        });
        break;
      }
      case RegexNode::Kind::repeat:
        whole = unrolled(node, rest);
        break;
    }
    return whole;
  }

  Rest unrolled(const RegexNode& node, const Rest& rest) {
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

  static bool matches_empty_only(const RegexNode& node) {
    if (node.kind == RegexNode::Kind::set) return false;
    if (node.kind == RegexNode::Kind::look_ahead) return true;
    for (const RegexNode& part : node.parts)
      if (!matches_empty_only(part)) return false;
    return true;
  }

  RegexPool& pool_;
  const RegexSyntaxOptions& options_;
  std::string_view pattern_;
  std::optional<RegexRef> any_;
  std::optional<RegexRef> word_;
  std::map<std::vector<CodePointRange>, RegexRef> characters_;
};

}  // namespace

RegexRef parse_regex(RegexPool& pool, std::string_view pattern, const RegexSyntaxOptions& options) {
  const RegexNode root = parse_regex_syntax(pattern, options.name);
  return Compiler(pool, options, pattern).compile(root);
}

}  // namespace specdec::grammar
