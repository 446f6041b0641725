#include <algorithm>
#include <optional>

#include "sampling/mutation.h"
#include "verify/rules.h"

namespace specdec {
namespace {

// A vocabulary of doubles per level of the tree. Kept with the thread: allocating them anew costs
// more (page faults, 1.7 ms for a chain of five over 49152 tokens) than the rule itself (0.7 ms).
std::vector<std::vector<double>>& level_buffers(int num_levels) {
  thread_local std::vector<std::vector<double>> buffers;
  const auto wanted = static_cast<std::size_t>(num_levels);
  if (buffers.size() < wanted) buffers.resize(wanted);
  return buffers;
}

class Traversal {
 public:
  Traversal(const DraftTree& tree, TargetRows& target, Chance& chance)
      : tree_(tree),
        reader_(target),
        chance_(chance),
        children_(children_of(tree)),
        probs_(level_buffers(tree.max_depth() + 1)) {}

  // `reach` is the node's a on entry.
  std::optional<Verdict> visit(int node, double reach) {
    auto& probs = probs_[static_cast<std::size_t>(tree_.depths[static_cast<std::size_t>(node)])];
    reader_.read(node, probs);
    DraftDistribution draft(tree_, node);
    double draft_left = 1;
    for (const int child : children_[static_cast<std::size_t>(node)]) {
      const auto token = static_cast<std::size_t>(tree_.tokens[static_cast<std::size_t>(child)]);
      const double draft_prob = draft.probability(child);
      double ratio = reach * probs[token];
      if (mutant_active("traversal_accept_x1.01")) ratio *= 1.01;
      const double child_reach =
          draft_prob > 0 ? std::min(ratio / draft_prob, 1.0) : (ratio > 0 ? 1.0 : 0.0);
      if (std::optional<Verdict> verdict = visit(child, child_reach)) return verdict;

      const double sum = draft.residual_sum(probs, reach, child);
      if (sum > 0) draft.make_residual(probs, reach, child, 1 / sum);
      if (mutant_active("traversal_biased_variant")) {
        draft_left -= draft_prob;
        reach = draft_left > 0 ? std::min(sum / draft_left, 1.0) : 0.0;
      } else {
        const double denominator = sum + 1 - reach;
        reach = denominator > 0 ? sum / denominator : 1.0;
      }
      draft.remove(child);
    }
    if (node != 0 && !chance_.accept(reach, node)) return std::nullopt;
    return Verdict{node, chance_.draw(probs, node)};
  }

 private:
  const DraftTree& tree_;
  TargetReader reader_;
  Chance& chance_;
  std::vector<std::vector<int>> children_;
  std::vector<std::vector<double>>& probs_;  // [depth][vocab]: of the node being visited there
};

}  // namespace

// Traversal verification (arXiv 2505.12398), docs/algorithms.md section 1: leaves first, siblings
// in drawing order.
Verdict verify_traversal(const DraftTree& tree, TargetRows& target, Chance& chance) {
  return *Traversal(tree, target, chance).visit(0, 1.0);
}

}  // namespace specdec
