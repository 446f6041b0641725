#include <algorithm>

#include "sampling/mutation.h"
#include "verify/rules.h"

namespace specdec {

// Block verification (Sun et al., arXiv 2403.10444), docs/algorithms.md section 1. The whole chain
// is judged: a failure at one length does not stop the search for a longer one.
Verdict verify_block(const DraftTree& tree, TargetRows& target, Chance& chance) {
  const int length = tree.num_draft_tokens();
  int accepted = 0;
  double reach = 1;  // P_i
  double accepted_reach = 1;
  TargetReader reader(target);
  std::vector<double> probs;
  reader.read(0, probs);
  for (int node = 1; node <= length; ++node) {
    const DraftDistribution draft(tree, node - 1);
    const auto token = static_cast<std::size_t>(tree.tokens[static_cast<std::size_t>(node)]);
    const double draft_prob = draft.probability(node);
    double ratio = reach * probs[token];
    if (mutant_active("block_accept_x1.01")) ratio *= 1.01;
    reach = draft_prob > 0 ? std::min(ratio / draft_prob, 1.0) : (ratio > 0 ? 1.0 : 0.0);

    reader.read(node, probs);
    double probability = reach;
    if (node < length) {
      const double sum = DraftDistribution(tree, node).residual_sum(probs, reach, node + 1);
      const double denominator = sum + 1 - reach;
      probability = denominator > 0 ? sum / denominator : 1.0;
    }
    if (chance.accept(probability, node)) {
      accepted = node;
      accepted_reach = reach;
    } else if (mutant_active("block_stops_at_first_failure")) {
      break;
    }
  }
  if (accepted < length) {
    reader.read(accepted, probs);
    const DraftDistribution next(tree, accepted);
    if (next.residual_sum(probs, accepted_reach, accepted + 1) > 0 &&
        !mutant_active("block_residual_ignored")) {
      next.make_residual(probs, accepted_reach, accepted + 1, 1.0);
    }
  }
  return {accepted, chance.draw(probs, accepted)};
}

}  // namespace specdec
