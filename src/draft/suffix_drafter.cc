#include "draft/suffix_drafter.h"

#include <algorithm>
#include <queue>

namespace specdec {

namespace {

using Occurrence = SuffixIndex::Occurrence;

/// A token that may follow: the places where it did.
struct Candidate {
  double probability = 0;  // of the path down to it
  float confidence = 0;    // of the token after its parent
  int parent = DraftProposal::kRoot;
  int depth = 1;
  TokenId token = 0;
  std::vector<std::int32_t> places = {};  // index of the token in each

  bool operator<(const Candidate& other) const { return probability < other.probability; }
};

/// The tokens that stand at `places`, by frequency.
std::vector<Candidate> branches(const SuffixIndex& index, std::span<const std::int32_t> places,
                                const Candidate& parent, int parent_node, int match) {
  std::vector<Candidate> found;
  for (const std::int32_t place : places) {
    const TokenId token = index.token(place);
    if (token < 0) continue;
    auto it = std::find_if(found.begin(), found.end(),
                           [token](const Candidate& known) { return known.token == token; });
    if (it == found.end()) {
      found.push_back({.parent = parent_node, .depth = parent.depth + 1, .token = token});
      it = found.end() - 1;
    }
    it->places.push_back(place);
  }
  // Equal shares of few places say less than of many, and a short match less than a long one.
  const auto context = static_cast<float>(match + parent.depth);
  const float trust = context / (context + 1.0f);
  for (Candidate& candidate : found) {
    const float share =
        static_cast<float>(candidate.places.size()) / static_cast<float>(places.size());
    candidate.confidence = trust * share;
    candidate.probability = parent.probability * static_cast<double>(candidate.confidence);
  }
  return found;
}

SuffixDraft grow(const SuffixIndex& index, std::vector<std::int32_t> places, int match,
                 int max_depth, int max_nodes, bool chain, const SuffixConfig& options) {
  SuffixDraft draft;
  std::priority_queue<Candidate> open;
  const auto expand = [&](const Candidate& from, std::span<const std::int32_t> at, int node) {
    if (from.depth >= max_depth) return;
    std::vector<Candidate> next = branches(index, at, from, node, match);
    if (chain && next.size() > 1) {
      std::swap(next.front(), *std::max_element(next.begin(), next.end()));
      next.resize(1);
    }
    for (Candidate& candidate : next)
      if (candidate.probability >= static_cast<double>(options.min_token_prob))
        open.push(std::move(candidate));
  };
  expand({.probability = 1, .depth = 0}, places, DraftProposal::kRoot);
  while (!open.empty() && static_cast<int>(draft.proposal.tokens().size()) < max_nodes) {
    const Candidate best = open.top();
    open.pop();
    const int node = draft.proposal.add(best.token, best.parent, best.confidence);
    draft.score += best.probability;
    places = best.places;
    for (std::int32_t& place : places) ++place;
    expand(best, places, node);
  }
  return draft;
}

}  // namespace

SuffixDraft suffix_draft(const SuffixIndex& index, std::span<const TokenId> context, int max_depth,
                         int max_nodes, bool chain, const SuffixConfig& options) {
  std::vector<Occurrence> occurrences;
  index.find(context, options.max_tree_depth, occurrences);
  std::stable_sort(occurrences.begin(), occurrences.end(),
                   [](const Occurrence& a, const Occurrence& b) { return a.match > b.match; });
  SuffixDraft best;
  std::vector<std::int32_t> places;
  for (std::size_t i = 0; i < occurrences.size(); ++i) {
    places.push_back(occurrences[i].end);
    const int match = occurrences[i].match;
    if (i + 1 < occurrences.size() && occurrences[i + 1].match == match) continue;
    const int most =
        std::min(max_nodes, static_cast<int>(options.max_spec_factor * static_cast<float>(match)) +
                                options.max_spec_offset);
    SuffixDraft draft = grow(index, places, match, max_depth, most, chain, options);
    if (draft.score > best.score) best = std::move(draft);
  }
  return best;
}

void SuffixDrafter::propose(std::span<const DraftContext> contexts,
                            std::span<DraftProposal> proposals) {
  for (std::size_t i = 0; i < contexts.size(); ++i) {
    const DraftContext& context = contexts[i];
    Request& request = requests_[context.id];
    request.salt = context.cache_salt;
    request.num_prompt_tokens = context.num_prompt_tokens;
    for (auto t = static_cast<std::size_t>(request.index.size()); t < context.tokens.size(); ++t)
      request.index.append(context.tokens[t]);

    SuffixDraft best = suffix_draft(request.index, context.tokens, context.max_depth,
                                    context.max_nodes, context.chain_only, options_);
    auto used = segments_.end();
    for (auto segment = segments_.begin(); segment != segments_.end(); ++segment) {
      if (segment->salt != context.cache_salt) continue;
      SuffixDraft draft = suffix_draft(segment->index, context.tokens, context.max_depth,
                                       context.max_nodes, context.chain_only, options_);
      if (draft.score <= best.score) continue;
      best = std::move(draft);
      used = segment;
    }
    if (used != segments_.end()) segments_.splice(segments_.begin(), segments_, used);
    proposals[i] = std::move(best.proposal);
  }
}

void SuffixDrafter::finished(RequestId id) {
  const auto found = requests_.find(id);
  if (found == requests_.end()) return;
  remember(found->second);
  requests_.erase(found);
}

void SuffixDrafter::remember(const Request& request) {
  if (options_.cache_mb == 0) return;
  // An eighth of the budget: what is dropped at once is that much.
  const std::size_t budget = static_cast<std::size_t>(options_.cache_mb) << 20U;
  auto segment = std::find_if(segments_.begin(), segments_.end(), [&](const Segment& known) {
    return known.salt == request.salt && known.index.bytes() < budget / 8;
  });
  if (segment == segments_.end()) {
    segments_.push_front({.salt = request.salt, .index = {}});
    segment = segments_.begin();
  }
  for (int i = request.num_prompt_tokens; i < request.index.size(); ++i)
    segment->index.append(request.index.token(i));
  segment->index.end_document();
  segments_.splice(segments_.begin(), segments_, segment);
  while (cached_bytes() > budget && segments_.size() > 1) segments_.pop_back();
}

std::size_t SuffixDrafter::cached_bytes() const noexcept {
  constexpr std::size_t kOverhead = 256;  // of an empty segment: salts cost something too
  std::size_t bytes = 0;
  for (const Segment& segment : segments_)
    bytes += segment.index.bytes() + segment.salt.size() + kOverhead;
  return bytes;
}

}  // namespace specdec
