#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "draft/draft_model.h"
#include "draft/draft_sampler.h"
#include "draft/draft_tree.h"
#include "draft/static_tree.h"
#include "kernels/executor.h"
#include "specdec/grammar.h"

namespace specdec {

/// What a drafter thought of one of its tokens.
struct DraftNode {
  float confidence = 0;  // its own probability of the token after its parent
  float estimate = 0;    // the same, calibrated
};

/// Steers a growing draft between its levels.
class GrowthControl {
 public:
  virtual ~GrowthControl() = default;

  /// The probability that the target takes a child of this confidence. Called from several threads,
  /// from one for each sequence.
  virtual float estimate(std::size_t sequence, float confidence) const = 0;

  /// One sequence's draft after a level.
  struct Level {
    std::span<const float> survivals;  // of its nodes below the root
    float best_frontier = 0;           // the highest survival of the deepest level; 0: it ends here
    int frontier_rows = 0;             // rows that the model would run for it
  };
  /// Whether the model should run one more level, after `depth` of them.
  virtual bool go_on(int depth, std::span<const Level> levels) = 0;
};

/// A sequence that a model drafts for.
struct ModelDraftSequence {
  std::span<const TokenId> tokens;  // committed; the last is the root
  int draft_length = 0;             // positions with draft KV in place
  int max_depth = 0;
  int max_nodes = 0;                        // at most ModelDrafter::max_nodes(max_depth)
  RowContext row;                           // of the token after the root; path empty
  const GrammarMatcher* grammar = nullptr;  // at the root; null: the request has none
  DraftTree* tree = nullptr;                // out: holds the root on entry
  /// out [nodes]: the slot that holds a node's draft KV, -1 when the draft did not run it.
  std::vector<std::int32_t>* draft_slots = nullptr;
  std::vector<DraftNode>* drafted = nullptr;  // out [nodes]; the root's is empty. Null: not wanted
};

struct ModelDrafterOptions {
  int topk = 1;               // children per node; 1 = a chain
  int num_draft_tokens = 16;  // most nodes below the root, when topk > 1
  float min_confidence =
      0;                 // stop below a node whose best token has less draft probability; 0 = off
  bool sampled = false;  // draw the children (rejection rules); else take the best (coupled)
  std::optional<StaticTree> shape = {};  // takes the place of topk and num_draft_tokens
};

/// Drafts with a small model: a chain, or a tree that grows level by level from the best nodes
/// (EAGLE-2, arXiv 2406.16858: expand the k best of a level by k children each, then keep the best
/// of all). First catches up on committed tokens that its KV lacks: a stale draft cache silently
/// kills acceptance.
///
/// When children are drawn (rejection rules), nothing drawn is ever discarded: only where to go on
/// growing is chosen.
class ModelDrafter {
 public:
  ModelDrafter(DraftModel& model, kernels::Executor& executor, const ModelDrafterOptions& options);

  /// Slots that a draft of this depth needs from the root's on, the root included.
  int slots_needed(int max_depth) const;
  /// Most nodes below the root of a draft of this depth.
  int max_nodes(int max_depth) const;

  /// Grows sequences[i].tree below its root. The root's slot is tokens.size() - 1; later slots
  /// follow it. With `control`, survival is what it estimates and each level needs its consent; a
  /// sampled draft (whose tokens must not decide its length) takes none.
  void propose(std::span<ModelDraftSequence> sequences, GrowthControl* control = nullptr);

 private:
  struct Node;
  struct Child;
  struct Growth;

  void catch_up(std::span<ModelDraftSequence> sequences);
  void add_children(Growth& growth, const ModelDraftSequence& sequence, int parent,
                    std::span<const float> logits, DraftSampler& sampler) const;
  bool go_on(std::span<const Growth> growths, std::span<const ModelDraftSequence> sequences,
             int depth, GrowthControl& control) const;
  bool is_chain() const noexcept;
  std::vector<Child> children_of(const Node& node) const;
  void choose_frontier(Growth& growth) const;
  void finish(Growth& growth, ModelDraftSequence& sequence) const;

  DraftModel& model_;
  kernels::Executor& executor_;
  ModelDrafterOptions options_;
  std::vector<DraftSampler> samplers_;  // one per thread
};

}  // namespace specdec
