#include "engine/device_stepper.h"

#include <algorithm>
#include <cstdint>
#include <limits>
#include <numeric>
#include <utility>

#include "engine/cost_measurement.h"
#include "engine/device_forward_graphs.h"
#include "engine/device_turn.h"
#include "engine/log.h"
#include "engine/memory_check.h"
#include "engine/settle.h"

namespace specdec {

namespace cuda = kernels::cuda;

namespace {

// Set aside for graphs and for scratch that grows while they are captured.
constexpr std::size_t kGraphBytes = std::size_t{256} << 20;

int context_of(std::span<Sequence* const> batch) {
  int longest = 0;
  for (const Sequence* sequence : batch) longest = std::max(longest, sequence->size());
  return longest;
}

DeviceModel device_model(Transformer& model, const DevicePool& pool) {
  return {.forward =
              [&model](const cuda::DeviceBatch& batch, cudaStream_t stream) {
                return model.enqueue(view_of(batch), Stream{stream});
              },
          .pool = pool.view};
}

}  // namespace

DeviceStepper::DeviceStepper(const StepParts& parts, CudaBackend& backend,
                             const DeviceLoopOptions& options, std::function<bool()> interrupted)
    : parts_(parts),
      options_(options),
      interrupted_(std::move(interrupted)),
      requests_(backend, options.vocab, options.max_sequences),
      target_pool_(backend, parts.target.pool()) {
  const auto rows_of = [&](int sequences) {
    return sequences * std::max(1 + options.nodes, options.topk);
  };
  const int rows = rows_of(options.max_sequences);
  require_loop_fits(
      parts.config, options.max_sequences,
      [&](int sequences) {
        DeviceLoopOptions fewer = options;
        fewer.max_sequences = sequences;
        const std::size_t models = options.draft == DeviceDraft::none ? 1 : 2;
        const std::size_t logits = sizeof(float) * static_cast<std::size_t>(rows_of(sequences)) *
                                   static_cast<std::size_t>(options.vocab);
        const std::size_t of_steps =
            parts.config.backend.step_graphs ? models * ForwardGraphs::kGraphBytes : 0;
        return DeviceLoop::bytes(fewer) + models * logits + kGraphBytes + of_steps;
      },
      backend.free_memory().value_or(SIZE_MAX));
  parts.target.reserve(rows, Stream{});
  const int most_outputs = options.max_sequences * options.topk;
  DeviceDraftModel draft;
  if (with_model()) {
    Transformer& model = *parts.drafts.transformer();
    model.reserve(rows, Stream{});
    draft_pool_ = DevicePool(backend, model.pool());
    vocabulary_.emplace(backend, model.head_tokens(), options.vocab, most_outputs);
    draft = {.forward =
                 [this, &model](const cuda::DeviceBatch& batch, cudaStream_t stream) {
                   return vocabulary_->of(model.enqueue(view_of(batch), Stream{stream}),
                                          batch.num_outputs, stream);
                 },
             .pool = draft_pool_.view};
  }
  DeviceHead head;
  if (options.draft == DeviceDraft::eagle) {
    EagleAdapter& adapter = *parts.drafts.eagle();
    eagle_.emplace(backend, adapter,
                   options.max_sequences * std::max(1 + options.depth, options.topk), most_outputs);
    vocabulary_.emplace(backend, adapter.head().target_tokens(), options.vocab, most_outputs);
    head.forward = [this](const cuda::DeviceBatch& batch, const std::int32_t* sources,
                          bool at_roots, cudaStream_t stream) {
      return vocabulary_->of(eagle_->forward(batch, sources, at_roots, stream), batch.num_outputs,
                             stream);
    };
    head.target = [&target = parts.target, &tap = adapter.tap()](const cuda::DeviceBatch& batch,
                                                                 cudaStream_t stream) {
      return target.enqueue(view_of(batch), Stream{stream}, &tap);
    };
    head.enter = [this](cudaStream_t) { restore_features(); };
  }
  loop_.emplace(options, device_model(parts.target, target_pool_), std::move(draft),
                std::move(head),
                [this](const DraftLogits& logits, int outputs, cudaStream_t stream) {
                  return vocabulary_->spread(logits, outputs, stream);
                });
  const std::size_t free = backend.free_memory().value_or(0);
  // The two kinds of request that come first; other shapes are captured when they come.
  constexpr int kOne = 1;
  for (const bool sampled : {false, true})
    loop_->warm_up(std::span(&kOne, 1), {.sampled = sampled, .nucleus = sampled, .dense = sampled},
                   1);
  log_debug("the device loop: {} MiB of buffers; {} MiB for its first graphs",
            DeviceLoop::bytes(options) >> 20U, (free - backend.free_memory().value_or(0)) >> 20U);
}

void DeviceStepper::set_costs(const MeasuredCosts& costs) {
  pacing_.emplace(costs.turns);
  draft_cost_ = CostCurve(costs.draft);
  return_cost_ = CostCurve(costs.returns);
}

MeasuredCosts DeviceStepper::measure_costs() {
  MeasuredCosts costs;
  PassLimits limits{.max_rows = parts_.target.max_rows(),
                    .max_context = parts_.max_context,
                    .num_blocks = static_cast<int>(parts_.target.pool().capacity() /
                                                   parts_.config.kv_cache.block_size)};
  if (DraftAdapter* const draft = with_passes() ? parts_.drafts.adapter() : nullptr) {
    limits.max_rows = draft->max_rows();
    limits.max_context = std::min(parts_.max_context, draft->max_position());
    costs.draft = measure_prompts([&](const ForwardBatch& batch) { draft->run(batch); }, limits);
    costs.returns = parts_.drafts.measure_returns(parts_.target, limits.num_blocks);
  }
  costs.turns = measure_turns();
  return costs;
}

TurnCosts DeviceStepper::measure_turns() {
  const int block_size = parts_.config.kv_cache.block_size;
  const auto capacity = static_cast<int>(
      std::min<std::int64_t>(parts_.max_context - 1, parts_.target.pool().capacity()));
  // All sequences lie in the same blocks: they have the same tokens, and nobody reads their KV.
  std::vector<BlockId> table(static_cast<std::size_t>((capacity - 1) / block_size + 1));
  std::iota(table.begin(), table.end(), 0);
  const std::vector<TokenId> tokens(static_cast<std::size_t>(std::min(128, capacity / 2)), 0);
  batch_ = {};
  constexpr int kFewTurns = 4;
  constexpr int kManyTurns = 16;
  // Seconds of a run's turns from the fifth on: a run's beginning and end are not a turn's, and
  // take the longer the more kernels a turn has.
  const auto seconds_a_turn = [&](int depth) {
    const auto run = [&](int turns, int trials) {
      double least = std::numeric_limits<double>::infinity();
      int done = 0;
      for (int trial = 0; trial < trials; ++trial) {
        std::vector<DeviceSequence> sequences = sequences_;
        const DeviceRunDone of = loop_->run(sequences, {}, {.turns = turns, .depth = depth},
                                            [](const DeviceLoop::Turn&) { return true; });
        least = std::min(least, of.seconds);
        done = std::max(1, of.turns);
      }
      return std::pair(least, done);
    };
    run(kFewTurns, 1);  // captures and warms up
    const auto [few_seconds, few] = run(kFewTurns, 2);
    const auto [many_seconds, many] = run(kManyTurns, 2);
    return many > few && many_seconds > few_seconds ? (many_seconds - few_seconds) / (many - few)
                                                    : many_seconds / many;
  };
  TurnCosts costs;
  // Between them costs are close to a line; beyond eight, products change their ways.
  std::vector<int> counts = {1};
  for (int count = 8; count < options_.max_sequences; count *= 2) counts.push_back(count);
  if (options_.max_sequences > 1) counts.push_back(options_.max_sequences);
  for (const int depth : loop_->depths())
    for (const int count : counts) {
      // Kernels are launched for what is reserved: a short context, as most begin with. What a
      // longer one takes LoopPacing learns.
      constexpr int kShort = 512;
      const int needed =
          static_cast<int>(tokens.size()) + (kManyTurns + 1) * loop_->slots_per_turn(depth);
      const int reserved = std::min(capacity, std::max(kShort, needed));
      sequences_.clear();
      for (int i = 0; i < count; ++i) {
        DeviceSequence sequence{
            .tokens = &tokens,
            .draft_length = static_cast<int>(tokens.size()) - 1,
            .block_table = table,
            .sampling = {},
            .limits = {.max_output = INT_MAX, .max_length = INT_MAX, .reserved = reserved}};
        if (eagle_ && depth > 0) sequence.feature_rows = {i * (options_.depth + 1)};
        sequences_.push_back(std::move(sequence));
      }
      costs[depth].emplace_back(count, seconds_a_turn(depth));
    }
  return costs;
}

bool DeviceStepper::serves(const Sequence& sequence) const {
  if (sequence.pending() != 1 || !sequence.samples || sequence.grammar ||
      sequence.request.sampling.logprobs > options_.most_logprobs)
    return false;
  if (sequence.size() - 1 + loop_->slots_per_turn(options_.depth) > parts_.max_context)
    return false;
  // A draft that a sampled rule is to judge is drawn by the host.
  if (options_.rule && with_passes() && sequence.draft_depth > 0 &&
      sequence.request.sampling.temperature > 0)
    return false;
  return sequence.draft_method == "none" || sequence.draft_method == parts_.config.draft.method;
}

/// Whether the drafter can draft `depth` deep for the sequence, once it has caught up.
bool DeviceStepper::may_draft(const Sequence& sequence, int depth) const {
  if (depth == 0 || sequence.draft_depth == 0 || options_.draft == DeviceDraft::none) return false;
  const int end = sequence.size() - 1 + loop_->slots_per_turn(depth);
  if (with_model()) return end <= parts_.drafts.transformer()->config().max_position;
  return !eagle_ || end <= eagle_->max_position();
}

/// After turns without the head, whose features nobody kept.
bool DeviceStepper::has_lost_head(const Sequence& sequence) const {
  return eagle_ && parts_.drafts.catch_up()->has_lost(sequence);
}

/// Seconds that it takes before each of the batch can draft: its share of the passes.
std::vector<double> DeviceStepper::entry_costs(std::span<Sequence* const> batch) const {
  std::vector<double> costs(batch.size());
  if (!with_passes()) return costs;
  const int shortest = loop_->depth_of(1);
  std::vector<int> behind(batch.size());  // tokens that the drafter has to run
  std::vector<int> missed(batch.size());  // ... and the target before it
  for (std::size_t i = 0; i < batch.size(); ++i) {
    const Sequence& sequence = *batch[i];
    if (sequence.draft_depth == 0) continue;
    const int missing = sequence.size() - sequence.kv.length(KvPool::draft);
    if (!may_draft(sequence, shortest))
      costs[i] = std::numeric_limits<double>::infinity();
    else if (has_lost_head(sequence))
      missed[i] = parts_.drafts.catch_up()->num_missed(sequence);
    else if (missing > (eagle_ ? options_.depth + 1 : 2))
      behind[i] = missing;
  }
  const auto share_out = [&](const CostCurve& curve, const std::vector<int>& rows) {
    const int all = std::accumulate(rows.begin(), rows.end(), 0);
    if (all == 0) return;
    const double each = curve(all) / all;
    for (std::size_t i = 0; i < rows.size(); ++i) costs[i] += rows[i] * each;
  };
  share_out(draft_cost_, behind);
  share_out(return_cost_, missed);
  return costs;
}

LoopPacing::Plan DeviceStepper::plan(std::span<Sequence* const> batch) {
  LoopPacing::Plan plan{
      .depth = options_.depth,
      .turns = std::clamp(static_cast<int>(LoopPacing::kRunSeconds / turn_seconds_), 1,
                          LoopPacing::kMostTurns)};
  if (pacing_) {
    plan = pacing_->plan(batch, context_of(batch), entry_costs(batch));
  } else {
    if (parts_.config.draft.length.mode == "schedule")
      plan.depth = loop_->depth_of(
          scheduled_length(parts_.config.draft.length, static_cast<int>(batch.size())));
    for (const Sequence* sequence : batch)
      plan.joins.push_back(
          !has_lost_head(*sequence) ||
          may_return(parts_.drafts.catch_up()->num_missed(*sequence),
                     sequence->request.sampling.max_tokens - sequence->num_output()));
  }
  const bool watched = std::any_of(batch.begin(), batch.end(), [](const Sequence* sequence) {
    return !sequence->request.sampling.stop.empty();  // found in text, by the host
  });
  if (watched) plan.turns = 1;
  return plan;
}

/// Slots for the turns, or for as many as there is room for. False: not even for one; then each
/// sequence has what it had.
bool DeviceStepper::reserve(std::span<Sequence* const> batch, const LoopPacing::Plan& plan) {
  const int each_turn = 1 + plan.depth;
  const int one_turn = loop_->slots_per_turn(plan.depth);
  std::vector<int> had;
  for (Sequence* sequence : batch) {
    had.push_back(sequence->reservation.count());
    const int room = parts_.max_context - sequence->reservation.begin();
    const int left = sequence->request.sampling.max_tokens - sequence->num_output();
    const auto take = [&](int count) {
      sequence->reservation = KvReservation();
      sequence->reservation = parts_.cache.reserve(sequence->kv, std::min(count, room));
      return sequence->reservation.valid();
    };
    if (take(one_turn + std::min((plan.turns - 1) * each_turn, left)) || take(one_turn)) continue;
    // What the others took beyond their own may be what is missing: all go back to what they had,
    // which was there for all of them at once.
    for (std::size_t i = 0; i < had.size(); ++i) batch[i]->reservation = KvReservation();
    for (std::size_t i = 0; i < had.size(); ++i)
      batch[i]->reservation = parts_.cache.reserve(batch[i]->kv, had[i]);
    return false;
  }
  return true;
}

/// Which sequences draft in this run: the drafter has caught up with them.
std::vector<bool> DeviceStepper::prepare_drafts(std::span<Sequence* const> batch,
                                                const LoopPacing::Plan& plan) {
  std::vector<bool> drafts;
  std::vector<Sequence*> behind;
  std::vector<Sequence*> lost;
  for (std::size_t i = 0; i < batch.size(); ++i) {
    Sequence* const sequence = batch[i];
    drafts.push_back(i < plan.joins.size() && plan.joins[i] && may_draft(*sequence, plan.depth) &&
                     (!with_passes() || sequence->reservation.claim_draft()));
    sequence->draft_length = sequence->kv.length(KvPool::draft);  // claiming may have found more
    if (!drafts.back() || !with_passes()) continue;
    const int most = eagle_ ? plan.depth + 1 : 2;
    if (has_lost_head(*sequence))
      lost.push_back(sequence);
    else if (sequence->size() - std::max(eagle_ ? 1 : 0, sequence->draft_length) > most)
      behind.push_back(sequence);
  }
  if (!lost.empty()) {
    parts_.drafts.catch_up()->bring_back(lost);
    for (std::size_t i = 0; i < batch.size(); ++i)
      drafts[i] = drafts[i] && !has_lost_head(*batch[i]);
  }
  if (!behind.empty()) parts_.drafts.catch_up()->run(behind, 1);
  return drafts;
}

DeviceSequence DeviceStepper::device_sequence(std::size_t index, Sequence& sequence, int depth) {
  DeviceSequence device{.tokens = &sequence.tokens,
                        .num_output = sequence.num_output(),
                        .max_depth = std::min(sequence.draft_depth, depth),
                        .max_nodes = depth > 0 ? sequence.draft_nodes : 0,
                        .draft_length = sequence.draft_length,
                        .block_table = sequence.kv.block_table(),
                        .sampling = requests_.place(index, sequence),
                        .limits = {}};
  device.limits = {.max_output = sequence.request.sampling.max_tokens,
                   .max_length = parts_.max_context,
                   .reserved = sequence.reservation.begin() + sequence.reservation.count(),
                   .end_tokens = device.sampling.end_tokens,
                   .num_end_tokens = device.sampling.num_end_tokens};
  if (!eagle_ || depth == 0) return device;
  // Rows that no other sequence has.
  sequence.features.drop_before(std::max(1, sequence.draft_length));
  for (int j = 0; j < sequence.features.size(); ++j)
    device.feature_rows.push_back(static_cast<std::int32_t>(index) * (options_.depth + 1) + j);
  // The head has no angles beyond its last position.
  device.limits.reserved = std::min(device.limits.reserved, eagle_->max_position());
  return device;
}

void DeviceStepper::restore_features() {
  for (std::size_t i = 0; i < batch_.size(); ++i)
    if (const std::vector<std::int32_t>& rows = sequences_[i].feature_rows; !rows.empty())
      eagle_->adapter().restore(*batch_[i], rows);
}

/// While prompts come in, their rows set a step's pace, and passes that host and device run in
/// turns for the drafts of the others would only hold them up.
void DeviceStepper::wait_for_prompts(std::span<Sequence* const> batch) {
  if (std::none_of(batch.begin(), batch.end(),
                   [](const Sequence* sequence) { return sequence->num_known > 1; }))
    return;
  for (Sequence* sequence : batch) sequence->draft_depth = sequence->draft_nodes = 0;
}

bool DeviceStepper::run(std::span<Sequence* const> batch, EngineStats& stats) {
  if (static_cast<int>(batch.size()) > options_.max_sequences ||
      !std::all_of(batch.begin(), batch.end(),
                   [&](const Sequence* sequence) { return serves(*sequence); })) {
    if (pacing_) wait_for_prompts(batch);
    return false;
  }
  LoopPacing::Plan plan = this->plan(batch);
  if (!reserve(batch, plan)) return false;

  for (Sequence* sequence : batch) begin_step(*sequence, parts_);
  const auto entered = Clock::now();
  const std::vector<bool> drafts = prepare_drafts(batch, plan);
  stats.draft_time += std::chrono::duration<double>(Clock::now() - entered).count();
  if (std::find(drafts.begin(), drafts.end(), true) == drafts.end()) plan.depth = 0;
  batch_ = batch;
  sequences_.clear();
  for (std::size_t i = 0; i < batch.size(); ++i)
    sequences_.push_back(device_sequence(i, *batch[i], drafts[i] ? plan.depth : 0));

  const int context = context_of(batch);
  const auto begin = Clock::now();
  const DeviceRunDone done =
      loop_->run(sequences_, DeviceRequests::needs(batch, options_.vocab),
                 {.turns = plan.turns, .depth = plan.depth},
                 [&](const DeviceLoop::Turn& turn) { return take(turn, plan.depth, stats); });
  const double seconds = std::chrono::duration<double>(Clock::now() - begin).count();
  logger()->trace(
      "run: {} sequences of up to {} tokens, drafts of {}{}: {} turns in {:.2f} ms, "
      "{:.2f} before them",
      batch.size(), context, plan.depth, plan.probes ? " (a probe)" : "", done.turns,
      1e3 * done.seconds, 1e3 * (seconds - done.seconds));
  stats.forward_time += seconds;
  turn_seconds_ = 0.5 * (turn_seconds_ + done.seconds / std::max(1, done.turns));
  if (pacing_)
    pacing_->ran(plan, static_cast<int>(batch.size()), context, done.turns, done.seconds);
  stats.num_steps += done.turns - 1;
  stats.num_device_steps += done.turns;
  for (std::size_t i = 0; i < batch.size(); ++i) {
    requests_.counted(i, batch[i]->num_output());
    finish(*batch[i], sequences_[i]);
  }
  return true;
}

/// Takes one turn's tokens. False: the host wants the loop back.
bool DeviceStepper::take(const DeviceLoop::Turn& turn, int depth, EngineStats& stats) {
  bool go_on = !interrupted_();
  for (std::size_t i = 0; i < batch_.size(); ++i) {
    Sequence& sequence = *batch_[i];
    const cuda::TurnEntry& entry = turn.entries[i];
    if (sequence.output.finished()) continue;  // the device went on before it knew
    sequence.path = AcceptedPath{};
    if (entry.num_tokens < 0)
      fail(sequence, error_of(static_cast<cuda::RowStatus>(-entry.num_tokens), sequence.size()));
    else
      sequence.path = path_of(turn, i, sequence.request.sampling);
    emit(sequence, parts_.tokenizer, parts_.max_context);
    append_path(sequence);
    stats.num_output_tokens += static_cast<int>(sequence.path.tokens.size());
    count_step(sequence, entry.num_drafted, stats);
    if (sequence.output.finished())
      go_on = false;
    else if (pacing_ && sequences_[i].max_depth > 0)
      pacing_->learn(sequence, depth, entry.num_accepted);
  }
  return go_on;
}

void DeviceStepper::finish(Sequence& sequence, const DeviceSequence& device) {
  const int length = sequence.size() - 1;
  int draft_length = sequence.draft_length;
  if (with_model() && device.max_depth > 0)
    draft_length = std::max(draft_length, std::min(device.draft_length, length));
  if (sequence.uses_features && eagle_) {
    // Where the head had no part in the run, the features of its turns are gone, and with them the
    // head's use for this sequence.
    const auto pending = static_cast<int>(device.feature_rows.size());
    sequence.features.clear();
    if (pending > 0) draft_length = std::max(draft_length, sequence.size() - pending);
    if (pending > 0 && !sequence.output.finished())
      eagle_->adapter().keep(sequence, sequence.size() - pending, device.feature_rows);
  }
  sequence.reservation.commit(length, draft_length);
  publish_prefix(sequence, parts_.cache);
}

}  // namespace specdec
