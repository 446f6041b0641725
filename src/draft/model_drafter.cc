#include "draft/model_drafter.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <optional>

#include "kernels/sampling/gumbel.h"
#include "kernels/sampling/row_numbers.h"
#include "specdec/error.h"

namespace specdec {

namespace {

constexpr int kNoSlot = -1;

}  // namespace

struct ModelDrafter::Node {
  TokenId token = 0;
  int parent = -1;
  int depth = 0;
  float log_survival = 0;  // estimated log-probability that the target walks through this node
  DraftNode own = {};
  int shape = 0;  // its node of the static tree, where there is one
  int slot = kNoSlot;
  std::optional<GrammarMatcher> grammar = {};  // behind the token, once the node is expanded
};

/// A child to be: which of its parent's best tokens, and the static tree's node where there is one.
struct ModelDrafter::Child {
  int rank = 0;
  int shape = 0;
};

/// One sequence's tree while it grows. Node 0 is the root; parents come before children.
struct ModelDrafter::Growth {
  std::vector<Node> nodes;
  std::vector<int> frontier;  // nodes of the deepest level that the model runs next
  int level_begin = 1;        // first node of the deepest level
  int next_slot = 0;
  std::size_t sequence = 0;
  const GrowthControl* control = nullptr;
  std::vector<std::vector<float>> draft_probs;  // [nodes], sampled drafts only

  void add(TokenId token, int parent, float log_confidence, int shape) {
    const Node& from = nodes[static_cast<std::size_t>(parent)];
    DraftNode own{.confidence = std::exp(log_confidence)};
    own.estimate =
        control == nullptr ? own.confidence : control->estimate(sequence, own.confidence);
    const float log_estimate = control == nullptr ? log_confidence : std::log(own.estimate);
    nodes.push_back({.token = token,
                     .parent = parent,
                     .depth = from.depth + 1,
                     .log_survival = from.log_survival + std::min(0.0f, log_estimate),
                     .own = own,
                     .shape = shape});
  }

  std::vector<TokenId> path_to(int node) const {
    std::vector<TokenId> path(
        static_cast<std::size_t>(nodes[static_cast<std::size_t>(node)].depth));
    for (auto it = path.rbegin(); it != path.rend(); ++it) {
      *it = nodes[static_cast<std::size_t>(node)].token;
      node = nodes[static_cast<std::size_t>(node)].parent;
    }
    return path;
  }
};

ModelDrafter::ModelDrafter(DraftModel& model, kernels::Executor& executor,
                           const ModelDrafterOptions& options)
    : model_(model), executor_(executor), options_(options) {
  for (int i = 0; i < executor.num_threads(); ++i)
    samplers_.emplace_back(model.vocab_size(), model.tokens());
}

bool ModelDrafter::is_chain() const noexcept {
  return options_.shape ? options_.shape->is_chain() : options_.topk == 1;
}

std::vector<ModelDrafter::Child> ModelDrafter::children_of(const Node& node) const {
  std::vector<Child> children;
  if (options_.shape) {
    const auto& shapes = options_.shape->nodes;
    for (const int shape : shapes[static_cast<std::size_t>(node.shape)].children)
      children.push_back({.rank = shapes[static_cast<std::size_t>(shape)].rank, .shape = shape});
  } else {
    for (int rank = 0; rank < options_.topk; ++rank) children.push_back({.rank = rank});
  }
  return children;
}

int ModelDrafter::max_nodes(int max_depth) const {
  if (options_.shape) return options_.shape->num_nodes(max_depth);
  return options_.topk == 1 ? max_depth : options_.num_draft_tokens;
}

int ModelDrafter::slots_needed(int max_depth) const {
  if (options_.shape) return 1 + max_nodes(max_depth);
  return 1 + std::max(max_nodes(max_depth), options_.topk * std::max(0, max_depth - 1));
}

void ModelDrafter::catch_up(std::span<ModelDraftSequence> sequences) {
  // Leaves each sequence with few enough pending rows that all of them fit one pass.
  const int share = std::max(1, model_.max_rows() / static_cast<int>(sequences.size()));
  for (std::size_t i = 0; i < sequences.size(); ++i) {
    ModelDraftSequence& sequence = sequences[i];
    while (static_cast<int>(sequence.tokens.size()) - sequence.draft_length > share) {
      const int count = std::min(
          model_.max_rows(), static_cast<int>(sequence.tokens.size()) - sequence.draft_length - 1);
      DraftRows rows{
          .sequence = static_cast<int>(i), .context_len = sequence.draft_length, .rows = {}};
      for (int j = 0; j < count; ++j) {
        const int position = sequence.draft_length + j;
        rows.rows.push_back({.token = sequence.tokens[static_cast<std::size_t>(position)],
                             .position = position,
                             .path_slots = {},
                             .wants_logits = false});
      }
      model_.forward({&rows, 1});
      sequence.draft_length += count;
    }
  }
}

void ModelDrafter::propose(std::span<ModelDraftSequence> sequences, GrowthControl* control) {
  if (sequences.empty()) return;
  catch_up(sequences);

  const std::size_t count = sequences.size();
  std::vector<Growth> growths(count);
  for (std::size_t i = 0; i < count; ++i) {
    const int root_slot = static_cast<int>(sequences[i].tokens.size()) - 1;
    growths[i].nodes.push_back({.token = sequences[i].tokens.back(), .slot = root_slot});
    growths[i].frontier = {0};
    growths[i].next_slot = root_slot + 1;
    growths[i].sequence = i;
    growths[i].control = control;
  }

  std::vector<DraftRows> batch;
  std::vector<std::pair<std::size_t, int>> expanded;  // (sequence, node) of each logits row
  for (int depth = 0;; ++depth) {
    batch.clear();
    expanded.clear();
    for (std::size_t i = 0; i < count; ++i) {
      const ModelDraftSequence& sequence = sequences[i];
      Growth& growth = growths[i];
      if (growth.frontier.empty() || depth >= sequence.max_depth) continue;
      const int root_slot = static_cast<int>(sequence.tokens.size()) - 1;
      DraftRows rows{.sequence = static_cast<int>(i), .context_len = 0, .rows = {}};
      if (depth == 0) {
        rows.context_len = sequence.draft_length;
        for (int position = sequence.draft_length; position <= root_slot; ++position)
          rows.rows.push_back({.token = sequence.tokens[static_cast<std::size_t>(position)],
                               .position = position,
                               .path_slots = {},
                               .wants_logits = position == root_slot});
        expanded.emplace_back(i, 0);
      } else {
        rows.context_len = root_slot + 1;
        for (const int node : growth.frontier) {
          growth.nodes[static_cast<std::size_t>(node)].slot = growth.next_slot++;
          DraftRow row{.token = growth.nodes[static_cast<std::size_t>(node)].token,
                       .position = root_slot + depth,
                       .path_slots = {},
                       .wants_logits = true};
          if (!is_chain()) {
            row.path_slots.resize(static_cast<std::size_t>(depth));
            int ancestor = node;
            for (auto it = row.path_slots.rbegin(); it != row.path_slots.rend(); ++it) {
              *it = growth.nodes[static_cast<std::size_t>(ancestor)].slot;
              ancestor = growth.nodes[static_cast<std::size_t>(ancestor)].parent;
            }
          }
          rows.rows.push_back(std::move(row));
          expanded.emplace_back(i, node);
        }
      }
      batch.push_back(std::move(rows));
    }
    if (batch.empty()) break;

    const std::span<const float> logits = model_.forward(batch);
    const std::size_t vocab = model_.tokens().empty()
                                  ? static_cast<std::size_t>(model_.vocab_size())
                                  : model_.tokens().size();
    for (Growth& growth : growths) growth.level_begin = static_cast<int>(growth.nodes.size());
    // Rows of one sequence stay on one thread: they append to the same tree.
    const int tasks = std::min(executor_.num_threads(), static_cast<int>(batch.size()));
    executor_.parallel_for(tasks, [&](int task) {
      for (std::size_t row = 0; row < expanded.size(); ++row) {
        const auto [i, node] = expanded[row];
        if (static_cast<int>(i) % tasks != task) continue;
        try {
          add_children(growths[i], sequences[i], node, logits.subspan(row * vocab, vocab),
                       samplers_[static_cast<std::size_t>(task)]);
        } catch (const Error&) {
          // Nothing can be drawn from this row (options that ban all that the draft knows), or the
          // grammar is past its limits: the node stays a leaf.
        }
      }
    });
    for (std::size_t i = 0; i < count; ++i)
      if (depth < sequences[i].max_depth) choose_frontier(growths[i]);
    if (control != nullptr && !go_on(growths, sequences, depth + 1, *control)) break;
  }
  for (std::size_t i = 0; i < count; ++i) finish(growths[i], sequences[i]);
}

bool ModelDrafter::go_on(std::span<const Growth> growths,
                         std::span<const ModelDraftSequence> sequences, int depth,
                         GrowthControl& control) const {
  std::vector<std::vector<float>> survivals(growths.size());
  std::vector<GrowthControl::Level> levels;
  for (std::size_t i = 0; i < growths.size(); ++i) {
    const Growth& growth = growths[i];
    for (const Node& node : std::span(growth.nodes).subspan(1))
      survivals[i].push_back(std::exp(node.log_survival));
    GrowthControl::Level level{.survivals = survivals[i]};
    if (depth < sequences[i].max_depth)
      for (const int node : growth.frontier) {
        level.best_frontier =
            std::max(level.best_frontier, survivals[i][static_cast<std::size_t>(node) - 1]);
        ++level.frontier_rows;
      }
    levels.push_back(level);
  }
  return control.go_on(depth, levels);
}

void ModelDrafter::add_children(Growth& growth, const ModelDraftSequence& sequence, int parent,
                                std::span<const float> logits, DraftSampler& sampler) const {
  Node& from = growth.nodes[static_cast<std::size_t>(parent)];
  const std::vector<Child> children = children_of(from);
  const std::vector<TokenId> path = growth.path_to(parent);
  RowContext row = sequence.row;
  row.path = path;
  row.position += from.depth;
  row.num_output_tokens += from.depth;
  GrammarMask allowed;
  if (sequence.grammar != nullptr) {
    from.grammar = parent == 0 ? *sequence.grammar
                               : growth.nodes[static_cast<std::size_t>(from.parent)].grammar;
    if (parent != 0 && !from.grammar->accept(from.token)) return;
    if (from.grammar->must_end()) return;  // nothing behind it would be kept
    allowed = from.grammar->mask();
    row.allowed = *allowed;
  }

  if (options_.sampled && row.options->temperature > 0) {
    const int budget = sequence.max_nodes - (static_cast<int>(growth.nodes.size()) - 1);
    if (budget <= 0 || children.empty()) return;
    std::vector<float> probs(static_cast<std::size_t>(model_.vocab_size()));
    sampler.probabilities(logits, row, probs);
    if (*std::max_element(probs.begin(), probs.end()) < options_.min_confidence) return;
    std::vector<TokenId> drawn;
    // Keyed by the step's first position and the node: no two draws of a run share a key.
    draw_draft_children(probs, row.seed, sequence.row.position, parent,
                        std::min(budget, static_cast<int>(children.size())), !is_chain(), drawn);
    for (std::size_t i = 0; i < drawn.size(); ++i)
      growth.add(drawn[i], parent, std::log(probs[static_cast<std::size_t>(drawn[i])]),
                 children[i].shape);
    growth.draft_probs.resize(growth.nodes.size());
    growth.draft_probs[static_cast<std::size_t>(parent)] = std::move(probs);
    return;
  }

  // Under noise a token's share is taken among the best few, at least four.
  constexpr int kShares = 4;
  const bool noisy = row.options->temperature > 0;
  std::vector<DraftCandidate> candidates;
  const int best = children.empty() ? 0 : children.back().rank + 1;
  sampler.coupled_candidates(logits, row, noisy ? std::max(kShares, best) : best, candidates);
  if (candidates.empty()) return;
  if (options_.min_confidence > 0 && sampler.confidence(logits, row) < options_.min_confidence)
    return;
  // Temperature 0: the draft's own probability. Else the noise has been drawn already, and what is
  // left to chance is how far the target's scores stray from these: a softmax over the perturbed
  // scores ranks that.
  float normaliser = 0;
  if (noisy) {
    for (const DraftCandidate& candidate : candidates)
      normaliser += row_math::exp_one(candidate.score - candidates.front().score);
    normaliser = candidates.front().score + static_cast<float>(fixed_log(normaliser));
  }
  for (const Child& child : children) {
    if (child.rank >= static_cast<int>(candidates.size())) break;
    const DraftCandidate& candidate = candidates[static_cast<std::size_t>(child.rank)];
    growth.add(candidate.token, parent, candidate.score - normaliser, child.shape);
  }
}

void ModelDrafter::choose_frontier(Growth& growth) const {
  growth.frontier.resize(growth.nodes.size() - static_cast<std::size_t>(growth.level_begin));
  std::iota(growth.frontier.begin(), growth.frontier.end(), growth.level_begin);
  if (options_.shape) {
    std::erase_if(growth.frontier, [&](int node) {
      return children_of(growth.nodes[static_cast<std::size_t>(node)]).empty();
    });
    return;
  }
  if (static_cast<int>(growth.frontier.size()) <= options_.topk) return;
  std::stable_sort(growth.frontier.begin(), growth.frontier.end(), [&](int a, int b) {
    return growth.nodes[static_cast<std::size_t>(a)].log_survival >
           growth.nodes[static_cast<std::size_t>(b)].log_survival;
  });
  growth.frontier.resize(static_cast<std::size_t>(options_.topk));
}

void ModelDrafter::finish(Growth& growth, ModelDraftSequence& sequence) const {
  const std::size_t count = growth.nodes.size();
  // Survival never rises along a path, and ties keep the parent (it comes first): the best nodes
  // are closed under parents.
  std::vector<int> order(count);
  std::iota(order.begin(), order.end(), 0);
  const auto keep = static_cast<std::size_t>(sequence.max_nodes) + 1;
  const bool sampled = options_.sampled && sequence.row.options->temperature > 0;
  if (count > keep && !sampled) {
    std::stable_sort(order.begin() + 1, order.end(), [&](int a, int b) {
      return growth.nodes[static_cast<std::size_t>(a)].log_survival >
             growth.nodes[static_cast<std::size_t>(b)].log_survival;
    });
    order.resize(keep);
    std::sort(order.begin(), order.end());
  }

  DraftTree& tree = *sequence.tree;
  std::vector<int> new_index(count, -1);
  new_index[0] = 0;
  sequence.draft_slots->assign(1, growth.nodes[0].slot);
  if (sequence.drafted != nullptr) sequence.drafted->assign(1, {});
  for (const int old : std::span(order).subspan(1)) {
    const Node& node = growth.nodes[static_cast<std::size_t>(old)];
    new_index[static_cast<std::size_t>(old)] =
        tree.add(node.token, new_index[static_cast<std::size_t>(node.parent)]);
    sequence.draft_slots->push_back(node.slot);
    if (sequence.drafted != nullptr) sequence.drafted->push_back(node.own);
  }
  if (sampled) {
    tree.sampling =
        is_chain() ? DraftSampling::with_replacement : DraftSampling::without_replacement;
    tree.draft_probs = std::move(growth.draft_probs);
    tree.draft_probs.resize(static_cast<std::size_t>(tree.size()));
  }
}

}  // namespace specdec
