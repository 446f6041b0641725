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
  std::vector<double> probs = target_distribution(target, 0);
  std::vector<double> accepted_probs = probs;  // target after the accepted node
  for (int node = 1; node <= length; ++node) {
    const DraftDistribution draft(tree, node - 1);
    const auto token = static_cast<std::size_t>(tree.tokens[static_cast<std::size_t>(node)]);
    const double draft_prob = draft.probability(node);
    double ratio = reach * probs[token];
    if (mutant_active("block_accept_x1.01")) ratio *= 1.01;
    reach = draft_prob > 0 ? std::min(ratio / draft_prob, 1.0) : (ratio > 0 ? 1.0 : 0.0);

    probs = target_distribution(target, node);
    double probability = reach;
    if (node < length) {
      std::vector<double> residual = probs;
      const DraftDistribution next(tree, node);
      const double sum = next.subtract_from(residual, reach, node + 1);
      const double denominator = sum + 1 - reach;
      probability = denominator > 0 ? sum / denominator : 1.0;
    }
    if (chance.accept(probability, node)) {
      accepted = node;
      accepted_reach = reach;
      accepted_probs = probs;
    } else if (mutant_active("block_stops_at_first_failure")) {
      break;
    }
  }
  if (accepted < length) {
    const DraftDistribution next(tree, accepted);
    std::vector<double> residual = accepted_probs;
    if (next.subtract_from(residual, accepted_reach, accepted + 1) > 0) {
      if (!mutant_active("block_residual_ignored")) accepted_probs = std::move(residual);
    }
  }
  return {accepted, chance.draw(accepted_probs, accepted)};
}

}  // namespace specdec
