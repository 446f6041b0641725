#include "engine/constrain.h"

#include <algorithm>
#include <string>
#include <utility>
#include <vector>

namespace specdec {

namespace {

constexpr std::size_t kMaxForcedBytes = 128;

/// The text that must follow, tokenised as the model would; at most `most` tokens.
std::vector<TokenId> forced_tokens(const GrammarMatcher& grammar, const Tokenizer& tokenizer,
                                   int most) {
  std::vector<TokenId> tokens;
  if (most <= 0) return tokens;
  const std::string text = grammar.forced_text(kMaxForcedBytes);
  if (text.empty()) return tokens;
  for (const TokenId token : tokenizer.encode(text, false)) {
    if (tokenizer.token_bytes(token).empty()) continue;  // a first token that begins every text
    if (static_cast<int>(tokens.size()) == most) break;
    tokens.push_back(token);
  }
  return tokens;
}

}  // namespace

void prune_by_grammar(Sequence& sequence) {
  const DraftTree& tree = sequence.tree;
  const auto count = static_cast<std::size_t>(tree.size());
  std::vector<bool> keep(count);
  std::vector<GrammarMatcher> matchers(count, *sequence.grammar);
  keep[0] = true;
  sequence.node_grammar.assign(1, *sequence.grammar);
  for (std::size_t node = 1; node < count; ++node) {
    const auto parent = static_cast<std::size_t>(tree.parents[node]);
    if (!keep[parent]) continue;
    matchers[node] = matchers[parent];
    keep[node] = matchers[node].accept(tree.tokens[node]);
    if (keep[node]) sequence.node_grammar.push_back(matchers[node]);
  }
  sequence.retain_nodes(keep);
}

void extend_by_grammar(Sequence& sequence, const Tokenizer& tokenizer) {
  constexpr float kWorthARow = 0.1f;  // the survival below which a leaf is left alone
  DraftTree& tree = sequence.tree;
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
  for (const int leaf : leaves) {
    if (survival(leaf) < kWorthARow) break;
    const int most = std::min(sequence.draft_depth - tree.depths[static_cast<std::size_t>(leaf)],
                              sequence.draft_nodes - tree.num_draft_tokens());
    int parent = leaf;
    for (const TokenId token :
         forced_tokens(sequence.node_grammar[static_cast<std::size_t>(leaf)], tokenizer, most)) {
      GrammarMatcher next = sequence.node_grammar[static_cast<std::size_t>(parent)];
      if (!next.accept(token)) break;
      parent = tree.add(token, parent);
      sequence.origins.push_back({.drafter = NodeOrigin::kGrammar,
                                  .confidence = 1,
                                  .estimate = 1,
                                  .survival = survival(leaf)});
      sequence.node_grammar.push_back(std::move(next));
      if (!sequence.draft_slots.empty()) sequence.draft_slots.push_back(-1);
    }
  }
}

void draft_forced_text(Sequence& sequence, const Tokenizer& tokenizer) {
  constexpr std::size_t kWorthADraft = 2;  // tokens; a drafter gets a single one right, and goes on
  sequence.forced.clear();
  if (!sequence.grammar || !sequence.samples) return;
  sequence.forced = forced_tokens(*sequence.grammar, tokenizer,
                                  std::min(sequence.draft_depth, sequence.draft_nodes));
  if (sequence.forced.size() < kWorthADraft) sequence.forced.clear();
}

}  // namespace specdec
