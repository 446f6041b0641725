#include "engine/constrain.h"

#include <algorithm>
#include <string>
#include <utility>

namespace specdec {

void prune_by_grammar(Sequence& sequence) {
  const DraftTree& tree = sequence.tree;
  sequence.node_grammar.assign(1, *sequence.grammar);
  DraftTree kept(tree.tokens[0]);
  kept.sampling = tree.sampling;
  std::vector<std::int32_t> slots;
  std::vector<int> new_index(static_cast<std::size_t>(tree.size()), -1);
  new_index[0] = 0;
  for (int node = 0; node < tree.size(); ++node) {
    const auto at = static_cast<std::size_t>(node);
    if (node > 0) {
      const int parent = new_index[static_cast<std::size_t>(tree.parents[at])];
      if (parent < 0) continue;
      GrammarMatcher matcher = sequence.node_grammar[static_cast<std::size_t>(parent)];
      if (!matcher.accept(tree.tokens[at])) continue;
      new_index[at] = kept.add(tree.tokens[at], parent);
      sequence.node_grammar.push_back(std::move(matcher));
    }
    if (!sequence.draft_slots.empty()) slots.push_back(sequence.draft_slots[at]);
    if (!tree.draft_probs.empty())
      kept.draft_probs.push_back(std::move(sequence.tree.draft_probs[at]));
  }
  sequence.tree = std::move(kept);
  sequence.draft_slots = std::move(slots);
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
