#include "engine/constrain.h"

#include <utility>
#include <vector>

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

}  // namespace specdec
