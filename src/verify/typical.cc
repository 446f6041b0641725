#include <algorithm>
#include <cmath>

#include "verify/rules.h"

namespace specdec {
namespace {

// Deepest node of typical tokens below `node`; of equally deep ones the first in drawing order.
int deepest(const std::vector<std::vector<int>>& children, const DraftTree& tree,
            TargetRows& target, const VerifyParams& params, int node) {
  if (children[static_cast<std::size_t>(node)].empty()) return node;
  std::vector<double> probs;
  TargetReader(target).read(node, probs);
  double entropy = 0;
  for (const double prob : probs) {
    if (prob > 0) entropy -= prob * std::log(prob);
  }
  const double threshold =
      std::min<double>(params.typical_epsilon, params.typical_delta * std::exp(-entropy));
  int best = node;
  for (const int child : children[static_cast<std::size_t>(node)]) {
    const auto token = static_cast<std::size_t>(tree.tokens[static_cast<std::size_t>(child)]);
    if (!(probs[token] > threshold)) continue;
    const int end = deepest(children, tree, target, params, child);
    if (tree.depths[static_cast<std::size_t>(end)] > tree.depths[static_cast<std::size_t>(best)]) {
      best = end;
    }
  }
  return best;
}

}  // namespace

// Typical acceptance (Medusa, arXiv 2401.10774): a draft token passes when the target finds it
// likely enough for its entropy. LOSSY: the output does not follow the target's distribution. The
// bonus token is the target's own sample.
AcceptedPath verify_typical(const DraftTree& tree, TargetRows& target, const VerifyParams& params) {
  const int node = deepest(children_of(tree), tree, target, params, 0);
  AcceptedPath path = make_path(tree, target, {node, 0});
  path.tokens.back() = target.sample(node);
  path.tokens.back().drafted = false;
  return path;
}

}  // namespace specdec
