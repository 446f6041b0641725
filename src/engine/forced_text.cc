#include "engine/forced_text.h"

#include <algorithm>
#include <string>
#include <string_view>
#include <utility>

namespace specdec {

// Encodes what is left anew behind each token that the model spells otherwise.
std::vector<TokenId> ForcedText::tokens_of(const GrammarMatcher& grammar, int most) const {
  constexpr std::size_t kMaxBytes = 128;
  std::vector<TokenId> tokens;
  if (most <= 0) return tokens;
  const std::string text = grammar.forced_text(kMaxBytes);
  for (std::size_t begin = 0; begin < text.size();) {
    const std::size_t before = begin;
    for (const TokenId token : tokenizer_.encode(std::string_view(text).substr(begin), false)) {
      if (tokenizer_.token_bytes(token).empty()) continue;  // a first token that begins every text
      const auto own = spelling_.find(token);
      const TokenId next = own == spelling_.end() ? token : own->second;
      tokens.push_back(next);
      begin += tokenizer_.token_bytes(next).size();
      if (static_cast<int>(tokens.size()) == most) return tokens;
      if (next != token) break;
    }
    if (begin == before) break;
  }
  return tokens;
}

void ForcedText::begin(Sequence& sequence) const {
  constexpr std::size_t kWorthADraft = 2;  // tokens; a drafter gets a single one right, and goes on
  sequence.forced.clear();
  if (!sequence.grammar || !sequence.samples) return;
  sequence.forced =
      tokens_of(*sequence.grammar, std::min(sequence.draft_depth, sequence.draft_nodes));
  if (sequence.forced.size() < kWorthADraft) sequence.forced.clear();
}

void ForcedText::extend(Sequence& sequence) const {
  constexpr float kWorthARow = 0.1f;  // the survival below which a leaf is left alone
  const DraftTree& tree = sequence.tree;
  if (tree.sampling != DraftSampling::deterministic) return;
  std::vector<bool> has_child(static_cast<std::size_t>(tree.size()));
  for (std::size_t node = 1; node < has_child.size(); ++node)
    has_child[static_cast<std::size_t>(tree.parents[node])] = true;
  std::vector<int> leaves;
  for (int node = 0; node < tree.size(); ++node)
    if (!has_child[static_cast<std::size_t>(node)]) leaves.push_back(node);
  const auto survival = [&](int node) {
    return sequence.origins[static_cast<std::size_t>(node)].survival;
  };
  std::stable_sort(leaves.begin(), leaves.end(),
                   [&](int a, int b) { return survival(a) > survival(b); });
  for (const int leaf : leaves)
    if (survival(leaf) >= kWorthARow) extend(sequence, leaf);
}

void ForcedText::extend(Sequence& sequence, int leaf) const {
  DraftTree& tree = sequence.tree;
  const auto at = static_cast<std::size_t>(leaf);
  const int most = std::min(sequence.draft_depth - tree.depths[at],
                            sequence.draft_nodes - tree.num_draft_tokens());
  const float survival = sequence.origins[at].survival;
  GrammarMatcher grammar = sequence.node_grammar[at];
  int parent = leaf;
  for (const TokenId token : tokens_of(grammar, most)) {
    if (!grammar.accept(token)) return;
    parent = tree.add(token, parent);
    sequence.node_grammar.push_back(grammar);
    sequence.origins.push_back(
        {.drafter = NodeOrigin::kGrammar, .confidence = 1, .estimate = 1, .survival = survival});
    if (!sequence.draft_slots.empty()) sequence.draft_slots.push_back(-1);
  }
}

void ForcedText::learn(const Sequence& sequence) {
  const AcceptedPath& path = sequence.path;
  if (!sequence.grammar || path.nodes.empty() || path.tokens.size() != path.nodes.size()) return;
  const TokenId chosen = path.tokens.back().token;
  spelling_.erase(chosen);  // as the tokenizer has it
  const DraftTree& tree = sequence.tree;
  for (int node = path.nodes.back() + 1; node < tree.size(); ++node) {
    const auto at = static_cast<std::size_t>(node);
    if (tree.parents[at] != path.nodes.back() ||
        sequence.origins[at].drafter != NodeOrigin::kGrammar)
      continue;
    const std::string_view drafted = tokenizer_.token_bytes(tree.tokens[at]);
    const std::string_view own = tokenizer_.token_bytes(chosen);
    if (!own.empty() && own.size() < drafted.size() && drafted.starts_with(own))
      spelling_[tree.tokens[at]] = chosen;
  }
}

}  // namespace specdec
