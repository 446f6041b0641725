#include "engine/draft_pacing.h"

#include <algorithm>
#include <functional>

namespace specdec {

namespace {

constexpr int kModel = 0;

}  // namespace

void DraftPacing::set_costs(VerifyCost verify, CostCurve draft, CostCurve returns) {
  verify_cost_ = std::move(verify);
  draft_cost_ = std::move(draft);
  return_cost_ = std::move(returns);
  adaptive_ = true;
}

Calibration& DraftPacing::calibration(int drafter) {
  const auto at = static_cast<std::size_t>(drafter);
  if (calibrations_.size() <= at) calibrations_.resize(at + 1);
  return calibrations_[at];
}

bool DraftPacing::may_pay(const Sequence& sequence, int count) const {
  // Four of five tokens right at every depth: few texts are drafted better than that.
  constexpr double kGoodDraft = 0.8;
  VerifyCost verify = verify_cost_;
  verify.set_run(0);
  CostCurve draft = draft_cost_;
  const double tokens = static_cast<double>(count) * sequence.size();
  verify.set_context(count, tokens);
  draft.set_context(count, tokens);
  return !adaptive_ || verify(count) <= 0 ||
         choose_depth(DraftHistory(), sequence.max_draft, count, 0, count, verify, draft,
                      kGoodDraft)
                 .count > 0;
}

bool DraftPacing::pays_to_return(const Sequence& sequence, int count, int depth, int missed) const {
  const int left = sequence.request.sampling.max_tokens - sequence.num_output();
  if (!adaptive_) return may_return(missed, left);
  const double plain = verify_cost_(count);
  const NodeChoice with_head =
      choose_depth(sequence.history, depth, count, 0, count, verify_cost_, draft_cost_);
  // Seconds of the batch's time that a token takes: other drafters may do well without the head.
  const double emitted = std::max(1.0, sequence.stats.speculation.mean_acceptance_length());
  const double without = plain / (count * emitted);
  CostCurve again = return_cost_;
  again.set_context(1, sequence.size() - 0.5 * missed);
  return std::min(left, kStretch) * (without - 1 / with_head.goodput) > again(missed);
}

void DraftPacing::begin(std::span<Sequence* const> batch) {
  base_rows_ = 0;
  emitters_ = 0;
  draft_spent_ = 0;
  model_sequences_.clear();
  double context = 0;
  for (Sequence* sequence : batch) {
    context += sequence->kv.length(KvPool::target);
    base_rows_ += sequence->num_known;
    emitters_ += sequence->samples ? 1 : 0;
    sequence->probes = false;
  }
  verify_cost_.set_run(0);
  verify_cost_.set_context(static_cast<int>(batch.size()), context);
  draft_cost_.set_context(static_cast<int>(batch.size()), context);
  const double plain = verify_cost_(static_cast<int>(emitters_));
  prompt_cost_ = verify_cost_(base_rows_) - plain;
  token_cost_ = plain / std::max(1.0, emitters_);
  if (emitters_ > 0) probe_budget_.earn(plain);
}

int DraftPacing::first_depth(Sequence& sequence, int count, int rows) {
  if (!adaptive_) return sequence.draft_depth;
  const NodeChoice with_model = choose_depth(sequence.history, sequence.draft_depth, count,
                                             -prompt_cost_, base_rows_, verify_cost_, draft_cost_);
  std::vector<float> hosts;
  for (const auto& [drafter, proposal] : sequence.host_drafts) {
    const std::vector<float> part = survivals(proposal, drafter);
    hosts.insert(hosts.end(), part.begin(), part.end());
  }
  std::sort(hosts.begin(), hosts.end(), std::greater<>());
  const NodeChoice without =
      choose_nodes(hosts, emitters_, -prompt_cost_, base_rows_, verify_cost_);
  if (with_model.count > 0) {
    sequence.history.paid();
    return without.count > 0 && without.goodput * count >= with_model.goodput * emitters_
               ? 0
               : with_model.count;
  }
  sequence.probes = sequence.history.probe(probe_budget_.allows());
  if (!sequence.probes) return 0;
  probe_budget_.spend(draft_cost_.cold() + draft_cost_(rows) + verify_cost_(base_rows_ + 1) -
                      verify_cost_(base_rows_));
  return std::min(2, sequence.draft_depth);
}

std::vector<float> DraftPacing::survivals(const DraftProposal& proposal, int drafter) const {
  std::vector<float> values;
  for (std::size_t i = 0; i < proposal.tokens().size(); ++i) {
    const int parent = proposal.parents()[i];
    values.push_back(estimate(drafter, proposal.confidences()[i]) *
                     (parent < 0 ? 1.0f : values[static_cast<std::size_t>(parent)]));
  }
  return values;
}

void DraftPacing::begin_model(std::span<Sequence* const> sequences, int rows) {
  model_sequences_.assign(sequences.begin(), sequences.end());
  draft_spent_ = draft_cost_.cold() + draft_cost_(rows);
  verify_cost_.set_run(static_cast<int>(sequences.size()));  // their roots
}

float DraftPacing::estimate(std::size_t sequence, float confidence) const {
  const double bias = model_sequences_[sequence]->history.bias();
  return calibrations_.empty()
             ? confidence
             : static_cast<float>(calibrations_[kModel].estimate(confidence, bias));
}

float DraftPacing::estimate(int drafter, float confidence) const {
  const auto at = static_cast<std::size_t>(drafter);
  return calibrations_.size() <= at ? confidence
                                    : static_cast<float>(calibrations_[at].estimate(confidence, 0));
}

bool DraftPacing::go_on(int depth, std::span<const Level> levels) {
  if (!adaptive_) return true;
  std::vector<float> now;
  std::vector<float> then;
  int rows = 0;
  for (std::size_t i = 0; i < levels.size(); ++i) {
    const Level& level = levels[i];
    now.insert(now.end(), level.survivals.begin(), level.survivals.end());
    if (level.frontier_rows == 0) continue;
    const double next = model_sequences_[i]->history.expected(depth + 1);
    then.push_back(level.best_frontier * static_cast<float>(next));
    rows += level.frontier_rows;
  }
  if (rows == 0) return false;
  then.insert(then.end(), now.begin(), now.end());
  std::sort(now.begin(), now.end(), std::greater<>());
  std::sort(then.begin(), then.end(), std::greater<>());
  const double more = draft_cost_(rows);
  const double spent = draft_spent_ - prompt_cost_;
  const double here = choose_nodes(now, emitters_, spent, base_rows_, verify_cost_).goodput;
  const int run = verify_cost_.run();
  verify_cost_.set_run(run + rows);
  const double there =
      choose_nodes(then, emitters_, spent + more, base_rows_, verify_cost_).goodput;
  if (there <= here) {
    verify_cost_.set_run(run);
    return false;
  }
  draft_spent_ += more;
  return true;
}

void DraftPacing::end_model(double seconds) {
  if (adaptive_) draft_cost_.follow(draft_spent_, seconds);
}

void DraftPacing::drafted(int passes, int rows, double seconds) {
  draft_spent_ = draft_cost_.cold() + passes * draft_cost_(rows);
  end_model(seconds);
}

void DraftPacing::keep_watched(Sequence& sequence, std::vector<bool>& keep) const {
  std::vector<bool> window(keep.size());  // watched nodes and those above them
  int watcher = 0;
  for (std::size_t node = keep.size(); --node > 0;) {
    if (sequence.origins[node].watcher != 0) {
      window[node] = true;
      watcher = sequence.origins[node].watcher;
    }
    if (window[node]) window[static_cast<std::size_t>(sequence.tree.parents[node])] = true;
  }
  const auto rows = static_cast<int>(std::count(window.begin() + 1, window.end(), true));
  sequence.window_of = 0;
  if (rows == 0) return;
  const double plain = verify_cost_(base_rows_);
  const double cost =
      emitters_ * (verify_cost_(base_rows_ + rows) - plain) / (plain - prompt_cost_);
  if (!sequence.window.open(cost)) return;
  sequence.window_of = watcher;
  for (std::size_t node = 1; node < keep.size(); ++node)
    if (window[node]) keep[node] = true;
}

void DraftPacing::trim(std::span<Sequence* const> batch) const {
  if (!adaptive_) return;
  struct Candidate {
    float survival;
    std::size_t sequence;
    std::size_t node;
  };
  std::vector<Candidate> candidates;
  std::vector<std::vector<bool>> keep(batch.size());
  int base_rows = base_rows_;
  for (std::size_t i = 0; i < batch.size(); ++i) {
    Sequence& sequence = *batch[i];
    keep[i].resize(static_cast<std::size_t>(sequence.tree.size()));
    keep[i][0] = true;
    if (sequence.tree.sampling != DraftSampling::deterministic) {
      base_rows += sequence.tree.num_draft_tokens();  // what is drawn is kept
      continue;
    }
    keep_watched(sequence, keep[i]);
    for (std::size_t node = 1; node < sequence.origins.size(); ++node) {
      if (keep[i][node])
        ++base_rows;
      else
        candidates.push_back({sequence.origins[node].survival, i, node});
    }
  }
  if (candidates.empty()) return;
  // Survival never rises along a path, and the sort is stable: what is kept is closed under
  // parents.
  std::stable_sort(candidates.begin(), candidates.end(),
                   [](const Candidate& a, const Candidate& b) { return a.survival > b.survival; });
  std::vector<float> survivals;
  for (const Candidate& candidate : candidates) survivals.push_back(candidate.survival);
  const int count =
      choose_nodes(survivals, emitters_, draft_spent_ - prompt_cost_, base_rows, verify_cost_)
          .count;
  for (const Candidate& candidate : std::span(candidates).first(static_cast<std::size_t>(count)))
    keep[candidate.sequence][candidate.node] = true;
  for (std::size_t i = 0; i < batch.size(); ++i) {
    Sequence& sequence = *batch[i];
    if (sequence.tree.sampling != DraftSampling::deterministic) continue;
    // A probe verifies its first token whatever is expected of it.
    if (sequence.probes && keep[i].size() > 1) keep[i][1] = true;
    sequence.retain_nodes(keep[i]);
  }
}

void DraftPacing::verified(std::span<Sequence* const> batch, double seconds) {
  if (!adaptive_) return;
  int rows = base_rows_;
  int run = 0;
  for (const Sequence* sequence : batch) {
    rows += sequence->tree.num_draft_tokens();
    run += sequence->num_resumed;
  }
  // Rows of a prompt say little about verification.
  if (base_rows_ != static_cast<int>(emitters_)) return;
  return_cost_.follow(verify_cost_(rows, run), seconds);  // too rare to show for itself
  verify_cost_.follow_pass(rows, run, seconds);
}

void DraftPacing::learn(Sequence& sequence) {
  const DraftTree& tree = sequence.tree;
  if (!sequence.samples || sequence.output.finished() || tree.num_draft_tokens() == 0) return;
  const std::vector<std::int32_t>& path = sequence.path.nodes;
  std::vector<bool> accepted(static_cast<std::size_t>(tree.size()));
  for (const std::int32_t node : path) accepted[static_cast<std::size_t>(node)] = true;
  const std::size_t length = path.size();  // of the path, the root included
  if (sequence.probes) probe_budget_.regain(static_cast<double>(length - 1) * token_cost_);
  if (sequence.window_of != 0)
    sequence.window.observe(static_cast<int>(std::ranges::count_if(path, [&](std::int32_t node) {
      return sequence.origins[static_cast<std::size_t>(node)].drafter == sequence.window_of;
    })));
  std::vector<bool> tried(length + 1);  // by depth: the model had a token there
  for (std::size_t node = 1; node < accepted.size(); ++node) {
    if (!accepted[static_cast<std::size_t>(tree.parents[node])]) continue;
    const NodeOrigin& origin = sequence.origins[node];
    if (origin.drafter == NodeOrigin::kGrammar) continue;
    calibration(origin.drafter).observe(origin.confidence, accepted[node]);
    if (origin.drafter != kModel) continue;
    sequence.history.observe_node(static_cast<double>(origin.estimate), accepted[node]);
    tried[static_cast<std::size_t>(tree.depths[node])] = true;
  }
  for (std::size_t depth = 1; depth < tried.size(); ++depth)
    if (tried[depth]) sequence.history.observe_depth(static_cast<int>(depth), depth < length);
}

}  // namespace specdec
