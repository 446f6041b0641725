#include "engine/host_drafters.h"

#include <algorithm>
#include <exception>
#include <utility>

#include "draft/lookahead_drafter.h"
#include "draft/ngram_drafter.h"
#include "draft/suffix_drafter.h"
#include "engine/log.h"

namespace specdec {

namespace {

/// Whether a drafter's answer keeps the rules of Drafter.
bool is_valid(const DraftProposal& proposal, const DraftContext& limits, int vocab_size) {
  const std::span<const TokenId> tokens = proposal.tokens();
  const std::span<const int> parents = proposal.parents();
  if (static_cast<int>(tokens.size()) > limits.max_nodes) return false;
  std::vector<int> depths;
  for (std::size_t i = 0; i < tokens.size(); ++i) {
    const bool parent_known =
        parents[i] == DraftProposal::kRoot || (parents[i] >= 0 && parents[i] < static_cast<int>(i));
    if (!parent_known || tokens[i] < 0 || tokens[i] >= vocab_size) return false;
    depths.push_back(parents[i] < 0 ? 1 : depths[static_cast<std::size_t>(parents[i])] + 1);
    if (depths.back() > limits.max_depth) return false;
  }
  return std::ranges::all_of(proposal.watched(), [&](int node) {
    return node >= 0 && node < static_cast<int>(tokens.size());
  });
}

bool is_chain(const DraftProposal& proposal) {
  for (std::size_t i = 0; i < proposal.parents().size(); ++i)
    if (proposal.parents()[i] != static_cast<int>(i) - 1) return false;
  return true;
}

/// Adds one drafter's tree. A draft that was drawn at random takes no strangers: its tokens must
/// come from the distributions that it names.
void add_tree(const DraftProposal& proposal, int drafter, const DraftPacing& pacing,
              Sequence& sequence) {
  DraftTree& tree = sequence.tree;
  if (tree.sampling != DraftSampling::deterministic) return;
  std::vector<int> nodes;  // of the tree, for each token of the proposal; -1: left out
  for (std::size_t i = 0; i < proposal.tokens().size(); ++i) {
    const int above = proposal.parents()[i];
    const int parent = above < 0 ? 0 : nodes[static_cast<std::size_t>(above)];
    int node = parent < 0 ? -1 : tree.find_child(parent, proposal.tokens()[i]);
    if (parent >= 0 && node < 0 && tree.num_draft_tokens() < sequence.draft_nodes) {
      node = tree.add(proposal.tokens()[i], parent);
      NodeOrigin origin{.drafter = drafter, .confidence = proposal.confidences()[i]};
      origin.estimate = pacing.estimate(drafter, origin.confidence);
      origin.survival =
          sequence.origins[static_cast<std::size_t>(parent)].survival * origin.estimate;
      sequence.origins.push_back(origin);
      if (!sequence.draft_slots.empty()) sequence.draft_slots.push_back(-1);
    }
    nodes.push_back(node);
  }
  for (std::size_t i = 0; i < proposal.watched().size(); ++i) {
    const int node = nodes[static_cast<std::size_t>(proposal.watched()[i])];
    if (node < 0) continue;
    NodeOrigin& origin = sequence.origins[static_cast<std::size_t>(node)];
    if (origin.watcher != 0) continue;  // another drafter was first
    origin.watcher = drafter;
    origin.watched = static_cast<int>(i);
  }
}

}  // namespace

DraftContext context_of(const Sequence& sequence, bool chain_only) {
  return {.id = sequence.id,
          .tokens = sequence.tokens,
          .num_prompt_tokens = sequence.num_prompt_tokens,
          .max_depth = sequence.draft_depth,
          .max_nodes = sequence.draft_nodes,
          .chain_only = chain_only,
          .sampling = &sequence.request.sampling,
          .cache_salt = sequence.request.cache_salt};
}

HostDrafters::HostDrafters(const DraftConfig& config, int vocab_size) : vocab_size_(vocab_size) {
  add(std::make_unique<NgramDrafter>(config.ngram));
  add(std::make_unique<SuffixDrafter>(config.suffix));
  add(std::make_unique<LookaheadDrafter>(config.lookahead));
}

void HostDrafters::add(std::unique_ptr<Drafter> drafter) {
  const std::lock_guard lock(mutex_);
  drafters_.push_back({.drafter = std::move(drafter)});
}

bool HostDrafters::knows(std::string_view name) const {
  const std::lock_guard lock(mutex_);
  return std::any_of(drafters_.begin(), drafters_.end(),
                     [&](const HostDrafter& host) { return host.drafter->name() == name; });
}

std::vector<std::string> HostDrafters::names() const {
  const std::lock_guard lock(mutex_);
  std::vector<std::string> names;
  for (const HostDrafter& host : drafters_) names.emplace_back(host.drafter->name());
  return names;
}

void HostDrafters::complain(HostDrafter& host, std::string_view fault) {
  const auto level = host.complained ? spdlog::level::debug : spdlog::level::warn;
  logger()->log(level, "drafter {} {}: decoding plainly", host.drafter->name(), fault);
  host.complained = true;
}

void HostDrafters::propose(int index, std::span<Sequence* const> sequences, bool chain_only) {
  HostDrafter& host = drafters_[static_cast<std::size_t>(index)];
  if (sequences.empty()) return;
  std::vector<DraftContext> contexts;
  for (const Sequence* sequence : sequences) contexts.push_back(context_of(*sequence, chain_only));
  std::vector<DraftProposal> proposals(sequences.size());
  try {
    host.drafter->propose(contexts, proposals);
  } catch (const std::exception& error) {
    complain(host, std::string("threw ") + error.what());
    return;
  }
  for (std::size_t i = 0; i < sequences.size(); ++i) {
    if (is_valid(proposals[i], contexts[i], vocab_size_) &&
        !(contexts[i].chain_only && !is_chain(proposals[i])))
      sequences[i]->host_drafts.emplace_back(index + 1, std::move(proposals[i]));
    else
      complain(host, "proposed a tree outside its limits");
  }
}

void HostDrafters::graft(Sequence& sequence, const DraftPacing& pacing) {
  for (const auto& [drafter, proposal] : sequence.host_drafts)
    add_tree(proposal, drafter, pacing, sequence);
}

void HostDrafters::tell_watchers(const Sequence& sequence) {
  if (sequence.output.finished()) return;
  for (const auto& [drafter, proposal] : sequence.host_drafts) {
    if (proposal.watched().empty()) continue;
    std::vector<TokenId> answers(proposal.watched().size(), Drafter::kNoAnswer);
    for (const NodeOrigin& origin : sequence.origins)
      if (origin.watcher == drafter)
        answers[static_cast<std::size_t>(origin.watched)] = origin.answer;
    HostDrafter& host = drafters_[static_cast<std::size_t>(drafter - 1)];
    try {
      host.drafter->watched(sequence.id, answers);
    } catch (const std::exception& error) {
      complain(host, std::string("threw in watched(): ") + error.what());
    }
  }
}

void HostDrafters::finished(RequestId id) {
  for (HostDrafter& host : drafters_) {
    try {
      host.drafter->finished(id);
    } catch (const std::exception& error) {
      complain(host, std::string("threw in finished(): ") + error.what());
    }
  }
}

}  // namespace specdec
