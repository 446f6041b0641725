#include "sampling/grammar/productions.h"

#include <algorithm>
#include <utility>

#include "specdec/error.h"

namespace specdec::grammar {
namespace {

constexpr int kMaxExpansions = 10'000;  // lazy symbols in a row, to know whether one can be empty

}  // namespace

Productions::Productions(GrammarSpec& spec) : spec_(spec) {
  if (spec.num_symbols() == 0)
    throw Error(ErrorCode::internal, "grammar: a grammar without symbols");
  const RegexPool::Budget budget = spec.budget();
  take_new_symbols();
  settle();
  if (!facts_[spec.start().id].productive)
    throw Error(ErrorCode::invalid_argument, "grammar: no text matches it");
}

void Productions::take_new_symbols() {
  while (facts_.size() < spec_.num_symbols()) {
    const Symbol symbol{static_cast<std::uint32_t>(facts_.size())};
    Facts facts;
    if (spec_.is_lexeme(symbol)) {
      RegexPool& regexes = spec_.regexes();
      const RegexRef regex = spec_.lexemes()[spec_.index_of(symbol)];
      const auto never = regexes.is_never(regex, spec_.limits().emptiness_fuel);
      if (!never.has_value())
        throw Error(ErrorCode::invalid_argument,
                    "grammar: whether a regular expression with intersections or complements "
                    "matches anything takes more steps than the limit allows");
      facts = {.nullable = regexes.nullable(regex), .productive = !*never};
    } else {
      symbols_.push_back(symbol.id);
      useful_.emplace_back();
      const GrammarSpec::Nonterminal& nonterminal = spec_.nonterminals()[spec_.index_of(symbol)];
      for (const std::uint32_t begin : nonterminal.productions)
        open_.push_back({symbol.id, begin, {}});
      facts.lazy = nonterminal.expand != nullptr;
      if (facts.lazy) open_.push_back({symbol.id, GrammarSpec::kEnd, nonterminal.required});
    }
    facts_.push_back(facts);
  }
}

void Productions::expand(std::uint32_t symbol) {
  const std::uint32_t index = spec_.index_of({symbol});
  const auto make = std::exchange(spec_.nonterminals()[index].expand, nullptr);
  facts_[symbol].lazy = false;
  const std::size_t num_lexemes = spec_.lexemes().size();
  make(spec_, {symbol});
  if (spec_.lexemes().size() != num_lexemes)
    throw Error(ErrorCode::internal, "grammar: a lexeme was added while the grammar was in use");
  for (const std::uint32_t begin : spec_.nonterminals()[index].productions)
    open_.push_back({symbol, begin, {}});
  take_new_symbols();
}

// Derives `lhs` from every production all of whose symbols hold, until nothing changes.
template <class Holds, class Derive>
void Productions::propagate(Holds holds, Derive derive) const {
  std::vector<std::pair<std::uint32_t, std::uint32_t>> waiting;  // symbol, production
  std::vector<std::uint32_t> missing(open_.size(), 0);
  std::vector<std::uint32_t> ready;
  for (std::uint32_t i = 0; i < open_.size(); ++i) {
    const auto see = [&](std::uint32_t symbol) {
      if (holds(symbol)) return;
      waiting.emplace_back(symbol, i);
      ++missing[i];
    };
    if (open_[i].begin == GrammarSpec::kEnd) {
      for (const Symbol symbol : open_[i].needed) see(symbol.id);
    } else {
      for (const std::uint32_t* at = &spec_.rhs()[open_[i].begin]; *at != GrammarSpec::kEnd; ++at)
        see(*at);
    }
    if (missing[i] == 0) ready.push_back(i);
  }
  std::sort(waiting.begin(), waiting.end());
  while (!ready.empty()) {
    const Production& production = open_[ready.back()];
    ready.pop_back();
    const std::uint32_t symbol = production.lhs;
    if (holds(symbol) || !derive(production)) continue;
    for (auto at = std::lower_bound(waiting.begin(), waiting.end(), std::pair{symbol, 0u});
         at != waiting.end() && at->first == symbol; ++at)
      if (--missing[at->second] == 0) ready.push_back(at->second);
  }
}

void Productions::settle_productive() {
  propagate(
      [this](std::uint32_t symbol) { return facts_[symbol].productive; },
      [this](const Production& production) { return facts_[production.lhs].productive = true; });
}

bool Productions::settle_nullable() {
  propagate([this](std::uint32_t symbol) { return facts_[symbol].nullable; },
            [this](const Production& production) {
              if (production.begin == GrammarSpec::kEnd) return false;
              return facts_[production.lhs].nullable = true;
            });
  // Only lazy symbols stand between a production and the empty string: their own are needed.
  std::vector<std::uint32_t> needed;
  for (const Production& production : open_) {
    if (production.begin == GrammarSpec::kEnd || facts_[production.lhs].nullable) continue;
    bool lazy_alone = true;
    const std::size_t before = needed.size();
    for (const std::uint32_t* at = &spec_.rhs()[production.begin]; *at != GrammarSpec::kEnd; ++at) {
      if (facts_[*at].nullable) continue;
      lazy_alone = lazy_alone && facts_[*at].lazy;
      needed.push_back(*at);
    }
    if (!lazy_alone) needed.resize(before);
  }
  for (const std::uint32_t symbol : needed)
    if (facts_[symbol].lazy) expand(symbol);
  return needed.empty();
}

void Productions::settle() {
  for (int round = 0; !settle_nullable(); ++round)
    if (round > kMaxExpansions)
      throw Error(ErrorCode::invalid_argument, "grammar: lazy symbols expand without end");
  settle_productive();
  for (const Production& production : open_) {
    if (production.begin == GrammarSpec::kEnd) continue;
    bool useful = true;
    for (const std::uint32_t* at = &spec_.rhs()[production.begin]; *at != GrammarSpec::kEnd; ++at)
      useful = useful && facts_[*at].productive;
    if (useful) useful_[spec_.index_of({production.lhs})].push_back(production.begin);
  }
  open_.clear();
}

std::span<const std::uint32_t> Productions::of(std::uint32_t nonterminal) {
  const std::uint32_t symbol = symbols_[nonterminal];
  if (facts_[symbol].lazy) {
    expand(symbol);
    settle();
  }
  return useful_[nonterminal];
}

}  // namespace specdec::grammar
