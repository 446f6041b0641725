#include "engine/draft_stage.h"

#include <algorithm>
#include <exception>
#include <range/v3/range/conversion.hpp>
#include <range/v3/view/filter.hpp>
#include <range/v3/view/join.hpp>

#include "draft/ngram_drafter.h"
#include "engine/log.h"
#include "sampling/mutation.h"
#include "specdec/error.h"
#include "verify/verify.h"

namespace specdec {

namespace {

constexpr std::string_view kNone = "none";
constexpr std::string_view kDraftModel = "draft_model";
constexpr std::string_view kEagle3 = "eagle3";

// Features that a sequence may carry along without drafting, before they are made into KV.
constexpr int kMostPending = 16;

/// Copies a host drafter's answer into the tree; false when it breaks the rules of Drafter.
bool take_proposal(const DraftProposal& proposal, const DraftContext& limits, int vocab_size,
                   DraftTree& tree) {
  const std::span<const TokenId> tokens = proposal.tokens();
  const std::span<const int> parents = proposal.parents();
  if (static_cast<int>(tokens.size()) > limits.max_nodes) return false;
  for (std::size_t i = 0; i < tokens.size(); ++i) {
    const bool parent_known =
        parents[i] == DraftProposal::kRoot || (parents[i] >= 0 && parents[i] < static_cast<int>(i));
    if (!parent_known || tokens[i] < 0 || tokens[i] >= vocab_size) return false;
    const int node = tree.add(tokens[i], parents[i] + 1);
    if (tree.depths[static_cast<std::size_t>(node)] > limits.max_depth) return false;
  }
  return true;
}

}  // namespace

DraftStage::DraftStage(const Config& config, Backend& backend, int vocab_size, int max_context)
    : config_(config), backend_(backend), vocab_size_(vocab_size), max_context_(max_context) {
  host_drafters_.push_back({.drafter = std::make_unique<NgramDrafter>(config.draft.ngram)});
}

void DraftStage::set_model(std::unique_ptr<Transformer> draft) {
  set_adapter(kDraftModel, std::make_unique<TransformerAdapter>(std::move(draft), max_context_));
}

void DraftStage::set_model(std::unique_ptr<EagleHead> head) {
  const SchedulerConfig& scheduler = config_.scheduler;
  auto adapter = std::make_unique<EagleAdapter>(
      backend_, std::move(head), max_context_,
      scheduler.max_num_batched_tokens + scheduler.max_num_seqs * 2 * kMostPending);
  eagle_ = adapter.get();
  set_adapter(kEagle3, std::move(adapter));
}

void DraftStage::set_adapter(std::string_view method, std::unique_ptr<DraftAdapter> adapter) {
  model_method_ = method;
  adapter_ = std::move(adapter);
  model_drafter_ = std::make_unique<ModelDrafter>(
      *adapter_, backend_.host_executor(),
      ModelDrafterOptions{
          .topk = config_.draft.tree.topk,
          .num_draft_tokens = config_.draft.tree.num_draft_tokens,
          .min_confidence = config_.draft.length.min_confidence,
          .sampled = wants_sampled_draft(*parse_verify_method(config_.verify.method))});
}

DraftStage::~DraftStage() = default;

bool DraftStage::knows(std::string_view method) const {
  if (method == kNone) return true;
  if (method == kDraftModel || method == kEagle3) return method == model_method_;
  const std::lock_guard lock(mutex_);
  return std::any_of(host_drafters_.begin(), host_drafters_.end(),
                     [&](const HostDrafter& host) { return host.drafter->name() == method; });
}

void DraftStage::add(std::unique_ptr<Drafter> drafter) {
  const std::string_view name = drafter->name();
  if (name.empty() || name == kDraftModel || name == kEagle3 || knows(name))
    throw Error(ErrorCode::invalid_argument,
                "a drafter named \"" + std::string(name) +
                    "\" is already there: return another name from Drafter::name()");
  const std::lock_guard lock(mutex_);
  host_drafters_.push_back({.drafter = std::move(drafter)});
}

std::vector<std::string> DraftStage::methods() const {
  const std::lock_guard lock(mutex_);
  std::vector<std::string> names{std::string(kNone)};
  if (adapter_ != nullptr) names.emplace_back(model_method_);
  for (const HostDrafter& host : host_drafters_) names.emplace_back(host.drafter->name());
  return names;
}

std::string DraftStage::method_list() const {
  const std::vector<std::string> names = methods();
  return names | ranges::views::join(std::string(", ")) | ranges::to<std::string>();
}

bool DraftStage::uses_features(std::string_view method) const noexcept {
  return eagle_ != nullptr && method == kEagle3;
}

HiddenStateTap* DraftStage::tap(std::span<Sequence* const> sequences) noexcept {
  const bool wanted = std::any_of(sequences.begin(), sequences.end(),
                                  [](const Sequence* sequence) { return sequence->uses_features; });
  return wanted ? &eagle_->tap() : nullptr;
}

void DraftStage::keep_features(Sequence& sequence) {
  if (!sequence.uses_features || sequence.output.finished()) return;
  std::vector<std::int32_t> rows;
  for (int i = 0; i < sequence.num_known; ++i) rows.push_back(sequence.first_row + i);
  const int root_row = sequence.first_row + sequence.num_known - 1;
  for (const std::int32_t node : sequence.path.nodes)
    if (node > 0) rows.push_back(root_row + node);
  eagle_->keep(sequence, sequence.kv.length(KvPool::target) + 1, rows);
}

DraftLimits DraftStage::limits(const Sequence& sequence, int batch_size, int max_rows) const {
  const bool with_model = sequence.draft_method == model_method_;
  if (sequence.draft_method == kNone) return {};
  // An EAGLE head starts from the hidden state of the token before the root.
  if (sequence.uses_features && sequence.features.end() != sequence.size()) return {};
  int depth = sequence.max_draft;
  if (config_.draft.length.mode == "schedule") {
    int scheduled = 0;
    for (const auto& [from_batch, length] : config_.draft.length.schedule)
      if (batch_size >= from_batch) scheduled = length;
    depth = std::min(depth, scheduled);
  }
  // A draft emits at most its depth and a bonus token: more than the request may still emit is in
  // vain.
  const int emit_limit = sequence.request.sampling.max_tokens - sequence.num_output() - 1;
  const int last_position =
      with_model ? std::min(max_context_, adapter_->max_position()) : max_context_;
  depth = std::min({depth, emit_limit, last_position - sequence.size(), max_rows - 1});
  if (depth <= 0) return {};
  if (!with_model) return {.depth = depth, .nodes = depth, .slots = 1 + depth};
  const int nodes = std::min(model_drafter_->max_nodes(depth), max_rows - 1);
  return {.depth = depth, .nodes = nodes, .slots = model_drafter_->slots_needed(depth)};
}

void DraftStage::propose(std::span<Sequence* const> sequences) {
  for (Sequence* sequence : sequences) {
    sequence->tree.reset(sequence->tokens.back());
    sequence->draft_slots.clear();
    sequence->draft_length = sequence->kv.length(KvPool::draft);
  }
  const auto drafting = [&](std::string_view method) {
    return sequences | ranges::views::filter([method](const Sequence* sequence) {
             return sequence->samples && sequence->draft_depth > 0 &&
                    sequence->draft_method == method;
           }) |
           ranges::to<std::vector>();
  };
  if (model_drafter_ != nullptr) propose_with_model(drafting(model_method_));
  if (eagle_ != nullptr) flush_features(sequences);
  for (HostDrafter& host : host_drafters_) propose_on_host(host, drafting(host.drafter->name()));
}

void DraftStage::complain(HostDrafter& host, std::string_view fault) {
  const auto level = host.complained ? spdlog::level::debug : spdlog::level::warn;
  logger()->log(level, "drafter {} {}: decoding plainly", host.drafter->name(), fault);
  host.complained = true;
}

void DraftStage::propose_on_host(HostDrafter& host, std::span<Sequence* const> sequences) {
  if (sequences.empty()) return;
  std::vector<DraftContext> contexts;
  for (const Sequence* sequence : sequences)
    contexts.push_back({.id = sequence->id,
                        .tokens = sequence->tokens,
                        .num_prompt_tokens = sequence->num_prompt_tokens,
                        .max_depth = sequence->draft_depth,
                        .max_nodes = sequence->draft_nodes,
                        .sampling = &sequence->request.sampling});
  std::vector<DraftProposal> proposals(sequences.size());
  try {
    host.drafter->propose(contexts, proposals);
  } catch (const std::exception& error) {
    complain(host, std::string("threw ") + error.what());
    return;
  }
  const bool chain_only = config_.verify.method == "block";
  for (std::size_t i = 0; i < sequences.size(); ++i) {
    DraftTree& tree = sequences[i]->tree;
    if (take_proposal(proposals[i], contexts[i], vocab_size_, tree) &&
        !(chain_only && !tree.is_chain()))
      continue;
    complain(host, "proposed a tree outside its limits");
    tree.reset(sequences[i]->tokens.back());
  }
}

void DraftStage::propose_with_model(std::span<Sequence* const> candidates) {
  // Two sequences may share a block whose draft slice is still to be filled: one fills it, the
  // other decodes plainly for a step and finds it filled.
  std::vector<Sequence*> sequences;
  for (Sequence* sequence : candidates) {
    if (!sequence->reservation.claim_draft()) continue;
    sequence->draft_length = sequence->kv.length(KvPool::draft);
    if (sequence->uses_features) sequence->draft_length = std::max(1, sequence->draft_length);
    sequences.push_back(sequence);
  }
  if (sequences.empty()) return;
  std::vector<ModelDraftSequence> drafts;
  for (Sequence* sequence : sequences) {
    int length = sequence->draft_length;
    if (mutant_active("stale_draft_kv")) length = std::max(length, sequence->size() - 1);
    drafts.push_back({.tokens = sequence->tokens,
                      .draft_length = length,
                      .max_depth = sequence->draft_depth,
                      .max_nodes = sequence->draft_nodes,
                      .row = {.options = &sequence->request.sampling,
                              .seed = sequence->seed,
                              .position = sequence->size(),
                              .penalties = &sequence->penalties,
                              .path = {},
                              .num_output_tokens = sequence->num_output(),
                              .end_tokens = sequence->end_tokens},
                      .tree = &sequence->tree,
                      .draft_slots = &sequence->draft_slots});
  }
  adapter_->begin(sequences);
  model_drafter_->propose(drafts);
  for (Sequence* sequence : sequences) {
    sequence->draft_length = sequence->size();  // the root's KV is now there as well
    if (!sequence->uses_features) continue;
    // The nodes' KV came from the head's own guesses; the target's features take its place.
    if (!mutant_active("stale_draft_kv")) sequence->draft_slots.clear();
    sequence->features.drop_before(sequence->draft_length);
  }
}

/// Makes KV of features that have piled up in sequences which do not draft: prompts, and phases of
/// plain decoding. Needs no attention, so it costs little.
void DraftStage::flush_features(std::span<Sequence* const> sequences) {
  for (Sequence* const& sequence : sequences) {
    if (sequence->features.size() <= kMostPending || !sequence->reservation.claim_draft()) continue;
    int& length = sequence->draft_length;
    length = std::max(1, sequence->kv.length(KvPool::draft));
    eagle_->begin({&sequence, 1});
    while (length < sequence->features.end()) {
      DraftRows rows{.sequence = 0, .context_len = length, .rows = {}};
      const int end = std::min(sequence->features.end(), length + eagle_->max_rows());
      for (int entry = length; entry < end; ++entry)
        rows.rows.push_back({.token = sequence->tokens[static_cast<std::size_t>(entry)],
                             .position = entry,
                             .path_slots = {},
                             .wants_logits = false});
      eagle_->forward({&rows, 1});
      length = end;
    }
    sequence->features.drop_before(length);
  }
}

void DraftStage::finished(RequestId id) {
  for (HostDrafter& host : host_drafters_) {
    try {
      host.drafter->finished(id);
    } catch (const std::exception& error) {
      complain(host, std::string("threw in finished(): ") + error.what());
    }
  }
}

}  // namespace specdec
