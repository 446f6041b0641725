#include "engine/device_steps.h"

#include <algorithm>
#include <chrono>
#include <string>
#include <utility>

#include "engine/backend/cuda_backend.h"
#include "engine/device_eagle.h"
#include "engine/device_loop.h"
#include "engine/device_requests.h"
#include "engine/log.h"
#include "engine/settle.h"
#include "specdec/error.h"

namespace specdec {

namespace {

namespace cuda = kernels::cuda;

constexpr int kMostLogprobs = 20;  // of the most likely tokens; requests for more take single steps
constexpr int kMostTurns = 64;
// A run is about as long as a streaming reader would wait for text without noticing.
constexpr double kRunSeconds = 0.02;

/// Where a model's KV lies, for kernels that touch all layers.
class PoolPointers {
 public:
  PoolPointers() = default;
  PoolPointers(Backend& backend, const KvPoolStorage& pool) {
    std::vector<void*> keys;
    std::vector<void*> values;
    for (int i = 0; i < pool.num_layers(); ++i) {
      keys.push_back(pool.layer(i).keys);
      values.push_back(pool.layer(i).values);
    }
    const std::size_t bytes = keys.size() * sizeof(void*);
    memory_ = backend.allocate(2 * bytes, MemoryUse::scratch);
    auto* const pointers = memory_.as<void*>();
    backend.write(pointers, keys.data(), bytes, Stream{});
    backend.write(pointers + keys.size(), values.data(), bytes, Stream{});

    const kernels::KvLayer& layer = pool.layer(0);
    const std::int64_t dims = layer.head_dim;
    const std::int64_t positions = layer.block_size;
    view = {.num_layers = pool.num_layers(),
            .num_kv_heads = layer.num_kv_heads,
            .head_dim = layer.head_dim,
            .block_size = layer.block_size,
            .element_bytes = static_cast<std::int32_t>(kernels::kv_element_bytes(layer.type)),
            .keys = {.layers = pointers,
                     .block_stride = dims * positions * layer.num_kv_heads,
                     .head_stride = dims * positions,
                     .dim_stride = 1,
                     .position_stride = dims},
            .values = {.layers = pointers + keys.size(),
                       .block_stride = dims * positions * layer.num_kv_heads,
                       .head_stride = dims * positions,
                       .dim_stride = positions,
                       .position_stride = 1}};
  }

  cuda::KvPoolView view;

 private:
  DeviceBuffer memory_;
};

DeviceModel device_model(Transformer& model, const PoolPointers& pool,
                         HiddenStateTap* tap = nullptr) {
  return {.forward =
              [&model, tap](const cuda::DeviceBatch& batch, cudaStream_t stream) {
                return model.enqueue(view_of(batch), Stream{stream}, tap);
              },
          .pool = pool.view};
}

Error error_of(cuda::RowStatus status, int position) {
  const std::string where = "cannot draw the token at position " + std::to_string(position) + ": ";
  switch (status) {
    case cuda::RowStatus::bad_logits:
      return {ErrorCode::invalid_model,
              where + "the model's logits hold NaN or +infinity; check the model file"};
    case cuda::RowStatus::no_logits:
      return {ErrorCode::invalid_model,
              where + "every logit of the model is -infinity; check the model file"};
    case cuda::RowStatus::bad_edits:
      return {ErrorCode::invalid_argument,
              where + "logit_bias or a penalty makes a logit NaN or +infinity; use finite values"};
    default:
      return {ErrorCode::invalid_argument,
              where + "logit_bias and min_tokens ban every token; leave at least one"};
  }
}

/// What sequence `index` emitted in a turn, as verify() would have it. Which nodes they were only
/// the device knows; their number is right.
AcceptedPath path_of(const DeviceLoop::Turn& turn, std::size_t index,
                     const SamplingOptions& options) {
  const cuda::TurnEntry& entry = turn.entries[index];
  AcceptedPath path;
  for (int i = 0; i < entry.num_tokens; ++i) {
    OutputToken token;
    token.token = entry.tokens[i];
    token.drafted = i < entry.num_accepted;
    const std::size_t at =
        index * static_cast<std::size_t>(turn.path_capacity) + static_cast<std::size_t>(i);
    if (options.logprobs >= 0) token.logprob = turn.logprobs[at];
    for (int j = 0; j < options.logprobs; ++j) {
      const std::size_t top =
          at * static_cast<std::size_t>(turn.most_logprobs) + static_cast<std::size_t>(j);
      if (turn.top_tokens[top] < 0) break;  // the vocabulary is smaller
      token.top_logprobs.push_back({turn.top_tokens[top], turn.top_logprobs[top]});
    }
    path.nodes.push_back(i);
    path.tokens.push_back(std::move(token));
  }
  return path;
}

class LoopedSteps final : public DeviceSteps {
 public:
  LoopedSteps(const StepParts& parts, CudaBackend& backend, const DeviceLoopOptions& options,
              std::function<bool()> interrupted)
      : parts_(parts),
        options_(options),
        interrupted_(std::move(interrupted)),
        requests_(backend, options.vocab, options.max_sequences),
        target_pool_(backend, parts.target.pool()) {
    const int rows = options.max_sequences * std::max(1 + options.nodes, options.topk);
    parts.target.reserve(rows, Stream{});
    DeviceModel draft;
    if (options.draft == DeviceDraft::draft_model) {
      Transformer& model = *parts.drafts.transformer();
      model.reserve(rows, Stream{});
      draft_pool_ = PoolPointers(backend, model.pool());
      draft = device_model(model, draft_pool_);
    }
    DeviceHead head;
    HiddenStateTap* tap = nullptr;
    if (options.draft == DeviceDraft::eagle) {
      EagleAdapter& adapter = *parts.drafts.eagle();
      tap = &adapter.tap();
      eagle_.emplace(backend, adapter,
                     options.max_sequences * std::max(1 + options.depth, options.topk),
                     options.max_sequences * options.topk);
      head.forward = [this](const cuda::DeviceBatch& batch, const std::int32_t* sources,
                            bool at_roots, cudaStream_t stream) {
        return eagle_->forward(batch, sources, at_roots, stream);
      };
      head.enter = [this](cudaStream_t) { restore_features(); };
    }
    loop_.emplace(options, device_model(parts.target, target_pool_, tap), std::move(draft),
                  std::move(head));
    // The two kinds of request that come first; other shapes are captured when they come.
    for (const bool sampled : {false, true})
      loop_->warm_up(std::span(&kOne, 1),
                     {.sampled = sampled, .nucleus = sampled, .dense = sampled}, 1);
  }

  bool run(std::span<Sequence* const> batch, EngineStats& stats) override;

 private:
  static constexpr int kOne = 1;

  bool serves(const Sequence& sequence) const;
  int plan_turns(std::span<Sequence* const> batch) const;
  bool reserve(std::span<Sequence* const> batch, int turns);
  bool drafts(const Sequence& sequence) const {
    return sequence.draft_depth > 0 && options_.draft != DeviceDraft::none;
  }
  bool with_model() const { return options_.draft == DeviceDraft::draft_model; }
  bool has_features(const Sequence& sequence) const;
  void restore_features();
  bool take(std::span<Sequence* const> batch, const DeviceLoop::Turn& turn, EngineStats& stats);
  void finish(Sequence& sequence, const DeviceSequence& device);

  StepParts parts_;
  DeviceLoopOptions options_;
  std::function<bool()> interrupted_;
  DeviceRequests requests_;
  PoolPointers target_pool_;
  PoolPointers draft_pool_;
  std::optional<DeviceEagle> eagle_;
  std::optional<DeviceLoop> loop_;
  // The run about to begin.
  std::span<Sequence* const> batch_;
  std::vector<DeviceSequence> sequences_;
  double turn_seconds_ = 1e-3;  // of late
};

bool LoopedSteps::serves(const Sequence& sequence) const {
  if (sequence.pending() != 1 || !sequence.samples || sequence.grammar ||
      sequence.request.sampling.logprobs > options_.most_logprobs)
    return false;
  const int end = sequence.size() - 1 + loop_->slots_per_turn();
  if (end > parts_.max_context) return false;
  if (sequence.draft_method == "none") return true;
  if (sequence.draft_method != parts_.config.draft.method) return false;
  if (eagle_) return has_features(sequence) && end <= eagle_->max_position();
  return !with_model() || sequence.draft_depth == 0 ||
         (sequence.kv.length(KvPool::draft) >= sequence.size() - 2 &&
          end <= parts_.drafts.transformer()->config().max_position);
}

/// Whether the head can go on where the host left it. What it has yet to run beyond that, such as a
/// prompt, a step of the host's makes up for first.
bool LoopedSteps::has_features(const Sequence& sequence) const {
  const FeatureRows& features = sequence.features;
  return sequence.draft_depth > 0 && features.end() == sequence.size() && features.size() > 0 &&
         features.size() <= options_.depth + 1 &&
         features.begin() == std::max(1, sequence.kv.length(KvPool::draft));
}

void LoopedSteps::restore_features() {
  for (std::size_t i = 0; i < batch_.size(); ++i)
    if (const std::vector<std::int32_t>& rows = sequences_[i].feature_rows; !rows.empty())
      eagle_->adapter().restore(*batch_[i], rows);
}

int LoopedSteps::plan_turns(std::span<Sequence* const> batch) const {
  const bool watched = std::any_of(batch.begin(), batch.end(), [](const Sequence* sequence) {
    return !sequence->request.sampling.stop.empty();  // found in text, by the host
  });
  if (watched) return 1;
  return std::clamp(static_cast<int>(kRunSeconds / turn_seconds_), 1, kMostTurns);
}

/// Slots for `turns`, or for as many as there is room for. False: not even for one; then each
/// sequence has what it had.
bool LoopedSteps::reserve(std::span<Sequence* const> batch, int turns) {
  const int each_turn = 1 + options_.depth;
  const int one_turn = loop_->slots_per_turn();
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
    if (take(one_turn + std::min((turns - 1) * each_turn, left)) || take(one_turn)) continue;
    // What the others took beyond their own may be what is missing: all go back to what they had,
    // which was there for all of them at once.
    for (std::size_t i = 0; i < had.size(); ++i) batch[i]->reservation = KvReservation();
    for (std::size_t i = 0; i < had.size(); ++i)
      batch[i]->reservation = parts_.cache.reserve(batch[i]->kv, had[i]);
    return false;
  }
  return true;
}

bool LoopedSteps::run(std::span<Sequence* const> batch, EngineStats& stats) {
  if (static_cast<int>(batch.size()) > options_.max_sequences ||
      !std::all_of(batch.begin(), batch.end(),
                   [&](const Sequence* sequence) { return serves(*sequence); }))
    return false;
  const int turns = plan_turns(batch);
  if (!reserve(batch, turns)) return false;

  batch_ = batch;
  sequences_.clear();
  for (std::size_t i = 0; i < batch.size(); ++i) {
    Sequence& sequence = *batch[i];
    begin_step(sequence, parts_);
    const bool may_draft =
        drafts(sequence) && ((!with_model() && !eagle_) || sequence.reservation.claim_draft());
    DeviceSequence device{.tokens = &sequence.tokens,
                          .num_output = sequence.num_output(),
                          .max_depth = may_draft ? sequence.draft_depth : 0,
                          .max_nodes = may_draft ? sequence.draft_nodes : 0,
                          .draft_length = sequence.kv.length(KvPool::draft),
                          .block_table = sequence.kv.block_table(),
                          .sampling = requests_.place(i, sequence),
                          .limits = {}};
    device.limits = {.max_output = sequence.request.sampling.max_tokens,
                     .max_length = parts_.max_context,
                     .reserved = sequence.reservation.begin() + sequence.reservation.count(),
                     .end_tokens = device.sampling.end_tokens,
                     .num_end_tokens = device.sampling.num_end_tokens};
    // Rows that no other sequence has.
    for (int j = 0; eagle_ && may_draft && j < sequence.features.size(); ++j)
      device.feature_rows.push_back(static_cast<std::int32_t>(i) * (options_.depth + 1) + j);
    // The head has no angles beyond its last position.
    if (eagle_ && may_draft)
      device.limits.reserved = std::min(device.limits.reserved, eagle_->max_position());
    sequences_.push_back(std::move(device));
  }

  const auto begin = Clock::now();
  const int done =
      loop_->run(sequences_, DeviceRequests::needs(batch, options_.vocab), turns,
                 [&](const DeviceLoop::Turn& turn) { return take(batch, turn, stats); });
  const double seconds = std::chrono::duration<double>(Clock::now() - begin).count();
  turn_seconds_ = 0.5 * (turn_seconds_ + seconds / std::max(1, done));
  stats.forward_time += seconds;
  stats.num_steps += done - 1;
  stats.num_device_steps += done;
  for (std::size_t i = 0; i < batch.size(); ++i) {
    requests_.counted(i, batch[i]->num_output());
    finish(*batch[i], sequences_[i]);
  }
  return true;
}

/// Takes one turn's tokens. False: the host wants the loop back.
bool LoopedSteps::take(std::span<Sequence* const> batch, const DeviceLoop::Turn& turn,
                       EngineStats& stats) {
  bool go_on = !interrupted_();
  for (std::size_t i = 0; i < batch.size(); ++i) {
    Sequence& sequence = *batch[i];
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
    go_on = go_on && !sequence.output.finished();
  }
  return go_on;
}

void LoopedSteps::finish(Sequence& sequence, const DeviceSequence& device) {
  const int length = sequence.size() - 1;
  int draft_length = sequence.kv.length(KvPool::draft);
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

}  // namespace

std::unique_ptr<DeviceSteps> make_device_steps(const StepParts& parts,
                                               std::function<bool()> interrupted) {
  const Config& config = parts.config;
  auto* const backend = dynamic_cast<CudaBackend*>(&parts.backend);
  if (backend == nullptr || !config.backend.device_loop || config.verify.method != "coupled" ||
      config.draft.length.mode == "adaptive" || !config.draft.tree.choices.empty())
    return nullptr;
  DeviceLoopOptions options{.device = backend->device(),
                            .stream = backend->stream(),
                            .vocab = parts.target.config().vocab_size,
                            .max_context = parts.max_context,
                            .max_turns = kMostTurns,
                            .most_logprobs = kMostLogprobs};
  const std::string& method = config.draft.method;
  if (method == "ngram") {
    options.draft = DeviceDraft::ngram;
    options.ngram_min = config.draft.ngram.prompt_lookup_min;
    options.ngram_max = config.draft.ngram.prompt_lookup_max;
  } else if (method == "draft_model" && parts.drafts.transformer() != nullptr) {
    options.draft = DeviceDraft::draft_model;
    options.topk = config.draft.tree.topk;
    options.min_confidence = config.draft.length.min_confidence;
  } else if (method == "eagle3" && parts.drafts.eagle() != nullptr) {
    options.draft = DeviceDraft::eagle;
    options.topk = config.draft.tree.topk;
    options.min_confidence = config.draft.length.min_confidence;
  } else if (method != "none") {
    return nullptr;
  }
  if (options.draft != DeviceDraft::none)
    options.depth = config.draft.length.num_speculative_tokens;
  options.nodes = options.topk > 1 ? config.draft.tree.num_draft_tokens : options.depth;
  const int most_rows = std::max({1 + options.nodes, options.topk,
                                  options.draft == DeviceDraft::eagle ? 1 + options.depth : 2});
  options.max_sequences =
      std::min(config.scheduler.max_num_seqs, parts.target.max_rows() / most_rows);
  if (options.max_sequences < 1) return nullptr;
  options.blocks_per_sequence = parts.max_context / config.kv_cache.block_size + 2;
  try {
    return std::make_unique<LoopedSteps>(parts, *backend, options, std::move(interrupted));
  } catch (const Error& error) {
    if (error.code() != ErrorCode::unsupported) throw;
    log_info("steps are run one by one: {}", error.what());
    return nullptr;
  }
}

}  // namespace specdec
