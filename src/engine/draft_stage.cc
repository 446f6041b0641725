#include "engine/draft_stage.h"

#include <algorithm>
#include <array>
#include <range/v3/range/conversion.hpp>
#include <range/v3/view/filter.hpp>
#include <range/v3/view/join.hpp>

#include "draft/lookahead_drafter.h"
#include "engine/cost_measurement.h"
#include "engine/log.h"
#include "sampling/mutation.h"
#include "specdec/error.h"
#include "verify/verify.h"

namespace specdec {

namespace {

constexpr std::string_view kNone = "none";
constexpr std::string_view kDraftModel = "draft_model";
constexpr std::string_view kEagle3 = "eagle3";
constexpr std::string_view kEarlyExit = "early_exit";
constexpr std::string_view kMedusa = "medusa";
constexpr std::string_view kLookahead = "lookahead";
constexpr std::array kModelMethods = {kDraftModel, kEagle3, kEarlyExit, kMedusa};

bool is_model_method(std::string_view method) {
  return std::ranges::find(kModelMethods, method) != kModelMethods.end();
}

/// The parts of a method: names joined by '+'.
std::vector<std::string_view> parts_of(std::string_view method) {
  std::vector<std::string_view> parts;
  for (;;) {
    const std::size_t plus = method.find('+');
    parts.push_back(method.substr(0, plus));
    if (plus == std::string_view::npos) return parts;
    method.remove_prefix(plus + 1);
  }
}

bool names(std::string_view method, std::string_view part) {
  const std::vector<std::string_view> parts = parts_of(method);
  return std::find(parts.begin(), parts.end(), part) != parts.end();
}

}  // namespace

DraftStage::DraftStage(const Config& config, Backend& backend, int vocab_size, int max_context)
    : config_(config),
      backend_(backend),
      sampled_(wants_sampled_draft(*parse_verify_method(config.verify.method))),
      hosts_(config.draft, vocab_size),
      max_context_(max_context) {}

void DraftStage::set_model(std::unique_ptr<Transformer> draft) {
  model_ = draft.get();
  transformer_ = draft.get();
  auto adapter = std::make_unique<TransformerAdapter>(std::move(draft), max_context_);
  catch_up_.emplace(*adapter);
  set_adapter(kDraftModel, std::move(adapter));
}

void DraftStage::set_model(std::unique_ptr<EagleHead> head, Transformer& target) {
  const SchedulerConfig& scheduler = config_.scheduler;
  auto adapter = std::make_unique<EagleAdapter>(
      backend_, std::move(head), max_context_,
      scheduler.max_num_batched_tokens + scheduler.max_num_seqs * 2 * DraftCatchUp::kMostPending);
  features_ = eagle_ = adapter.get();
  catch_up_.emplace(*adapter, target);
  set_adapter(kEagle3, std::move(adapter));
}

void DraftStage::set_model(std::unique_ptr<MedusaHeads> heads, Transformer& target) {
  auto adapter = std::make_unique<MedusaAdapter>(backend_, std::move(heads), max_context_,
                                                 config_.scheduler.max_num_seqs);
  features_ = adapter.get();
  catch_up_.emplace(*adapter, target);
  set_adapter(kMedusa, std::move(adapter));
}

void DraftStage::set_early_exit(Transformer& target, int exit_layer) {
  auto adapter = std::make_unique<EarlyExitAdapter>(backend_, target, exit_layer, max_context_);
  early_exit_ = adapter.get();
  set_adapter(kEarlyExit, std::move(adapter));
}

void DraftStage::set_model(std::unique_ptr<TranslatedDrafter> draft) {
  model_method_ = kDraftModel;
  model_ = &draft->model();
  translated_ = std::move(draft);
}

void DraftStage::set_adapter(std::string_view method, std::unique_ptr<DraftAdapter> adapter) {
  model_method_ = method;
  adapter_ = std::move(adapter);
  std::optional<StaticTree> shape;
  if (!config_.draft.tree.choices.empty()) shape = StaticTree::parse(config_.draft.tree.choices);
  model_drafter_ = std::make_unique<ModelDrafter>(
      *adapter_, backend_.host_executor(),
      ModelDrafterOptions{.topk = config_.draft.tree.topk,
                          .num_draft_tokens = config_.draft.tree.num_draft_tokens,
                          .min_confidence = config_.draft.length.min_confidence,
                          .sampled = sampled_,
                          .shape = shape});
}

DraftStage::~DraftStage() = default;

MeasuredCosts DraftStage::measure_costs(Transformer& target, int num_blocks) {
  const PassToTime verify = [&](const ForwardBatch& batch) { target.forward(batch, Stream{}); };
  const PassLimits limits = {
      .max_rows = target.max_rows(), .max_context = max_context_, .num_blocks = num_blocks};
  fill_for_costs(backend_, target.pool(), limits);
  const PassTimes of_target = specdec::measure_costs(verify, limits);
  MeasuredCosts costs;
  costs.verify = of_target.points;
  costs.verify_context = of_target.context;
  const auto measure_draft = [&](const PassToTime& draft, const KvPoolStorage* pool, int max_rows,
                                 int max_position) {
    PassLimits of_draft = limits;
    of_draft.max_rows = max_rows;
    of_draft.max_context = std::min(max_context_, max_position);
    if (pool != nullptr) fill_for_costs(backend_, *pool, of_draft);
    const PassTimes times = specdec::measure_costs(draft, of_draft);
    costs.draft = times.points;
    costs.draft_context = times.context;
    costs.draft_cold = measure_cold(draft, verify, of_draft);
  };
  if (adapter_ != nullptr)
    measure_draft([&](const ForwardBatch& batch) { adapter_->run(batch); }, adapter_->pool(),
                  adapter_->max_rows(), adapter_->max_position());
  if (translated_ != nullptr) {
    Transformer& model = translated_->model();
    measure_draft([&](const ForwardBatch& batch) { model.forward(batch, Stream{}); }, &model.pool(),
                  model.max_rows(), model.config().max_position);
  }
  costs.returns = measure_returns(target, num_blocks);
  if (early_exit_ != nullptr) {
    const PassTimes times = specdec::measure_costs(
        [&](const ForwardBatch& batch) { early_exit_->run_first_layers(batch); }, limits);
    costs.first_layers = times.points;
    costs.first_layers_context = times.context;
  }
  return costs;
}

CostPoints DraftStage::measure_returns(Transformer& target, int num_blocks) {
  if (eagle_ == nullptr) return {};
  // On a CPU a row of many costs what it does as one of 64.
  const int most_rows = backend_.computes_on_host() ? 64 : eagle_->max_rows();
  return measure_prompts([&](const ForwardBatch& batch) { catch_up_->run_again(batch); },
                         {.max_rows = std::min({most_rows, eagle_->max_rows(), target.max_rows()}),
                          .max_context = std::min(max_context_, eagle_->max_position()),
                          .num_blocks = num_blocks});
}

void DraftStage::set_costs(const MeasuredCosts& costs) {
  VerifyCost verify(CostCurve(costs.verify, costs.verify_context),
                    CostCurve(costs.first_layers, costs.first_layers_context));
  CostCurve draft(costs.draft, costs.draft_context, costs.draft_cold);
  logger()->debug(
      "costs: verification of 1, 8 rows {:.2f}, {:.2f} ms, and {:.2f}, {:.2f} ms more over 1000 "
      "tokens more; a draft pass {:.2f} ms, the first {:.2f} ms",
      1e3 * verify(1), 1e3 * verify(8),
      1e6 * (costs.verify_context.per_token + costs.verify_context.per_row_token),
      1e6 * (costs.verify_context.per_token + 8 * costs.verify_context.per_row_token),
      1e3 * draft(1), 1e3 * (draft.cold() + draft(1)));
  if (!costs.first_layers.empty())
    logger()->debug(
        "costs: of 4 and 8 rows, {:.2f} and {:.2f} ms where drafts have run all but one",
        1e3 * verify(4, 3), 1e3 * verify(8, 7));
  // Prompts were timed from an empty context on.
  CostCurve returns(costs.returns, {.per_row_token = costs.verify_context.per_row_token});
  pacing_.set_costs(std::move(verify), std::move(draft), std::move(returns));
}

bool DraftStage::knows(std::string_view method) const {
  if (method == kNone) return true;
  const std::vector<std::string_view> parts = parts_of(method);
  std::vector<std::string_view> seen;
  for (const std::string_view part : parts) {
    if (!knows_part(part) || std::find(seen.begin(), seen.end(), part) != seen.end()) return false;
    seen.push_back(part);
  }
  // Block verification takes chains; several drafters make a tree, and so does a window.
  return config_.verify.method != "block" || (parts.size() == 1 && method != kLookahead);
}

bool DraftStage::knows_part(std::string_view method) const {
  return is_model_method(method) ? method == model_method_ : hosts_.knows(method);
}

void DraftStage::add(std::unique_ptr<Drafter> drafter) {
  const std::string_view name = drafter->name();
  if (name.empty() || name == kNone || is_model_method(name) ||
      name.find('+') != std::string_view::npos || knows_part(name))
    throw Error(ErrorCode::invalid_argument,
                "a drafter named \"" + std::string(name) +
                    "\" is already there: return another name from Drafter::name()");
  hosts_.add(std::move(drafter));
}

std::vector<std::string> DraftStage::methods() const {
  std::vector<std::string> names = hosts_.names();
  if (!model_method_.empty()) names.emplace(names.begin(), model_method_);
  names.emplace(names.begin(), kNone);
  return names;
}

std::string DraftStage::method_list() const {
  const std::vector<std::string> names = methods();
  return names | ranges::views::join(std::string(", ")) | ranges::to<std::string>();
}

bool DraftStage::uses_features(std::string_view method) const noexcept {
  return features_ != nullptr && names(method, model_method_);
}

PrefixHit DraftStage::prefix_hit(std::string_view method) const noexcept {
  return uses_features(method) && adapter_->pool() != nullptr ? PrefixHit::with_features
                                                              : PrefixHit::target;
}

std::int64_t DraftStage::num_graph_passes() const noexcept {
  return (model_ == nullptr ? 0 : model_->num_graph_passes()) +
         (eagle_ == nullptr ? 0 : eagle_->head().num_graph_passes());
}

HiddenStateTap* DraftStage::tap(std::span<Sequence* const> sequences) noexcept {
  const bool wanted = std::any_of(sequences.begin(), sequences.end(),
                                  [](const Sequence* sequence) { return sequence->uses_features; });
  return wanted ? &features_->tap() : nullptr;
}

void DraftStage::keep_features(Sequence& sequence) {
  if (!sequence.uses_features || sequence.output.finished()) return;
  std::vector<std::int32_t> rows;
  for (int i = 0; i < sequence.num_known; ++i) rows.push_back(sequence.first_row + i);
  const int root_row = sequence.first_row + sequence.num_known - 1;
  for (const std::int32_t node : sequence.path.nodes)
    if (node > 0) rows.push_back(root_row + node);
  features_->keep(sequence, sequence.kv.length(KvPool::target) + 1, rows);
  // What lies before them is gone: these alone are of no use.
  if (catch_up_->has_gap(sequence.features, sequence.draft_length)) sequence.features.clear();
}

int scheduled_length(const DraftLengthConfig& config, int batch_size) {
  int scheduled = 0;
  for (const auto& [from_batch, length] : config.schedule)
    if (batch_size >= from_batch) scheduled = length;
  return scheduled;
}

void DraftStage::admit(Sequence& sequence, int batch_size) const {
  if (!uses_features(sequence.draft_method) || !backend_.computes_on_host()) return;
  sequence.uses_features = pacing_.may_pay(sequence, batch_size);
  sequence.prefix_hit =
      sequence.uses_features ? prefix_hit(sequence.draft_method) : PrefixHit::target;
}

DraftLimits DraftStage::limits(const Sequence& sequence, int batch_size, int max_rows) const {
  const int depth = std::min(depth_limit(sequence, batch_size), max_rows - 1);
  if (depth <= 0) return {};
  // On a GPU a head that the sequence has lost may come back in the coming step.
  const bool ready = may_begin(sequence) || !backend_.computes_on_host();
  const int model_depth = ready ? std::min(depth, model_limit(sequence)) : 0;
  const auto num_parts = static_cast<int>(parts_of(sequence.draft_method).size());
  const bool with_model = model_drafter_ != nullptr && names(sequence.draft_method, model_method_);
  const int num_hosts = num_parts - (with_model ? 1 : 0);
  DraftLimits limits{.depth = num_hosts > 0 ? depth : model_depth};
  if (model_depth > 0) {
    limits.nodes = model_drafter_->max_nodes(model_depth);
    limits.slots = model_drafter_->slots_needed(model_depth);
  }
  limits.nodes += num_hosts * depth;
  if (names(sequence.draft_method, kLookahead))
    limits.nodes += LookaheadDrafter::max_nodes(config_.draft.lookahead);
  limits.nodes = std::min(limits.nodes, max_rows - 1);
  // What an early exit has run keeps its slots, and the other nodes come behind.
  limits.slots = early_exit_ != nullptr && model_depth > 0
                     ? limits.slots + limits.nodes
                     : std::max(limits.slots, 1 + limits.nodes);
  return limits.nodes > 0 ? limits : DraftLimits{};
}

/// How deep a sequence of a batch of so many may draft, whoever drafts.
int DraftStage::depth_limit(const Sequence& sequence, int batch_size) const {
  if (sequence.draft_method == kNone) return 0;
  int depth = sequence.max_draft;
  if (config_.draft.length.mode == "schedule")
    depth = std::min(depth, scheduled_length(config_.draft.length, batch_size));
  // A draft emits at most its depth and a bonus token: more than the request may still emit is in
  // vain.
  const int emit_limit = sequence.request.sampling.max_tokens - sequence.num_output() - 1;
  return std::min({depth, emit_limit, max_context_ - sequence.size()});
}

/// How deep the draft model may draft, as far as its own limits go; 0 when it may not.
int DraftStage::model_limit(const Sequence& sequence) const {
  if (model_drafter_ == nullptr || !names(sequence.draft_method, model_method_)) return 0;
  return std::clamp(adapter_->max_position() - sequence.size(), 0, adapter_->max_depth());
}

/// Whether the draft model has what it begins with: heads start from the hidden state of the token
/// before the root.
bool DraftStage::may_begin(const Sequence& sequence) const {
  return features_ == nullptr || !catch_up_->has_lost(sequence);
}

void DraftStage::propose(std::span<Sequence* const> sequences) {
  for (Sequence* sequence : sequences) {
    sequence->reset_draft();
    sequence->host_drafts.clear();
    for (const TokenId token : sequence->forced) {
      sequence->tree.add(token, sequence->tree.size() - 1);
      sequence->origins.push_back(
          {.drafter = NodeOrigin::kGrammar, .confidence = 1, .estimate = 1, .survival = 1});
    }
    sequence->draft_length = sequence->kv.length(KvPool::draft);
  }
  pacing_.begin(sequences);
  // A host drafter may know how a forced text goes on; a model's passes are not worth it, and a
  // chain has one beginning.
  const bool chain_only = config_.verify.method == "block";
  const auto drafting = [&](std::string_view method) {
    const bool joins = !chain_only && method != model_method_;
    return sequences | ranges::views::filter([method, joins](const Sequence* sequence) {
             return sequence->samples && sequence->draft_depth > 0 &&
                    (joins || sequence->forced.empty()) && names(sequence->draft_method, method);
           }) |
           ranges::to<std::vector>();
  };
  for (int host = 0; host < hosts_.size(); ++host)
    hosts_.propose(host, drafting(hosts_.name(host)), chain_only);
  if (features_ != nullptr) {
    bring_heads_back(sequences);
    catch_up_->flush(sequences);
  }
  if (model_drafter_ != nullptr) propose_with_model(drafting(model_method_));
  if (translated_ != nullptr) propose_translated(drafting(model_method_));
  for (Sequence* sequence : sequences) HostDrafters::graft(*sequence, pacing_);
  pacing_.trim(sequences);
}

/// Heads come back to sequences that have gone on without, where what they have left to emit is
/// worth it. They draft from the next step on.
void DraftStage::bring_heads_back(std::span<Sequence* const> sequences) {
  // While prompts come in, they set the pace.
  if (std::ranges::any_of(sequences, [](const Sequence* sequence) {
        return sequence->num_known > 1 || !sequence->samples;
      }))
    return;
  const auto count = static_cast<int>(sequences.size());
  std::vector<Sequence*> back;
  for (Sequence* sequence : sequences) {
    const int depth = std::min(depth_limit(*sequence, count), model_limit(*sequence));
    if (depth <= 0 || !catch_up_->has_lost(*sequence) ||
        !pacing_.pays_to_return(*sequence, count, depth, catch_up_->num_missed(*sequence)) ||
        (adapter_->pool() != nullptr && !sequence->reservation.claim_draft()))
      continue;
    sequence->draft_length = sequence->kv.length(KvPool::draft);  // claiming may have found more
    back.push_back(sequence);
  }
  if (back.empty()) return;
  const auto begin = Clock::now();
  const std::int64_t before = catch_up_->num_run_again();
  catch_up_->bring_back(back);
  logger()->debug("{} comes back to {} sequences: {} tokens run again in {:.2f} ms", model_method_,
                  back.size(), catch_up_->num_run_again() - before,
                  1e3 * std::chrono::duration<double>(Clock::now() - begin).count());
}

void DraftStage::propose_with_model(std::span<Sequence* const> candidates) {
  // Two sequences may share a block whose draft slice is still to be filled: one fills it, the
  // other decodes plainly for a step and finds it filled.
  std::vector<Sequence*> sequences;
  std::vector<ModelDraftSequence> drafts;
  std::vector<std::vector<DraftNode>> drafted(candidates.size());
  for (Sequence* sequence : candidates) {
    const int limit = std::min(sequence->draft_depth, model_limit(*sequence));
    if (limit == 0 || !may_begin(*sequence)) continue;
    const bool own_kv = adapter_->pool() != nullptr;
    const int rows = own_kv ? sequence->size() - std::max(1, sequence->draft_length) : 1;
    const int depth =
        std::min(limit, pacing_.first_depth(*sequence, static_cast<int>(candidates.size()), rows));
    if (depth == 0 || (own_kv && !sequence->reservation.claim_draft())) continue;
    int length = sequence->kv.length(own_kv ? KvPool::draft : KvPool::target);
    if (sequence->uses_features) length = std::max({1, length, sequence->draft_length});
    drafts.push_back(
        {.tokens = sequence->tokens,
         .draft_length =
             mutant_active("stale_draft_kv") ? std::max(length, sequence->size() - 1) : length,
         .max_depth = depth,
         .max_nodes = std::min(sequence->draft_nodes, model_drafter_->max_nodes(depth)),
         .row = {.options = &sequence->request.sampling,
                 .seed = sequence->seed,
                 .position = sequence->size(),
                 .penalties = &sequence->penalties,
                 .path = {},
                 .num_output_tokens = sequence->num_output(),
                 .end_tokens = sequence->end_tokens,
                 .allowed = {}},
         .grammar = sequence->grammar ? &*sequence->grammar : nullptr,
         .tree = &sequence->tree,
         .draft_slots = &sequence->draft_slots,
         .drafted = &drafted[sequences.size()]});
    sequences.push_back(sequence);
  }
  if (sequences.empty()) return;
  adapter_->begin(sequences);
  int rows = 0;
  for (const ModelDraftSequence& draft : drafts)
    rows += static_cast<int>(draft.tokens.size()) - draft.draft_length;
  pacing_.begin_model(sequences, rows);
  const auto begin = Clock::now();
  model_drafter_->propose(drafts, pacing_.adaptive() && !sampled_ ? &pacing_ : nullptr);
  pacing_.end_model(std::chrono::duration<double>(Clock::now() - begin).count());
  for (std::size_t i = 0; i < sequences.size(); ++i) {
    Sequence& sequence = *sequences[i];
    if (adapter_->pool() != nullptr)
      sequence.draft_length = sequence.size();  // the root's KV is now there as well
    if (early_exit_ != nullptr) {
      const std::span<const std::int32_t> states = early_exit_->states(i);
      sequence.early_states.assign(states.begin(), states.end());
    }
    for (std::size_t node = 1; node < drafted[i].size(); ++node) {
      const DraftNode& from = drafted[i][node];
      const auto parent = static_cast<std::size_t>(sequence.tree.parents[node]);
      sequence.origins.push_back({.drafter = 0,
                                  .confidence = from.confidence,
                                  .estimate = from.estimate,
                                  .survival = sequence.origins[parent].survival * from.estimate});
    }
    if (!sequence.uses_features) continue;
    // The nodes' KV came from the head's own guesses; the target's features take its place.
    if (!mutant_active("guessed_features_kept")) sequence.draft_slots.clear();
    sequence.features.drop_before(sequence.draft_length);
  }
}

/// The draft model counts as one also where its tokens have to be translated: drafter 0.
void DraftStage::propose_translated(std::span<Sequence* const> candidates) {
  std::vector<Sequence*> sequences;
  std::vector<DraftContext> contexts;
  int most_depth = 0;
  for (Sequence* sequence : candidates) {
    const int depth =
        std::min(sequence->draft_depth,
                 pacing_.first_depth(*sequence, static_cast<int>(candidates.size()), 1));
    if (depth == 0) continue;
    most_depth = std::max(most_depth, depth);
    sequences.push_back(sequence);
    contexts.push_back(context_of(*sequence, config_.verify.method == "block"));
    contexts.back().max_depth = depth;
  }
  if (sequences.empty()) return;
  std::vector<DraftProposal> proposals(sequences.size());
  const auto begin = Clock::now();
  translated_->propose(contexts, proposals);
  pacing_.drafted(most_depth, static_cast<int>(sequences.size()),
                  std::chrono::duration<double>(Clock::now() - begin).count());
  for (std::size_t i = 0; i < sequences.size(); ++i)
    sequences[i]->host_drafts.emplace_back(0, std::move(proposals[i]));
}

void DraftStage::tell_watchers(const Sequence& sequence) { hosts_.tell_watchers(sequence); }

void DraftStage::finished(RequestId id) {
  if (translated_ != nullptr) translated_->finished(id);
  hosts_.finished(id);
}

}  // namespace specdec
