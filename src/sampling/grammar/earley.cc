#include "sampling/grammar/earley.h"

#include <algorithm>

#include "sampling/mutation.h"
#include "specdec/error.h"

namespace specdec::grammar {
namespace {

// The left-hand side of the whole text: no nonterminal, and completed in no row.
constexpr std::uint32_t kWhole = 0xFFFFFFFE;

}  // namespace

Earley::Earley(GrammarSpec& spec, Productions& productions, Lexer& lexer)
    : spec_(spec), productions_(productions), lexer_(lexer) {
  const RegexPool::Budget budget = spec.budget();
  // One item before the start symbol stands for the start: its own production, made here.
  const Symbol start = spec.start();
  std::uint32_t whole = 0;
  {
    const Symbol outer = spec.add_nonterminal();
    spec.add_production(outer, {start});
    whole = spec.nonterminals()[spec.index_of(outer)].productions[0];
  }
  kernel_.push_back({whole, kWhole, kNoRow});
  start_ = intern_kernel();
}

std::span<const Earley::Waiting> Earley::waiting_for(std::uint32_t begin, std::uint32_t end,
                                                     std::uint32_t symbol) const noexcept {
  const auto from = waiting_.begin() + begin, to = waiting_.begin() + end;
  const auto first = std::lower_bound(
      from, to, symbol, [](const Waiting& w, std::uint32_t value) { return w.symbol < value; });
  auto last = first;
  while (last != to && last->symbol == symbol) ++last;
  return {first, last};
}

Row Earley::scan(Row row, LexemeSet set) {
  check_whole();
  const Row known = scans_.find(row, set);
  if (known != PairTable::kNone) return known;
  kernel_.clear();
  const RowData data = rows_[row];
  for (const std::uint32_t lexeme : lexer_.lexemes_of(set))
    for (const Waiting& waiting : waiting_for(data.scans, data.calls, lexeme))
      kernel_.push_back(waiting.next);
  settle_kernel();
  const Row next = intern_kernel();
  scans_.insert(row, set, next);
  return next;
}

Row Earley::merge(std::span<const Row> rows) {
  check_whole();
  kernel_.clear();
  for (const Row row : rows) {
    const auto kernel = kernels_[row + 1];
    kernel_.insert(kernel_.end(), kernel.begin(), kernel.end());
  }
  return intern_kernel();
}

// Completes what is complete and steps over what can be empty. What stays are items that wait for
// something, and the whole text's completed item; their origins are older rows.
void Earley::settle_kernel() {
  std::vector<Item> open;
  open.swap(kernel_);
  FlatTable seen;
  std::vector<Item> all;
  const auto add = [&](const Item& item) {
    const std::uint64_t hash = hash_mix(hash_mix(item.dot, item.lhs), item.origin);
    if (seen.find(hash, [&](std::uint32_t at) { return all[at] == item; }) != FlatTable::kNone)
      return;
    all.push_back(item);
    seen.insert(hash, static_cast<std::uint32_t>(all.size() - 1), [&](std::uint32_t at) {
      return hash_mix(hash_mix(all[at].dot, all[at].lhs), all[at].origin);
    });
  };
  for (const Item& item : open) add(item);
  for (std::size_t i = 0; i < all.size(); ++i) {
    spec_.regexes().charge(1);
    const Item item = all[i];
    const std::uint32_t symbol = spec_.rhs()[item.dot];
    if (symbol != GrammarSpec::kEnd) {
      kernel_.push_back(item);
      if (productions_.nullable(symbol)) add({item.dot + 1, item.lhs, item.origin});
    } else if (item.lhs == kWhole) {
      kernel_.push_back(item);
    } else {
      const RowData& origin = rows_[item.origin];
      for (const Waiting& waiting : waiting_for(origin.calls, origin.end, item.lhs))
        add(waiting.next);
    }
  }
}

Row Earley::intern_kernel() {
  spec_.regexes().charge(kernel_.size());
  std::sort(kernel_.begin(), kernel_.end());
  kernel_.erase(std::unique(kernel_.begin(), kernel_.end()), kernel_.end());
  const auto [index, added] = kernels_.intern(kernel_);
  const Row row = index - 1;
  if (added) close(row);
  return row;
}

void Earley::check_whole() const {
  if (row_in_progress_)
    throw Error(ErrorCode::invalid_argument,
                "grammar: a limit was reached before; compile it anew, with a higher one");
}

// Predicts everything that may come next in a new row.
void Earley::close(Row row) {
  row_in_progress_ = true;  // stays, should a limit be reached in the middle
  rows_.emplace_back();
  items_ = kernel_;
  std::vector<Waiting> scans, calls;
  std::vector<std::uint32_t> lexemes;
  std::vector<Item> predicted_for;  // nonterminal instead of dot
  FlatTable seen;
  bool accepts = false;

  const auto predict = [&](std::uint32_t nonterminal, std::uint32_t lhs, Row origin) {
    const Item key{nonterminal, lhs, origin};
    const std::uint64_t hash = hash_mix(hash_mix(nonterminal, lhs), origin);
    if (seen.find(hash, [&](std::uint32_t at) { return predicted_for[at] == key; }) !=
        FlatTable::kNone)
      return;
    predicted_for.push_back(key);
    seen.insert(hash, static_cast<std::uint32_t>(predicted_for.size() - 1), [&](std::uint32_t at) {
      const Item& other = predicted_for[at];
      return hash_mix(hash_mix(other.dot, other.lhs), other.origin);
    });
    for (const std::uint32_t begin : productions_.of(nonterminal))
      items_.push_back({begin, lhs, origin});
  };
  for (std::size_t i = 0; i < items_.size(); ++i) {
    spec_.regexes().charge(1);
    Item item = items_[i];
    while (true) {
      const std::uint32_t symbol = spec_.rhs()[item.dot];
      if (symbol == GrammarSpec::kEnd) {
        accepts = accepts || item.lhs == kWhole;
        break;
      }
      const Item next{item.dot + 1, item.lhs, item.origin};
      const std::uint32_t index = spec_.index_of({symbol});
      if (spec_.is_lexeme({symbol})) {
        scans.push_back({index, next});
        lexemes.push_back(index);
      } else if (spec_.rhs()[next.dot] == GrammarSpec::kEnd) {
        predict(index, item.lhs, item.origin);
      } else {
        calls.push_back({index, next});
        predict(index, index, row);
      }
      // Items of the kernel were stepped over empty symbols when it was settled; going on here
      // finds the same again, and completions that it has.
      if (!productions_.nullable(symbol)) break;
      item = next;
    }
  }
  std::sort(lexemes.begin(), lexemes.end());
  lexemes.erase(std::unique(lexemes.begin(), lexemes.end()), lexemes.end());
  for (std::vector<Waiting>* list : {&scans, &calls}) {
    std::sort(list->begin(), list->end());
    list->erase(std::unique(list->begin(), list->end()), list->end());
  }
  RowData& data = rows_[row];
  data.scans = static_cast<std::uint32_t>(waiting_.size());
  waiting_.insert(waiting_.end(), scans.begin(), scans.end());
  data.calls = static_cast<std::uint32_t>(waiting_.size());
  waiting_.insert(waiting_.end(), calls.begin(), calls.end());
  data.end = static_cast<std::uint32_t>(waiting_.size());
  data.accepts = accepts;
  data.lexer = lexer_.start(lexemes, spec_.lexemes());
  row_in_progress_ = false;
}

std::size_t Earley::memory_bytes() const noexcept {
  return rows_.capacity() * sizeof(RowData) + waiting_.capacity() * sizeof(Waiting) +
         kernels_.memory_bytes() + scans_.memory_bytes();
}

}  // namespace specdec::grammar
