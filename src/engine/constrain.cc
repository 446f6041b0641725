#include "engine/constrain.h"

#include <algorithm>
#include <string>
#include <utility>

namespace specdec {

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

void draft_forced_text(Sequence& sequence, const Tokenizer& tokenizer) {
  constexpr std::size_t kMaxBytes = 128;
  constexpr std::size_t kWorthADraft = 2;  // tokens; a drafter gets a single one right, and goes on
  sequence.forced.clear();
  if (!sequence.grammar || !sequence.samples || sequence.draft_depth <= 0) return;
  const std::string text = sequence.grammar->forced_text(kMaxBytes);
  if (text.empty()) return;
  for (const TokenId token : tokenizer.encode(text, false)) {
    if (tokenizer.token_bytes(token).empty()) continue;  // a first token that begins every text
    if (static_cast<int>(sequence.forced.size()) >=
        std::min(sequence.draft_depth, sequence.draft_nodes))
      break;
    sequence.forced.push_back(token);
  }
  if (sequence.forced.size() < kWorthADraft) sequence.forced.clear();
}

}  // namespace specdec
