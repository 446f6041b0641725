#include "sampling/grammar/token_masks.h"

#include <algorithm>
#include <bit>

#include "sampling/mutation.h"

namespace specdec::grammar {
namespace {

constexpr std::uint32_t kUnknown = 0xFFFFFFFF;

}  // namespace

TokenMasks::TokenMasks(CompiledGrammar& grammar, const TokenTrie& trie, int vocab_size,
                       std::span<const TokenId> end_tokens)
    : grammar_(grammar),
      trie_(trie),
      end_tokens_(end_tokens.begin(), end_tokens.end()),
      scratch_(words_for(vocab_size), 0) {
  take_scratch();  // part 0 is empty
}

void TokenMasks::fill(GrammarState state, std::span<std::uint64_t> bits) {
  std::fill(bits.begin(), bits.end(), 0);
  // A copy of the threads: making masks makes states.
  thread_local std::vector<CompiledGrammar::Thread> threads;
  const auto of_state = grammar_.threads(state);
  threads.assign(of_state.begin(), of_state.end());
  for (const CompiledGrammar::Thread& thread : threads) {
    if (thread.lexer == kDeadLexer) continue;
    add_part(inside(thread.lexer).part, bits);
    if (!mutant_active("grammar_mask_without_crossings"))
      add_part(across(thread.lexer, thread.row), bits);
  }
  if (!grammar_.accepts(state)) return;
  for (const TokenId token : end_tokens_)
    bits[static_cast<std::size_t>(token) >> 6] |= 1ull << (token & 63);
}

void TokenMasks::add_part(std::uint32_t part, std::span<std::uint64_t> bits) const noexcept {
  const Part& p = parts_[part];
  if (p.dense) {
    const std::uint64_t* words = words_.data() + p.begin;
    for (std::size_t i = 0; i < p.count; ++i) bits[i] |= words[i];
  } else {
    for (std::uint32_t i = p.begin; i < p.begin + p.count; ++i)
      bits[tokens_[i] >> 6] |= 1ull << (tokens_[i] & 63);
  }
}

const TokenMasks::Inside& TokenMasks::inside(LexerState lexer) {
  if (inside_of_.size() <= lexer) inside_of_.resize(lexer + 1, kUnknown);
  if (inside_of_[lexer] != kUnknown) return insides_[inside_of_[lexer]];

  Lexer& lexers = grammar_.lexer();
  const auto nodes = trie_.nodes();
  const auto begin = static_cast<std::uint32_t>(crossings_.size());
  std::fill(scratch_.begin(), scratch_.end(), 0);
  stack_.assign(1, {nodes[0].end, lexer});
  for (std::uint32_t at = 1; at < nodes.size();) {
    while (stack_.back().end == at) stack_.pop_back();
    const TokenTrie::Node& node = nodes[at];
    const LexerState next = lexers.step(stack_.back().state, node.byte);
    if (next == kDeadLexer) {
      at = node.end;
      continue;
    }
    allow(trie_.tokens_at(at));
    if (node.end > at + 1) {
      if (const LexemeSet complete = lexers.complete(next); complete != 0)
        crossings_.push_back({at, complete});
      stack_.push_back({node.end, next});
    }
    ++at;
  }
  inside_of_[lexer] = static_cast<std::uint32_t>(insides_.size());
  insides_.push_back({take_scratch(), begin, static_cast<std::uint32_t>(crossings_.size())});
  return insides_.back();
}

std::uint32_t TokenMasks::across(LexerState lexer, Row row) {
  const std::uint32_t known = across_.find(lexer, row);
  if (known != PairTable::kNone) return known;
  const Inside inside = insides_[inside_of_[lexer]];
  std::fill(scratch_.begin(), scratch_.end(), 0);
  const auto nodes = trie_.nodes();
  for (std::uint32_t i = inside.begin; i < inside.end; ++i) {
    const Crossing crossing = crossings_[i];
    const GrammarState after = grammar_.after(row, crossing.complete);
    stack_.assign(1, {nodes[crossing.node].end, after.id});
    for (std::uint32_t at = crossing.node + 1; at < nodes[crossing.node].end;) {
      while (stack_.back().end == at) stack_.pop_back();
      const TokenTrie::Node& node = nodes[at];
      const GrammarState next = grammar_.advance(GrammarState{stack_.back().state}, node.byte);
      if (grammar_.is_dead(next)) {
        at = node.end;
        continue;
      }
      allow(trie_.tokens_at(at));
      if (node.end > at + 1) stack_.push_back({node.end, next.id});
      ++at;
    }
  }
  const std::uint32_t part = take_scratch();
  across_.insert(lexer, row, part);
  return part;
}

// Makes a part of the bits in scratch_, or finds the one that is equal.
std::uint32_t TokenMasks::take_scratch() {
  std::uint64_t hash = 1;
  std::size_t count = 0;
  for (const std::uint64_t word : scratch_) {
    hash = hash_mix(hash, word);
    count += static_cast<std::size_t>(std::popcount(word));
  }
  const bool dense = count > 2 * scratch_.size();
  const auto same = [&](std::uint32_t at) {
    const Part& other = parts_[at];
    if (part_hashes_[at] != hash || other.dense != dense) return false;
    if (dense) return std::equal(scratch_.begin(), scratch_.end(), words_.begin() + other.begin);
    if (other.count != count) return false;
    for (std::uint32_t i = other.begin; i < other.begin + other.count; ++i)
      if ((scratch_[tokens_[i] >> 6] >> (tokens_[i] & 63) & 1) == 0) return false;
    return true;
  };
  std::uint32_t part = part_table_.find(hash, same);
  if (part == FlatTable::kNone) {
    part = static_cast<std::uint32_t>(parts_.size());
    if (dense) {
      parts_.push_back({true, static_cast<std::uint32_t>(words_.size()),
                        static_cast<std::uint32_t>(scratch_.size())});
      words_.insert(words_.end(), scratch_.begin(), scratch_.end());
    } else {
      parts_.push_back({false, static_cast<std::uint32_t>(tokens_.size()),
                        static_cast<std::uint32_t>(count)});
      for (std::size_t i = 0; i < scratch_.size(); ++i)
        for (std::uint64_t word = scratch_[i]; word != 0; word &= word - 1)
          tokens_.push_back(static_cast<std::uint32_t>(i * 64) +
                            static_cast<std::uint32_t>(std::countr_zero(word)));
    }
    part_hashes_.push_back(hash);
    part_table_.insert(hash, part, [&](std::uint32_t at) { return part_hashes_[at]; });
  }
  return part;
}

std::size_t TokenMasks::memory_bytes() const noexcept {
  return parts_.capacity() * sizeof(Part) + tokens_.capacity() * 4 + words_.capacity() * 8 +
         part_table_.memory_bytes() + part_hashes_.capacity() * 8 + inside_of_.capacity() * 4 +
         insides_.capacity() * sizeof(Inside) + crossings_.capacity() * sizeof(Crossing) +
         across_.memory_bytes() + scratch_.capacity() * 8;
}

}  // namespace specdec::grammar
