#include "engine/step.h"

#include <algorithm>
#include <exception>

#include "engine/constrain.h"
#include "engine/model/row_buffers.h"
#include "engine/settle.h"
#include "engine/step_sampler.h"
#include "sampling/mutation.h"
#include "specdec/error.h"

namespace specdec {

namespace {

/// The target's rows at the nodes of one sequence's tree.
class LogitsRows final : public TargetRows {
 public:
  LogitsRows(const Sequence& sequence, std::span<const float> logits, int vocab_size,
             RowSampler& sampler)
      : sequence_(sequence), logits_(logits), vocab_size_(vocab_size), sampler_(sampler) {}

  int vocab_size() const override { return vocab_size_; }
  OutputToken sample(int node) override { return sampler_.sample(row(node), context(node)); }
  void probabilities(int node, std::span<float> out) override {
    sampler_.probabilities(row(node), context(node), out);
  }
  void fill_logprobs(int node, OutputToken& token) override {
    sampler_.fill_logprobs(row(node), context(node), token);
  }

 private:
  std::span<const float> row(int node) const {
    const auto vocab = static_cast<std::size_t>(vocab_size_);
    return logits_.subspan(static_cast<std::size_t>(sequence_.first_output + node) * vocab, vocab);
  }
  /// Everything that a draw at `node` depends on: the committed state plus the path to the node.
  const RowContext& context(int node) {
    path_.clear();
    for (int at = node; at > 0; at = sequence_.tree.parents[static_cast<std::size_t>(at)])
      path_.push_back(sequence_.tree.tokens[static_cast<std::size_t>(at)]);
    std::reverse(path_.begin(), path_.end());
    const int depth = static_cast<int>(path_.size());
    if (sequence_.grammar) follow_grammar(static_cast<std::size_t>(node));
    context_ = {.options = &sequence_.request.sampling,
                .seed = sequence_.seed,
                .position = sequence_.size() + depth,
                .penalties = &sequence_.penalties,
                .path = path_,
                .num_output_tokens = sequence_.num_output() + depth,
                .end_tokens = sequence_.end_tokens,
                .allowed = mask_ ? std::span<const std::uint64_t>(*mask_)
                                 : std::span<const std::uint64_t>()};
    return context_;
  }
  /// The node's mask. There is none behind the grammar's end, where nothing is kept; and where it
  /// was past the grammar's limits, this throws what that was.
  void follow_grammar(std::size_t node) {
    mask_ = sequence_.node_masks[node];
    const GrammarMatcher& grammar = sequence_.node_grammar[node];
    if (!mask_ && (node == 0 || !grammar.must_end())) mask_ = grammar.mask();
  }

  const Sequence& sequence_;
  std::span<const float> logits_;
  int vocab_size_;
  RowSampler& sampler_;
  std::vector<TokenId> path_;
  GrammarMask mask_;  // null: every token
  RowContext context_;
};

/// Adds the seconds since its construction to a stage's total.
class StageTimer {
 public:
  explicit StageTimer(double& total) : total_(total) {}
  ~StageTimer() { total_ += std::chrono::duration<double>(Clock::now() - begin_).count(); }

 private:
  double& total_;
  Clock::time_point begin_ = Clock::now();
};

}  // namespace

Step::Step(const StepParts& parts)
    : parts_(parts),
      verify_{.method = *parse_verify_method(parts.config.verify.method),
              .typical_epsilon = parts.config.verify.typical_epsilon,
              .typical_delta = parts.config.verify.typical_delta},
      forced_text_(parts.tokenizer),
      masks_(parts.backend.host_executor(), !parts.backend.computes_on_host()) {
  for (int i = 0; i < parts.backend.host_executor().num_threads(); ++i)
    samplers_.emplace_back(parts.target.config().vocab_size);
#ifdef SPECDEC_HAS_CUDA
  device_sampler_ = make_device_sampler(parts);
#endif
}

Step::~Step() = default;

void Step::run(std::span<Sequence* const> batch, EngineStats& stats) {
  // Slots were reserved by the scheduler.
  for (Sequence* sequence : batch) begin_step(*sequence, parts_);
  {
    const StageTimer timer(stats.grammar_time);
    draft_forced(batch);
  }
  {
    const StageTimer timer(stats.draft_time);
    parts_.drafts.propose(batch);
  }
  MaskMaker::Due masks = constrain(batch, stats);
  const auto begin = Clock::now();
  {
    const StageTimer timer(stats.forward_time);
    forward(batch);
  }
  masks.wait();
  {
    const StageTimer timer(stats.sample_time);
    sample_and_accept(batch);
  }
  DraftPacing& pacing = parts_.drafts.pacing();
  pacing.verified(batch, std::chrono::duration<double>(Clock::now() - begin).count());
  const StageTimer timer(stats.commit_time);
  for (Sequence* sequence : batch) {
    // Truncates at a stop, before any KV is committed.
    emit(*sequence, parts_.tokenizer, parts_.max_context);
    parts_.drafts.keep_features(*sequence);
    parts_.drafts.tell_watchers(*sequence);
    pacing.learn(*sequence);
    forced_text_.learn(*sequence);
    commit(*sequence);
    publish(*sequence, stats);
  }
}

void Step::draft_forced(std::span<Sequence* const> batch) {
  for (Sequence* sequence : batch) {
    try {
      forced_text_.begin(*sequence);
    } catch (const Error&) {  // a limit of the grammar: the drafter goes on without
      sequence->forced.clear();
    }
  }
}

// Draft nodes that a grammar forbids would never be accepted: they go before anything is computed,
// and what it forces takes their place.
MaskMaker::Due Step::constrain(std::span<Sequence* const> batch, EngineStats& stats) {
  const StageTimer timer(stats.grammar_time);
  for (Sequence* sequence : batch) {
    if (!sequence->grammar || !sequence->samples) continue;
    try {
      prune_by_grammar(*sequence);
      forced_text_.extend(*sequence);
    } catch (const Error&) {  // a limit of the grammar: plain decoding may still do
      sequence->reset_draft();
      sequence->node_grammar.assign(1, *sequence->grammar);
    }
  }
  return masks_.begin(batch);
}

void Step::forward(std::span<Sequence* const> batch) {
  batch_.clear();
  states_.clear();
  std::vector<std::int32_t> path_slots;
  const auto go_on_from = [this](Sequence& sequence, std::int32_t state) {
    states_.push_back(state);
    if (state >= 0) ++sequence.num_resumed;
  };
  for (Sequence* sequence : batch) {
    const int context = sequence->kv.length(KvPool::target);
    batch_.begin_sequence(context, sequence->kv.block_table());
    sequence->first_row = batch_.num_rows();
    sequence->first_output = batch_.num_outputs();
    sequence->num_resumed = 0;
    for (int i = 0; i < sequence->num_known; ++i) {
      const bool root = sequence->samples && i == sequence->num_known - 1;
      batch_.add_row(sequence->tokens[static_cast<std::size_t>(context + i)], context + i, root);
      go_on_from(*sequence, root ? sequence->early_state(0) : -1);
    }
    if (!sequence->samples) continue;
    const DraftTree& tree = sequence->tree;
    const int root_slot = sequence->size() - 1;
    sequence->place_nodes();
    const std::vector<std::int32_t>& slots = sequence->node_slots;
    const bool in_place = tree.is_chain() && slots.back() == root_slot + tree.num_draft_tokens();
    for (int node = 1; node < tree.size(); ++node) {
      const TokenId token = tree.tokens[static_cast<std::size_t>(node)];
      const int position = root_slot + tree.depths[static_cast<std::size_t>(node)];
      go_on_from(*sequence, sequence->early_state(mutant_active("early_state_of_parent")
                                                      ? tree.parents[static_cast<std::size_t>(node)]
                                                      : node));
      if (in_place) {
        batch_.add_row(token, position, true);
        continue;
      }
      path_slots.clear();
      for (int at = node; at >= 0; at = tree.parents[static_cast<std::size_t>(at)])
        path_slots.push_back(slots[static_cast<std::size_t>(at)]);
      for (int slot = root_slot - 1; slot >= context; --slot) path_slots.push_back(slot);
      std::reverse(path_slots.begin(), path_slots.end());
      if (mutant_active("mask_skips_parent") && path_slots.size() > 2)
        path_slots[path_slots.size() - 2] = root_slot;
      batch_.add_row(token, position, path_slots, true);
    }
  }
  draws_on_device_ = device_sampler_ != nullptr && device_sampler_->begin(batch);
  EarlyExitAdapter* const early_exit = parts_.drafts.early_exit();
  logits_ = early_exit != nullptr
                ? early_exit->verify(batch_, states_)
                : parts_.target.forward_on_device(batch_, Stream{}, parts_.drafts.tap(batch));
  if (!draws_on_device_) host_logits_ = read_rows(parts_.backend, logits_, Stream{});
}

namespace {

/// Where a node below the root has no token to give (the options and the grammar ban them all, or
/// the grammar is past its limits), plain decoding comes to that node as well, a token at a time:
/// so this step emits the root's token alone.
AcceptedPath verify_or_step(Sequence& sequence, TargetRows& rows, const VerifyParams& params) {
  try {
    return verify(sequence.tree, rows, params);
  } catch (const Error&) {
    if (sequence.tree.num_draft_tokens() == 0) throw;
    return verify(DraftTree(sequence.tree.tokens.front()), rows, params);
  }
}

/// What the target gives behind the nodes that a drafter watches.
void answer_watchers(Sequence& sequence, TargetRows& rows) {
  const AcceptedPath& path = sequence.path;
  for (std::size_t i = 0; i < path.nodes.size(); ++i)
    sequence.origins[static_cast<std::size_t>(path.nodes[i])].answer = path.tokens[i].token;
  for (int node = 1; node < sequence.tree.size(); ++node) {
    NodeOrigin& origin = sequence.origins[static_cast<std::size_t>(node)];
    if (origin.watcher == 0 || origin.answer != Drafter::kNoAnswer) continue;
    try {
      origin.answer = rows.sample(mutant_active("watched_parent_read")
                                      ? sequence.tree.parents[static_cast<std::size_t>(node)]
                                      : node)
                          .token;
    } catch (const Error&) {  // nothing may follow
    }
  }
}

}  // namespace

void Step::sample_and_accept(std::span<Sequence* const> batch) {
  for (Sequence* sequence : batch) sequence->path = AcceptedPath{};
  std::vector<Sequence*> left;
  if (draws_on_device_) {
    left = device_sampler_->draw(logits_.data());
    if (left.empty()) return;
    host_logits_ = read_rows(parts_.backend, logits_, Stream{});
    batch = left;
  }
  kernels::Executor& executor = parts_.backend.host_executor();
  const int tasks = std::min(executor.num_threads(), static_cast<int>(batch.size()));
  executor.parallel_for(tasks, [&](int task) {
    for (std::size_t i = static_cast<std::size_t>(task); i < batch.size();
         i += static_cast<std::size_t>(tasks)) {
      Sequence& sequence = *batch[i];
      if (!sequence.samples) continue;
      LogitsRows rows(sequence, host_logits_, parts_.target.config().vocab_size,
                      samplers_[static_cast<std::size_t>(task)]);
      VerifyParams params = verify_;
      params.seed = sequence.seed;
      params.position = sequence.size();
      params.greedy = sequence.request.sampling.temperature == 0.0f;
      try {
        sequence.path = verify_or_step(sequence, rows, params);
        answer_watchers(sequence, rows);
      } catch (const Error& error) {
        fail(sequence, error);
      } catch (const std::exception& error) {
        fail(sequence, Error(ErrorCode::internal, error.what()));
      }
    }
  });
}

void Step::commit(Sequence& sequence) {
  const int context = sequence.kv.length(KvPool::target);
  if (!sequence.samples) {
    sequence.reservation.commit(context + sequence.num_known, sequence.draft_length);
    return;
  }
  const std::vector<std::int32_t>& nodes = sequence.path.nodes;
  const int root_slot = sequence.size() - 1;
  const int accepted = std::max(0, static_cast<int>(nodes.size()) - 1);

  // Moves go from higher slots to lower ones, in ascending order: nothing is overwritten before it
  // is read.
  std::vector<kernels::KvMove> target_moves;
  std::vector<kernels::KvMove> draft_moves;
  int draft_length = sequence.draft_length;
  const KvPoolStorage* const draft_pool = parts_.drafts.draft_pool();
  bool draft_kv = draft_pool != nullptr && !sequence.draft_slots.empty();
  for (int i = 1; i <= accepted; ++i) {
    const auto node = static_cast<std::size_t>(nodes[static_cast<std::size_t>(i)]);
    const int slot = root_slot + i;
    const int source = sequence.node_slots[node];
    if (source != slot && !mutant_active("kv_not_moved")) target_moves.push_back({source, slot});
    draft_kv = draft_kv && sequence.draft_slots[node] >= 0;
    if (!draft_kv) continue;
    if (sequence.draft_slots[node] != slot)
      draft_moves.push_back({sequence.draft_slots[node], slot});
    draft_length = slot + 1;
  }
  if (mutant_active("kv_off_by_one") && accepted > 0 && accepted + 1 < sequence.tree.size())
    target_moves.push_back({root_slot + accepted + 1, root_slot + accepted});
  const std::span<const BlockId> table = sequence.kv.block_table();
  parts_.target.pool().move(parts_.backend, table, target_moves, Stream{});
  if (draft_pool != nullptr) draft_pool->move(parts_.backend, table, draft_moves, Stream{});

  append_path(sequence);
  sequence.reservation.commit(root_slot + 1 + accepted, draft_length);
}

void Step::publish(Sequence& sequence, EngineStats& stats) {
  publish_prefix(sequence, parts_.cache);
  if (!sequence.samples) {
    stats.num_prefill_tokens += sequence.num_known;
    return;
  }
  stats.num_prefill_tokens += sequence.num_known - 1;
  stats.num_output_tokens += static_cast<int>(sequence.path.tokens.size());
  const bool decoding = sequence.num_known == 1;
  if (decoding) count_step(sequence, sequence.tree.num_draft_tokens(), stats);
}

}  // namespace specdec
