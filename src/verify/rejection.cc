#include <algorithm>

#include "sampling/mutation.h"
#include "verify/rules.h"

namespace specdec {

// Leviathan et al. 2022 and Chen et al. 2023 on a chain. On a tree, recursive rejection over the
// siblings: a rejected sibling leaves the normalised residual [target - draft]+ for the next one
// (SpecInfer, arXiv 2305.09781, with replacement; Jeon et al., arXiv 2402.14160, without).
Verdict verify_rejection(const DraftTree& tree, TargetRows& target, Chance& chance) {
  const auto children = children_of(tree);
  TargetReader reader(target);
  std::vector<double> probs;
  int node = 0;
  for (;;) {
    reader.read(node, probs);
    DraftDistribution draft(tree, node);
    int accepted = -1;
    for (const int child : children[static_cast<std::size_t>(node)]) {
      const auto token = static_cast<std::size_t>(tree.tokens[static_cast<std::size_t>(child)]);
      const double draft_prob = draft.probability(child);
      double ratio = draft_prob > 0 ? probs[token] / draft_prob : (probs[token] > 0 ? 1.0 : 0.0);
      if (mutant_active("rejection_accept_x1.01")) ratio *= 1.01;
      if (chance.accept(std::min(ratio, 1.0), child)) {
        accepted = child;
        break;
      }
      // A rejected token has target < draft, so some other one has target > draft: the sum is only
      // 0 when both are equal but for rounding.
      const double sum = draft.residual_sum(probs, 1.0, child);
      if (sum > 0) {
        const double norm = mutant_active("residual_not_normalised") ? 1.0 : sum;
        draft.make_residual(probs, 1.0, child, 1 / norm);
      }
      draft.remove(child);
    }
    if (accepted < 0) return {node, chance.draw(probs, node)};
    node = accepted;
  }
}

}  // namespace specdec
