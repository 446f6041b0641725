#include "sampling/mutation.h"
#include "verify/rules.h"

namespace specdec {

// Daliri, Musco, Suresh, "Coupling without communication" (2024): target and draft read the same
// noise, so the walk needs no draft probabilities and emits what plain decoding would.
AcceptedPath verify_coupled(const DraftTree& tree, TargetRows& target) {
  AcceptedPath path;
  int node = 0;
  for (;;) {
    path.nodes.push_back(node);
    OutputToken token = target.sample(node);
    const int child = tree.find_child(node, token.token);
    token.drafted = child >= 0;
    if (child < 0 && mutant_active("bonus_dropped") && path.nodes.size() > 1) {
      path.nodes.pop_back();
      path.tokens.back().drafted = false;
      return path;
    }
    path.tokens.push_back(std::move(token));
    if (child < 0) return path;
    node = child;
  }
}

}  // namespace specdec
