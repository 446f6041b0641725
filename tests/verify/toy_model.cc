#include "toy_model.h"

#include <algorithm>
#include <cmath>
#include <random>

namespace specdec::toy {

std::string name(Kind kind) {
  constexpr const char* kNames[] = {"random",   "near_equal", "equal",      "peaked",
                                    "disjoint", "zeros",      "flat_draft", "flat_target"};
  return kNames[static_cast<int>(kind)];
}

std::string to_string(const Shape& shape) {
  std::string text;
  for (const int width : shape) {
    if (!text.empty()) text += 'x';
    text += std::to_string(width);
  }
  return text;
}

std::size_t Model::code(std::span<const TokenId> prefix) const {
  std::size_t result = 0;
  for (const TokenId token : prefix) result = extend(result, token);
  return result;
}

const Model::Pair& Model::at(std::size_t prefix_code) const {
  if (prefix_code >= known_.size()) known_.resize(prefix_code + 1);
  std::unique_ptr<Pair>& pair = known_[prefix_code];
  if (!pair) {
    pair = std::make_unique<Pair>();
    pair->target = make(prefix_code, false);
    pair->draft = make(prefix_code, true);
    for (const float prob : pair->target) pair->logits.push_back(std::log(prob));
  }
  return *pair;
}

namespace {

Dist from_weights(std::vector<double> weights) {
  double total = 0;
  for (const double weight : weights) total += weight;
  Dist dist;
  int left = 1024;
  for (const double weight : weights) {
    const int parts = std::min(left, static_cast<int>(std::lround(1024 * weight / total)));
    dist.push_back(static_cast<float>(parts) / 1024);
    left -= parts;
  }
  *std::max_element(dist.begin(), dist.end()) += static_cast<float>(left) / 1024;
  return dist;
}

}  // namespace

Dist Model::make(std::size_t prefix_code, bool is_draft) const {
  std::mt19937 random(salt * 2654435761u + 17 + static_cast<std::uint32_t>(prefix_code));
  const auto uniform = [&] { return static_cast<double>(random() % 1000 + 1) / 1000; };
  std::vector<double> target_weights;
  std::vector<double> draft_weights;
  for (int i = 0; i < vocab; ++i) {
    target_weights.push_back(uniform());
    draft_weights.push_back(uniform());
  }
  const std::size_t one = random() % static_cast<std::size_t>(vocab);
  const std::size_t two = random() % static_cast<std::size_t>(vocab);
  for (std::size_t i = 0; i < target_weights.size(); ++i) {
    double& t = target_weights[i];
    double& d = draft_weights[i];
    switch (kind) {
      case Kind::random:
        break;
      case Kind::near_equal:
        d = t * (1 + 0.1 * d);
        break;
      case Kind::equal:
        d = t;
        break;
      case Kind::peaked:
        t = i == one ? 20 : t;
        d = i == two ? 20 : d;
        break;
      case Kind::disjoint:
        (i % 2 == 0 ? d : t) = 0;
        break;
      case Kind::zeros:
        if (i == one) t = 0;
        if (i == (one + 1) % target_weights.size()) d = 0;
        break;
      case Kind::flat_draft:
        d = 1;
        t = t * t * t;
        break;
      case Kind::flat_target:
        t = 1;
        d = d * d * d;
        break;
    }
  }
  return from_weights(is_draft ? draft_weights : target_weights);
}

Prefix prefix_of(const DraftTree& tree, int node) {
  Prefix prefix;
  for (const std::int32_t step : tree.path_to(node)) {
    if (step != 0) prefix.push_back(tree.tokens[static_cast<std::size_t>(step)]);
  }
  return prefix;
}

namespace {

std::vector<TokenId> most_likely(const Dist& dist, int count) {
  std::vector<TokenId> order(dist.size());
  for (std::size_t i = 0; i < order.size(); ++i) order[i] = static_cast<TokenId>(i);
  std::stable_sort(order.begin(), order.end(),
                   [&](TokenId a, TokenId b) { return dist[a] > dist[b]; });
  order.resize(std::min(order.size(), static_cast<std::size_t>(count)));
  return order;
}

}  // namespace

DraftTree draw_tree(const Model& model, const Shape& shape, DraftSampling sampling,
                    std::uint64_t seed, std::int64_t position, const Prefix& committed) {
  DraftTree tree;
  tree.sampling = sampling;
  std::vector<std::size_t> codes{model.code(committed)};
  for (int node = 0; node < tree.size(); ++node) {
    const int depth = tree.depths[node];
    if (sampling != DraftSampling::deterministic) tree.draft_probs.emplace_back();
    if (node > 0) {
      codes.push_back(
          model.extend(codes[static_cast<std::size_t>(tree.parents[node])], tree.tokens[node]));
    }
    if (depth == static_cast<int>(shape.size())) continue;
    const Dist& dist = model.at(codes.back()).draft;
    std::vector<TokenId> children;
    if (sampling == DraftSampling::deterministic) {
      children = most_likely(dist, shape[depth]);
    } else {
      draw_draft_children(dist, seed, position, node, shape[depth],
                          sampling == DraftSampling::without_replacement, children);
      tree.draft_probs[node] = dist;
    }
    for (const TokenId token : children) tree.add(token, node);
  }
  return tree;
}

std::vector<WeightedTree> all_trees(const Model& model, const Shape& shape,
                                    DraftSampling sampling) {
  std::vector<WeightedTree> result;
  // `node` is next to get children; `left` of them are still to be drawn.
  const auto grow = [&](const auto& self, const DraftTree& tree, double weight, int node,
                        int left) -> void {
    if (node == tree.size()) {
      result.push_back({tree, weight});
      return;
    }
    const int depth = tree.depths[node];
    const int width = depth < static_cast<int>(shape.size()) ? shape[depth] : 0;
    if (left < 0) left = width;
    if (left == 0) return self(self, tree, weight, node + 1, -1);
    const Dist& dist = model.draft(prefix_of(tree, node));
    if (sampling == DraftSampling::deterministic) {
      DraftTree next = tree;
      for (const TokenId token : most_likely(dist, width)) next.add(token, node);
      return self(self, next, weight, node + 1, -1);
    }
    double total = 0;
    std::vector<double> rest(dist.begin(), dist.end());
    if (sampling == DraftSampling::without_replacement) {
      for (int child = node + 1; child < tree.size(); ++child) {
        if (tree.parents[child] == node) rest[tree.tokens[child]] = 0;
      }
    }
    for (const double value : rest) total += value;
    if (total == 0) return self(self, tree, weight, node + 1, -1);
    for (TokenId token = 0; token < model.vocab; ++token) {
      if (rest[token] == 0) continue;
      DraftTree next = tree;
      next.add(token, node);
      self(self, next, weight * rest[token] / total, node, left - 1);
    }
  };
  DraftTree root;
  root.sampling = sampling;
  grow(grow, root, 1.0, 0, -1);
  if (sampling != DraftSampling::deterministic) {
    for (WeightedTree& item : result) {
      item.tree.draft_probs.resize(item.tree.tokens.size());
      for (int node = 0; node < item.tree.size(); ++node) {
        if (item.tree.depths[node] < static_cast<int>(shape.size())) {
          item.tree.draft_probs[node] = model.draft(prefix_of(item.tree, node));
        }
      }
    }
  }
  return result;
}

ToyRows::ToyRows(const Model& model, const DraftTree& tree, std::uint64_t seed,
                 std::int64_t position, const Prefix& committed)
    : model_(model), tree_(tree), seed_(seed), position_(position), codes_(tree.tokens.size()) {
  codes_[0] = model.code(committed);
  for (std::size_t node = 1; node < codes_.size(); ++node) {
    const auto parent = static_cast<std::size_t>(tree.parents[node]);
    codes_[node] = model.extend(codes_[parent], tree.tokens[node]);
  }
}

OutputToken ToyRows::sample(int node) {
  static const SamplingOptions kOptions{.temperature = 1.0f};
  static RowSampler sampler(model_.vocab);
  static int sampler_vocab = model_.vocab;
  if (sampler_vocab != model_.vocab) {
    sampler = RowSampler(model_.vocab);
    sampler_vocab = model_.vocab;
  }
  RowContext context;
  context.options = &kOptions;
  context.seed = seed_;
  context.position = position_ + tree_.depths[static_cast<std::size_t>(node)];
  return sampler.sample(model_.at(codes_[static_cast<std::size_t>(node)]).logits, context);
}

void ToyRows::probabilities(int node, std::span<float> out) {
  const Dist& dist = model_.at(codes_[static_cast<std::size_t>(node)]).target;
  std::copy(dist.begin(), dist.end(), out.begin());
}

void ToyRows::fill_logprobs(int node, OutputToken& token) {
  token.logprob = model_.at(codes_[static_cast<std::size_t>(node)])
                      .logits[static_cast<std::size_t>(token.token)];
}

}  // namespace specdec::toy
