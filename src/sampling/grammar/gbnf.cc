#include "sampling/grammar/gbnf.h"

#include <algorithm>
#include <optional>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include "sampling/grammar/code_points.h"
#include "sampling/grammar/text_cursor.h"
#include "sampling/grammar/utf8.h"

namespace specdec::grammar {
namespace {

constexpr int kMaxGroupDepth = 200;
constexpr std::uint32_t kMaxRepeat = 0x3FFFFFFF;
// A rule that is regular becomes part of its users' lexemes while it is not larger than this.
constexpr std::uint64_t kMaxInlined = 2000;

struct Node {
  enum class Kind { literal, set, rule, sequence, choice, repeat };
  Kind kind = Kind::sequence;
  std::string text = {};  // literal
  CodePointSet set = {};
  std::uint32_t rule = 0;
  std::uint32_t min = 0;
  std::optional<std::uint32_t> max = {};
  std::vector<Node> parts = {};
};

struct Rule {
  std::string name;
  std::size_t used_at = 0;  // where it was first named
  bool defined = false;
  Node body = {};
};

class Parser {
 public:
  explicit Parser(std::string_view text) : in_(text, "gbnf") {}

  std::vector<Rule> parse() {
    skip_space(true);
    while (!in_.done()) {
      rule();
      skip_space(true);
    }
    for (const Rule& rule : rules_)
      if (!rule.defined) in_.fail_at(rule.used_at, "rule '" + rule.name + "' is not defined");
    const auto root = index_.find("root");
    if (root == index_.end()) in_.expected("a rule 'root'");
    root_ = root->second;
    return std::move(rules_);
  }
  std::uint32_t root() const noexcept { return root_; }

 private:
  static bool is_name(char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' ||
           c == '_';
  }

  void skip_space(bool newlines) {
    while (!in_.done()) {
      const char c = in_.peek();
      if (c == '#') {
        while (!in_.done() && in_.peek() != '\n' && in_.peek() != '\r') in_.skip(1);
      } else if (c == ' ' || c == '\t' || (newlines && (c == '\n' || c == '\r'))) {
        in_.skip(1);
      } else {
        break;
      }
    }
  }

  std::uint32_t name() {
    const std::size_t begin = in_.offset();
    std::string name;
    for (; is_name(in_.peek()); in_.skip(1)) name.push_back(in_.peek());
    if (name.empty()) in_.expected("the name of a rule");
    const auto [entry, added] = index_.try_emplace(name, static_cast<std::uint32_t>(rules_.size()));
    if (added) rules_.push_back({name, begin});
    return entry->second;
  }

  void rule() {
    const std::size_t begin = in_.offset();
    const std::uint32_t index = name();
    skip_space(false);
    if (!in_.take("::=")) in_.expected("'::='");
    skip_space(true);
    Node body = choice(0);
    if (!in_.done() && in_.peek() != '\n' && in_.peek() != '\r')
      in_.expected("an element, '|' or a new line");
    if (rules_[index].defined)
      in_.fail_at(begin, "rule '" + rules_[index].name + "' is defined twice");
    rules_[index].defined = true;
    rules_[index].body = std::move(body);
  }

  Node choice(int depth) {
    if (depth > kMaxGroupDepth)
      in_.fail("groups nest more than " + std::to_string(kMaxGroupDepth) + " deep");
    Node node{.kind = Node::Kind::choice};
    node.parts.push_back(sequence(depth));
    while (in_.take("|")) {
      skip_space(true);
      node.parts.push_back(sequence(depth));
    }
    if (node.parts.size() > 1) return node;
    Node only = std::move(node.parts[0]);
    return only;
  }

  // Ends at '|', ')', the end, and outside of groups at a new line.
  Node sequence(int depth) {
    Node node{.kind = Node::Kind::sequence};
    while (true) {
      skip_space(depth > 0);
      std::optional<Node> part = element(depth);
      if (!part) return node;
      node.parts.push_back(quantified(std::move(*part), depth));
    }
  }

  std::optional<Node> element(int depth) {
    const char c = in_.peek();
    if (c == '"') return Node{.kind = Node::Kind::literal, .text = string()};
    if (c == '[') return Node{.kind = Node::Kind::set, .set = bracket()};
    if (in_.take(".")) return Node{.kind = Node::Kind::set, .set = CodePointSet::all()};
    if (c == '<' || c == '!') in_.fail("tokens in a grammar are not supported");
    if (is_name(c)) return Node{.kind = Node::Kind::rule, .rule = name()};
    if (!in_.take("(")) return std::nullopt;
    skip_space(true);
    Node node = choice(depth + 1);
    skip_space(true);
    if (!in_.take(")")) in_.expected("')'");
    return node;
  }

  Node quantified(Node node, int depth) {
    while (true) {
      skip_space(depth > 0);
      std::uint32_t min = 0;
      std::optional<std::uint32_t> max;
      if (in_.take("*")) {
      } else if (in_.take("+")) {
        min = 1;
      } else if (in_.take("?")) {
        max = 1;
      } else if (in_.peek() == '{') {
        const std::size_t begin = in_.offset();
        in_.skip(1);
        skip_space(depth > 0);
        min = in_.take_number(kMaxRepeat).value_or(0);
        skip_space(depth > 0);
        max = min;
        if (in_.take(",")) {
          skip_space(depth > 0);
          max = in_.take_number(kMaxRepeat);
          skip_space(depth > 0);
        }
        if (!in_.take("}")) in_.expected("'}'");
        if (max.has_value() && *max < min)
          in_.fail_at(begin, "the bounds of a repeat are reversed");
      } else {
        return node;
      }
      if (is_plain_repeat(node) && is_plain(min, max)) {  // of one another they make one
        node.min *= min;
        if (!max.has_value()) node.max.reset();
        continue;
      }
      Node repeated{.kind = Node::Kind::repeat, .min = min, .max = max};
      repeated.parts.push_back(std::move(node));
      node = std::move(repeated);
    }
  }
  /// '*', '+', '?', or once.
  static bool is_plain(std::uint32_t min, std::optional<std::uint32_t> max) {
    return min <= 1 && max.value_or(1) == 1;
  }
  static bool is_plain_repeat(const Node& node) {
    return node.kind == Node::Kind::repeat && is_plain(node.min, node.max);
  }

  char32_t character() {
    if (in_.done()) in_.expected("a character");
    if (!in_.take("\\")) return in_.next();
    const auto hex = [&](std::size_t digits) {
      in_.skip(1);
      const auto value = in_.take_hex(digits);
      if (!value) in_.expected(std::to_string(digits) + " hexadecimal digits");
      if (*value > kMaxCodePoint) in_.fail("a code point above 10FFFF");
      return *value;
    };
    switch (in_.peek()) {
      case 'x':
        return hex(2);
      case 'u':
        return hex(4);
      case 'U':
        return hex(8);
      case 't':
        return in_.skip(1), U'\t';
      case 'r':
        return in_.skip(1), U'\r';
      case 'n':
        return in_.skip(1), U'\n';
      case '\\':
      case '"':
      case '[':
      case ']':
      case '-':
      case '^':
        return in_.next();
      default:
        in_.expected("an escape (one of x u U t r n \\ \" [ ])");
    }
  }

  std::string string() {
    const std::size_t begin = in_.offset();
    in_.skip(1);
    std::string text;
    while (!in_.take("\"")) {
      if (in_.done()) in_.fail_at(begin, "a string without its closing '\"'");
      utf8_append(text, character());
    }
    return text;
  }

  CodePointSet bracket() {
    const std::size_t begin = in_.offset();
    in_.skip(1);
    const bool negative = in_.take("^");
    std::vector<CodePointRange> ranges;
    while (!in_.take("]")) {
      if (in_.done()) in_.fail_at(begin, "'[' without ']'");
      const char32_t first = character();
      char32_t last = first;
      if (in_.peek() == '-' && in_.peek(1) != ']') {
        in_.skip(1);
        last = character();
        if (last < first) in_.fail("the bounds of a range are reversed");
      }
      ranges.push_back({first, last});
    }
    const CodePointSet set(std::move(ranges));
    return negative ? set.inverted() : set;
  }

  TextCursor in_;
  std::vector<Rule> rules_;
  std::unordered_map<std::string, std::uint32_t> index_;
  std::uint32_t root_ = 0;
};

class Compiler {
 public:
  Compiler(std::vector<Rule> rules, GrammarSpec& spec)
      : rules_(std::move(rules)), spec_(spec), lexemes_(rules_.size()), symbols_(rules_.size()) {}

  Symbol compile(std::uint32_t root) {
    inline_regular_rules();
    for (std::uint32_t i = 0; i < rules_.size(); ++i)
      if (!lexemes_[i]) symbols_[i] = spec_.add_nonterminal();
    for (std::uint32_t i = 0; i < rules_.size(); ++i)
      if (!lexemes_[i]) add_options(symbols_[i], rules_[i].body);
    return symbol_of_rule(root);
  }

 private:
  struct Lexeme {
    RegexRef regex;
    std::uint64_t size = 0;  // written out
  };

  // Rules from the leaves up: one whose parts are all regular, and small, is regular itself. What
  // is left is recursive or large.
  void inline_regular_rules() {
    std::vector<std::vector<std::uint32_t>> users(rules_.size());
    std::vector<std::size_t> missing(rules_.size(), 0);
    std::vector<std::uint32_t> ready;
    for (std::uint32_t i = 0; i < rules_.size(); ++i) {
      std::vector<std::uint32_t> used;
      collect_rules(rules_[i].body, used);
      std::sort(used.begin(), used.end());
      used.erase(std::unique(used.begin(), used.end()), used.end());
      missing[i] = used.size();
      for (const std::uint32_t rule : used) users[rule].push_back(i);
      if (used.empty()) ready.push_back(i);
    }
    while (!ready.empty()) {
      const std::uint32_t rule = ready.back();
      ready.pop_back();
      lexemes_[rule] = regular(rules_[rule].body);
      if (!lexemes_[rule]) continue;
      for (const std::uint32_t user : users[rule])
        if (--missing[user] == 0) ready.push_back(user);
    }
  }

  static void collect_rules(const Node& node, std::vector<std::uint32_t>& used) {
    if (node.kind == Node::Kind::rule) used.push_back(node.rule);
    for (const Node& part : node.parts) collect_rules(part, used);
  }

  std::optional<Lexeme> regular(const Node& node) {
    RegexPool& regexes = spec_.regexes();
    Lexeme lexeme{regexes.empty(), 1};
    switch (node.kind) {
      case Node::Kind::literal:
        return Lexeme{regexes.literal(node.text), node.text.size()};
      case Node::Kind::set:
        return Lexeme{utf8_regex(regexes, node.set), 1};
      case Node::Kind::rule:
        return lexemes_[node.rule];
      case Node::Kind::repeat: {
        const auto body = regular(node.parts[0]);
        if (!body) return std::nullopt;
        return Lexeme{regexes.repeat(body->regex, node.min, node.max), body->size + 1};
      }
      case Node::Kind::sequence:
      case Node::Kind::choice: {
        std::vector<RegexRef> parts;
        for (const Node& part : node.parts) {
          const auto each = regular(part);
          if (!each) return std::nullopt;
          lexeme.size += each->size;
          if (lexeme.size > kMaxInlined) return std::nullopt;
          parts.push_back(each->regex);
        }
        const bool choice = node.kind == Node::Kind::choice;
        lexeme.regex = choice ? regexes.any_of(parts) : regexes.concat(parts);
        return lexeme;
      }
    }
    return std::nullopt;
  }

  Symbol symbol_of_rule(std::uint32_t rule) {
    return lexemes_[rule] ? spec_.add_lexeme(lexemes_[rule]->regex) : symbols_[rule];
  }

  void add_options(Symbol lhs, const Node& node) {
    if (node.kind == Node::Kind::choice) {
      for (const Node& part : node.parts) spec_.add_production(lhs, sequence_of(part));
    } else {
      spec_.add_production(lhs, sequence_of(node));
    }
  }

  std::vector<Symbol> sequence_of(const Node& node) {
    std::vector<Symbol> symbols;
    if (node.kind != Node::Kind::sequence) {
      symbols.push_back(symbol_of(node));
      return symbols;
    }
    // Neighbours that are regular are one lexeme.
    std::optional<Lexeme> run;
    const auto close_run = [&] {
      if (run) symbols.push_back(spec_.add_lexeme(run->regex));
      run.reset();
    };
    for (const Node& part : node.parts) {
      const auto lexeme = regular(part);
      if (!lexeme) {
        close_run();
        symbols.push_back(symbol_of(part));
      } else if (run && run->size + lexeme->size <= kMaxInlined) {
        run->regex = spec_.regexes().concat(run->regex, lexeme->regex);
        run->size += lexeme->size;
      } else {
        close_run();
        run = lexeme;
      }
    }
    close_run();
    return symbols;
  }

  Symbol symbol_of(const Node& node) {
    if (const auto lexeme = regular(node)) return spec_.add_lexeme(lexeme->regex);
    if (node.kind == Node::Kind::rule) return symbols_[node.rule];
    if (node.kind == Node::Kind::repeat) return repeated(symbol_of(node.parts[0]), node);
    const Symbol symbol = spec_.add_nonterminal();
    add_options(symbol, node);
    return symbol;
  }

  Symbol repeated(Symbol body, const Node& node) {
    if (node.max.has_value()) return counted(spec_, body, node.min, *node.max);
    const Symbol some = spec_.add_nonterminal();
    spec_.add_production(some, {});
    spec_.add_production(some, {some, body});
    if (node.min == 0) return some;
    const Symbol symbol = spec_.add_nonterminal();
    spec_.add_production(symbol, {counted(spec_, body, node.min, node.min), some});
    return symbol;
  }

  // From `min` to `max` of them, each step made when the text gets there.
  static Symbol counted(GrammarSpec& spec, Symbol body, std::uint32_t min, std::uint32_t max) {
    std::vector<Symbol> required;
    if (min > 0) required.push_back(body);
    return spec.add_lazy_nonterminal(
        [body, min, max](GrammarSpec& inner, Symbol self) {
          if (min == 0) inner.add_production(self, {});
          if (max > 0)
            inner.add_production(self, {body, counted(inner, body, min - (min > 0), max - 1)});
        },
        std::move(required));
  }

  std::vector<Rule> rules_;
  GrammarSpec& spec_;
  std::vector<std::optional<Lexeme>> lexemes_;  // [rules]; of the regular ones
  std::vector<Symbol> symbols_;                 // [rules]; of the others
};

}  // namespace

Symbol add_gbnf(GrammarSpec& spec, std::string_view text) {
  Parser parser(text);
  std::vector<Rule> rules = parser.parse();
  return Compiler(std::move(rules), spec).compile(parser.root());
}

GrammarSpec parse_gbnf(std::string_view text, const GrammarLimits& limits) {
  GrammarSpec spec(limits);
  {
    const RegexPool::Budget budget = spec.budget();
    spec.set_start(add_gbnf(spec, text));
  }
  return spec;
}

}  // namespace specdec::grammar
