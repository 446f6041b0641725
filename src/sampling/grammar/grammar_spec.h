#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <unordered_map>
#include <vector>

#include "sampling/grammar/regex_pool.h"

namespace specdec::grammar {

class GrammarSpec;

/// A symbol of a GrammarSpec: a lexeme or a nonterminal.
struct Symbol {
  std::uint32_t id = 0;
  auto operator<=>(const Symbol&) const = default;
};

/// What a grammar may cost; one past a limit is refused with Error(invalid_argument).
struct GrammarLimits {
  std::size_t regex_bytes = std::size_t{64} << 20;     ///< of expressions, derivatives included
  std::size_t matcher_bytes = std::size_t{256} << 20;  ///< of states, rows and masks
  std::uint32_t symbols = 1'000'000;
  std::uint32_t production_symbols = 8'000'000;  ///< of all right-hand sides together
  std::uint64_t fuel = 3'000'000;  ///< derivatives that compiling, a byte or a mask may take
  std::uint64_t emptiness_fuel = 200'000;  ///< derivatives to decide whether a lexeme is dead
};

/// A context-free grammar whose terminals are lexemes: regular expressions over bytes. Its language
/// is exact: the strings that some derivation spells, with no longest-match rule between lexemes.
///
/// Lists are best written left-recursive, or right-recursive with the recursion at the very end;
/// both cost nothing as they grow.
class GrammarSpec {
 public:
  explicit GrammarSpec(const GrammarLimits& limits = {});
  GrammarSpec(GrammarSpec&&) =
      default;  // not copied: what expands lazy symbols may know its symbols
  GrammarSpec& operator=(GrammarSpec&&) = default;

  RegexPool& regexes() noexcept { return regexes_; }
  const GrammarLimits& limits() const noexcept { return limits_; }
  /// Bounds the work on expressions that follows, as one piece; gone before the spec is moved.
  RegexPool::Budget budget() { return {regexes_, limits_.fuel}; }

  Symbol add_nonterminal();
  /// A nonterminal whose productions are made when it is first met: `expand(spec, symbol)` calls
  /// add_production for it, and may add further nonterminals, but no lexeme. It must derive at
  /// least one string, provided that each symbol of `required` does. For the members of an object
  /// in any order: one nonterminal per set of members that were seen, made as the text goes along.
  Symbol add_lazy_nonterminal(std::function<void(GrammarSpec&, Symbol)> expand,
                              std::vector<Symbol> required = {});
  /// Equal expressions are one symbol. An expression that may match the empty string is fine;
  /// never() makes every production that holds it useless.
  Symbol add_lexeme(RegexRef regex);
  Symbol add_literal(std::string_view bytes) { return add_lexeme(regexes_.literal(bytes)); }
  /// An empty right-hand side derives the empty string.
  void add_production(Symbol lhs, std::span<const Symbol> rhs);
  void add_production(Symbol lhs, std::initializer_list<Symbol> rhs) {
    add_production(lhs, std::span(rhs.begin(), rhs.size()));
  }
  void set_start(Symbol start) noexcept { start_ = start; }

  // What the parser reads.
  struct Nonterminal {
    std::vector<std::uint32_t> productions;  // offsets into rhs(), each ended by kEnd
    std::function<void(GrammarSpec&, Symbol)> expand;
    std::vector<Symbol> required;
  };
  static constexpr std::uint32_t kEnd = 0xFFFFFFFF;

  Symbol start() const noexcept { return start_; }
  std::size_t num_symbols() const noexcept { return symbols_.size(); }
  bool is_lexeme(Symbol symbol) const noexcept { return symbols_[symbol.id].lexeme; }
  /// The index among lexemes or among nonterminals.
  std::uint32_t index_of(Symbol symbol) const noexcept { return symbols_[symbol.id].index; }
  const std::vector<RegexRef>& lexemes() const noexcept { return lexemes_; }
  const std::vector<Nonterminal>& nonterminals() const noexcept { return nonterminals_; }
  std::vector<Nonterminal>& nonterminals() noexcept { return nonterminals_; }
  const std::vector<std::uint32_t>& rhs() const noexcept { return rhs_; }

 private:
  struct SymbolEntry {
    bool lexeme = false;
    std::uint32_t index = 0;
  };

  Symbol add_symbol(bool lexeme, std::size_t index);

  GrammarLimits limits_;
  RegexPool regexes_;
  std::vector<SymbolEntry> symbols_;
  std::vector<RegexRef> lexemes_;
  std::unordered_map<std::uint32_t, Symbol> lexeme_of_regex_;
  std::vector<Nonterminal> nonterminals_;
  std::vector<std::uint32_t> rhs_;
  Symbol start_{};
};

}  // namespace specdec::grammar
