#include "sampling/grammar/token_masks.h"

#include <algorithm>
#include <bit>

#include "sampling/mutation.h"

namespace specdec::grammar {
namespace {

constexpr std::uint32_t kUnknown = 0xFFFFFFFF;
constexpr std::uint32_t kWorthAsking = 8;  // nodes of a subtree that may be plain as a whole

}  // namespace

TokenMasks::TokenMasks(CompiledGrammar& grammar, const TokenIndex& index,
                       std::span<const TokenId> end_tokens)
    : grammar_(grammar),
      index_(index),
      end_tokens_(end_tokens.begin(), end_tokens.end()),
      plain_reach_(grammar.lexer()),
      sets_(index.words()),
      found_(index.words()) {}

void TokenMasks::fill(GrammarState state, std::span<std::uint64_t> bits) {
  if (sets_.size() >= next_check_) {
    next_check_ = sets_.size() + kSetsBetweenChecks;
    if (memory_bytes() > grammar_.spec().limits().matcher_bytes / 4) forget();
  }
  std::fill(bits.begin(), bits.end(), 0);
  const RegexPool::Budget budget = grammar_.budget();
  // A copy: making masks makes states.
  const auto threads = grammar_.threads(state);
  threads_.assign(threads.begin(), threads.end());
  for (const CompiledGrammar::Thread& thread : threads_) {
    if (thread.lexer == kDeadLexer) continue;
    const Inside pieces = inside(thread.lexer);
    for (std::uint32_t i = pieces.begin; i < pieces.end; ++i) {
      const std::uint32_t piece = pieces_of_[i];
      sets_.add_to(bits, pieces_[piece].set);
      if (pieces_[piece].begin < pieces_[piece].end &&
          !mutant_active("grammar_mask_without_crossings"))
        sets_.add_to(bits, across(piece, thread.row));
    }
  }
  if (!grammar_.accepts(state)) return;
  for (const TokenId token : end_tokens_)
    bits[static_cast<std::size_t>(token) >> 6] |= 1ull << (token & 63);
}

void TokenMasks::forget() {
  next_check_ = kSetsBetweenChecks;
  sets_ = TokenSets(index_.words());
  insides_ = {};
  piece_of_ = {};
  pieces_ = {};
  pieces_of_ = {};
  crossings_ = {};
  across_ = {};
  of_kinds_ = {};
}

TokenMasks::Inside TokenMasks::inside(LexerState lexer) {
  if (insides_.size() <= lexer) insides_.resize(grammar_.lexer().num_states());
  if (insides_[lexer].end == 0) {
    const Inside made = split(lexer);
    insides_[lexer] = made;
  }
  return insides_[lexer];
}

// A walk for each lexeme that begins with a text, and a piece for each that goes on without end;
// the others are walked together.
TokenMasks::Inside TokenMasks::split(LexerState lexer) {
  Lexer& lexers = grammar_.lexer();
  const std::size_t count = lexers.progress(lexer).size();
  std::vector<bool> apart(count, false);
  std::vector<std::uint32_t> pieces;
  const std::size_t crossings = crossings_.size();
  found_.clear();
  bool any_literal = false;
  for (std::size_t i = 0; i < count; ++i) {
    Lexer::Progress part = lexers.progress(lexer)[i];
    const std::string text = lexers.regexes().take_literal(part.rest);
    lexers.regexes().charge(1);
    if (text.empty()) continue;
    for (const TokenTrie* trie :
         {&index_.marked(), &index_.plain(), &index_.long_marked(), &index_.long_plain()})
      collect_literal(*trie, text, part);
    apart[i] = any_literal = true;
  }
  if (any_literal) pieces.push_back(finish_piece(crossings));
  for (std::size_t i = 0; i < count && count > 1; ++i) {
    if (apart[i]) continue;
    const LexerState part = lexers.state_of(lexers.progress(lexer)[i]);
    if (!plain_reach_.surely_endless(part)) continue;
    add_pieces(part, pieces);
    apart[i] = true;
  }
  if (const LexerState others = lexers.without(lexer, apart); others != kDeadLexer)
    add_pieces(others, pieces);
  const auto begin = static_cast<std::uint32_t>(pieces_of_.size());
  pieces_of_.insert(pieces_of_.end(), pieces.begin(), pieces.end());
  return {begin, static_cast<std::uint32_t>(pieces_of_.size())};
}

// Short tokens cannot tell the state from one whose far bounds are let go, and so do not meet each
// count of a long string anew.
void TokenMasks::add_pieces(LexerState lexer, std::vector<std::uint32_t>& pieces) {
  pieces.push_back(short_piece(grammar_.lexer().near(lexer)));
  const std::uint32_t rest = long_piece(lexer);
  if (pieces_[rest].set != 0 || pieces_[rest].begin < pieces_[rest].end) pieces.push_back(rest);
}

std::uint32_t TokenMasks::long_piece(LexerState lexer) {
  const std::size_t crossings = crossings_.size();
  found_.clear();
  if (!mutant_active("grammar_long_tokens_dropped")) {
    collect(index_.long_marked(), lexer);
    collect(index_.long_plain(), lexer);
  }
  return finish_piece(crossings);
}

std::uint32_t TokenMasks::short_piece(LexerState lexer) {
  if (piece_of_.size() <= lexer) piece_of_.resize(grammar_.lexer().num_states(), kUnknown);
  if (piece_of_[lexer] != kUnknown) return piece_of_[lexer];
  const std::size_t crossings = crossings_.size();
  found_.clear();
  collect(index_.marked(), lexer);
  collect_plain(lexer);
  return piece_of_[lexer] = finish_piece(crossings);
}

// Of what was found, and the crossings from `begin` on.
std::uint32_t TokenMasks::finish_piece(std::size_t begin) {
  pieces_.push_back({sets_.intern(found_), static_cast<std::uint32_t>(begin),
                     static_cast<std::uint32_t>(crossings_.size())});
  return static_cast<std::uint32_t>(pieces_.size() - 1);
}

// The tokens of a lexeme that begins with a text.
void TokenMasks::collect_literal(const TokenTrie& trie, std::string_view text,
                                 const Lexer::Progress& behind) {
  std::uint32_t node = trie.top(static_cast<unsigned char>(text[0]));
  for (std::size_t at = 1; node != 0 && at < text.size(); ++at) {
    found_.add(trie.tokens_at(node));
    node = trie.child(node, static_cast<unsigned char>(text[at]));
  }
  if (node != 0) collect_below(trie, node, grammar_.lexer().state_of(behind));
}

void TokenMasks::collect_plain(LexerState lexer) {
  constexpr std::size_t kMax = TokenIndex::kMaxShortBytes;
  const PlainReach::Reach reach = plain_reach_.of(lexer, kMax);
  if (reach.chars >= kMax) {  // or endless
    found_.add_bits(index_.all_plain());
  } else if (reach.closed) {
    const std::size_t chars = reach.chars + (mutant_active("grammar_plain_one_more") ? 1 : 0);
    if (chars > 0) found_.add_bits(index_.plain_up_to(chars));
  } else {
    collect(index_.plain(), lexer);
  }
}

void TokenMasks::collect(const TokenTrie& trie, LexerState lexer) {
  if (trie.num_tokens() == 0) return;
  Lexer& lexers = grammar_.lexer();
  const ByteSet first = lexers.first_bytes(lexer);
  const auto nodes = trie.nodes();
  // A string that only has to differ from a few others: nearly all first bytes lead to a state
  // that takes anything. Take all then, less what is below the other bytes.
  const bool plain = &trie == &index_.plain();
  std::size_t endless_tokens = 0;
  tops_.clear();
  for (std::uint32_t node = 1; node < nodes.size(); node = nodes[node].end) {
    Top top{node};
    if (first.contains(nodes[node].byte)) top.state = lexers.step(lexer, nodes[node].byte);
    top.endless = plain && top.state != kDeadLexer && plain_reach_.endless(top.state);
    if (top.endless) endless_tokens += trie.tokens_from(node).size();
    tops_.push_back(top);
  }
  const bool invert = endless_tokens > trie.num_tokens() / 2;
  if (invert) {
    found_.add_bits(index_.all_plain());
    for (const Top& top : tops_)
      if (!top.endless) found_.remove(trie.tokens_from(top.node));
  }
  const PlainReach::Kinds kinds = plain && !invert ? collect_kinds(lexer) : PlainReach::Kinds{};
  for (const Top& top : tops_) {
    if (top.state == kDeadLexer) continue;
    if (!top.endless)
      collect_below(trie, top.node, top.state, kinds);
    else if (!invert)
      found_.add(trie.tokens_from(top.node));
  }
}

// Takes the tokens whose bytes are all of kinds that the state takes, as a pattern's character
// class does: a few words of bits in place of walks.
PlainReach::Kinds TokenMasks::collect_kinds(LexerState lexer) {
  const PlainReach::Kinds kinds = plain_reach_.kinds(lexer, TokenIndex::kMaxShortBytes);
  if (kinds.taken != 0)
    found_.add_bits_within(tokens_of_kinds(kinds.taken), index_.plain_up_to(kinds.length));
  return kinds;
}

// The short plain tokens all of whose bytes are of these kinds. [index_.words()]
std::span<const std::uint64_t> TokenMasks::tokens_of_kinds(ByteKinds kinds) {
  const ByteKinds others = index_.plain().kinds_below(0) & ~kinds;
  std::vector<std::uint64_t>& bits = of_kinds_[others];
  if (!bits.empty()) return bits;
  const auto all = index_.all_plain();
  bits.assign(all.begin(), all.end());
  for (ByteKinds rest = others; rest != 0; rest &= rest - 1) {
    const auto holding = index_.holding(std::countr_zero(rest));
    for (std::size_t i = 0; i < bits.size(); ++i) bits[i] &= ~holding[i];
  }
  return bits;
}

// Whether every token below the node goes on from `lexer`, the state behind it.
bool TokenMasks::takes_all_below(const TokenTrie& trie, std::uint32_t node, LexerState lexer) {
  const bool plain = index_.is_plain(trie);
  if (plain && plain_reach_.endless(lexer)) return true;
  const ByteKinds kinds = trie.kinds_below(node);
  // Tokens that are not plain may hold parts of characters.
  if (!plain && (kinds & kBeyondAscii) != 0) return false;
  const std::uint8_t height = trie.nodes()[node].height;
  return height < TokenTrie::kMaxHeight && plain_reach_.takes(lexer, kinds, height);
}

// The tokens of a subtree; `lexer` is the state behind the node's own byte. Tokens whose bytes are
// all of kinds that are taken were found before, and others leave these by a known kind.
void TokenMasks::collect_below(const TokenTrie& trie, std::uint32_t node, LexerState lexer,
                               const PlainReach::Kinds& kinds) {
  Lexer& lexers = grammar_.lexer();
  const auto nodes = trie.nodes();
  const std::uint32_t end = nodes[node].end;
  stack_.clear();
  LexerState state = lexer;
  const auto is_taken = [&](std::uint32_t at) {
    return (kinds.taken >> kind_of(nodes[at].byte) & 1) != 0;
  };
  bool all_taken = is_taken(node);
  for (std::uint32_t at = node;;) {
    // Here `state`, alive, is the state behind node `at`.
    const TokenTrie::Node& here = nodes[at];
    if (all_taken && (trie.kinds_below(at) & kinds.leaving) == 0) {
      at = here.end;
    } else if (here.end - at > kWorthAsking && takes_all_below(trie, at, state)) {
      found_.add(trie.tokens_from(at));
      at = here.end;
    } else {
      found_.add(trie.tokens_at(at));
      if (here.end > at + 1) {
        if (const LexemeSet complete = lexers.complete(state); complete != 0)
          crossings_.push_back({at, complete, &trie});
        stack_.push_back({here.end, state, all_taken});
      }
      ++at;
    }
    // On to the next node that can be reached.
    while (at < end) {
      while (stack_.back().end == at) stack_.pop_back();
      state = lexers.step(stack_.back().state, nodes[at].byte);
      if (state != kDeadLexer) break;
      at = nodes[at].end;
    }
    if (at >= end) return;
    all_taken = stack_.back().taken && is_taken(at);
  }
}

std::uint32_t TokenMasks::across(std::uint32_t piece, Row row) {
  const std::uint32_t known = across_.find(piece, row);
  if (known != PairTable::kNone) return known;
  found_.clear();
  for (const Crossing& crossing :
       std::span(crossings_)
           .subspan(pieces_[piece].begin, pieces_[piece].end - pieces_[piece].begin)) {
    const TokenTrie& trie = *crossing.trie;
    const auto nodes = trie.nodes();
    const std::uint32_t end = nodes[crossing.node].end;
    const GrammarState after = grammar_.after(row, crossing.complete);
    if (grammar_.is_over(after)) continue;
    stack_.assign(1, {end, after.id, false});
    for (std::uint32_t at = crossing.node + 1; at < end;) {
      while (stack_.back().end == at) stack_.pop_back();
      const TokenTrie::Node& node = nodes[at];
      const GrammarState next = grammar_.advance(GrammarState{stack_.back().state}, node.byte);
      if (grammar_.is_dead(next)) {
        at = node.end;
        continue;
      }
      found_.add(trie.tokens_at(at));
      if (node.end > at + 1) stack_.push_back({node.end, next.id, false});
      ++at;
    }
  }
  const std::uint32_t set = sets_.intern(found_);
  across_.insert(piece, row, set);
  return set;
}

std::size_t TokenMasks::memory_bytes() const noexcept {
  return sets_.memory_bytes() + plain_reach_.memory_bytes() + insides_.capacity() * sizeof(Inside) +
         (piece_of_.capacity() + pieces_of_.capacity()) * sizeof(std::uint32_t) +
         pieces_.capacity() * sizeof(Piece) + crossings_.capacity() * sizeof(Crossing) +
         across_.memory_bytes() + of_kinds_.size() * index_.words() * sizeof(std::uint64_t);
}

}  // namespace specdec::grammar
