#include "sampling/grammar/grammar_spec.h"

#include <utility>

#include "specdec/error.h"

namespace specdec::grammar {
namespace {

[[noreturn]] void too_large(const char* what) {
  throw Error(ErrorCode::invalid_argument,
              std::string("grammar: more ") + what + " than the limit allows");
}

}  // namespace

GrammarSpec::GrammarSpec(const GrammarLimits& limits)
    : limits_(limits), regexes_(limits.regex_bytes) {}

Symbol GrammarSpec::add_symbol(bool lexeme, std::size_t index) {
  if (symbols_.size() >= limits_.symbols) too_large("symbols");
  symbols_.push_back({lexeme, static_cast<std::uint32_t>(index)});
  return {static_cast<std::uint32_t>(symbols_.size() - 1)};
}

Symbol GrammarSpec::add_nonterminal() { return add_lazy_nonterminal({}); }

Symbol GrammarSpec::add_lazy_nonterminal(std::function<void(GrammarSpec&, Symbol)> expand,
                                         std::vector<Symbol> required) {
  const Symbol symbol = add_symbol(false, nonterminals_.size());
  nonterminals_.push_back({{}, std::move(expand), std::move(required)});
  return symbol;
}

Symbol GrammarSpec::add_lexeme(RegexRef regex) {
  const auto [entry, added] = lexeme_of_regex_.try_emplace(regex.id);
  if (!added) return entry->second;
  entry->second = add_symbol(true, lexemes_.size());
  lexemes_.push_back(regex);
  return entry->second;
}

void GrammarSpec::add_production(Symbol lhs, std::span<const Symbol> rhs) {
  if (lhs.id >= symbols_.size() || is_lexeme(lhs))
    throw Error(ErrorCode::internal, "grammar: a production of something that is no nonterminal");
  if (rhs_.size() + rhs.size() >= limits_.production_symbols) too_large("productions");
  nonterminals_[index_of(lhs)].productions.push_back(static_cast<std::uint32_t>(rhs_.size()));
  for (const Symbol symbol : rhs) rhs_.push_back(symbol.id);
  rhs_.push_back(kEnd);
}

}  // namespace specdec::grammar
