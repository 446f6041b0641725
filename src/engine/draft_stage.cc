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

/// Runs the draft's transformer over rows of the sequences of one propose call.
class DraftStage::Adapter final : public DraftModel {
 public:
  Adapter(Transformer& transformer, int max_position)
      : transformer_(transformer), max_position_(max_position) {}

  void set_sequences(std::span<Sequence* const> sequences) { sequences_ = sequences; }

  int vocab_size() const override { return transformer_.config().vocab_size; }
  int max_rows() const override { return transformer_.max_rows(); }
  int max_position() const override { return max_position_; }

  std::span<const float> forward(std::span<const DraftRows> batch) override {
    batch_.clear();
    for (const DraftRows& rows : batch) {
      batch_.begin_sequence(rows.context_len,
                            sequences_[static_cast<std::size_t>(rows.sequence)]->kv.block_table());
      for (const DraftRow& row : rows.rows) {
        if (row.path_slots.empty())
          batch_.add_row(row.token, row.position, row.wants_logits);
        else
          batch_.add_row(row.token, row.position, row.path_slots, row.wants_logits);
      }
    }
    return transformer_.forward(batch_, Stream{});
  }

 private:
  Transformer& transformer_;
  int max_position_;
  std::span<Sequence* const> sequences_;
  ForwardBatch batch_;
};

DraftStage::DraftStage(const Config& config, Backend& backend,
                       std::unique_ptr<Transformer> draft_model, int vocab_size, int max_context)
    : config_(config),
      backend_(backend),
      draft_model_(std::move(draft_model)),
      vocab_size_(vocab_size),
      max_context_(max_context) {
  host_drafters_.push_back({.drafter = std::make_unique<NgramDrafter>(config.draft.ngram)});
  if (draft_model_ == nullptr) return;
  const int max_position = std::min(max_context, draft_model_->config().max_position);
  adapter_ = std::make_unique<Adapter>(*draft_model_, max_position);
  model_drafter_ = std::make_unique<ModelDrafter>(
      *adapter_, backend.host_executor(),
      ModelDrafterOptions{
          .topk = config.draft.tree.topk,
          .num_draft_tokens = config.draft.tree.num_draft_tokens,
          .min_confidence = config.draft.length.min_confidence,
          .sampled = wants_sampled_draft(*parse_verify_method(config.verify.method))});
}

DraftStage::~DraftStage() = default;

bool DraftStage::knows(std::string_view method) const {
  if (method == kNone) return true;
  if (method == kDraftModel) return draft_model_ != nullptr;
  const std::lock_guard lock(mutex_);
  return std::any_of(host_drafters_.begin(), host_drafters_.end(),
                     [&](const HostDrafter& host) { return host.drafter->name() == method; });
}

void DraftStage::add(std::unique_ptr<Drafter> drafter) {
  const std::string_view name = drafter->name();
  if (name.empty() || name == kDraftModel || knows(name))
    throw Error(ErrorCode::invalid_argument,
                "a drafter named \"" + std::string(name) +
                    "\" is already there: return another name from Drafter::name()");
  const std::lock_guard lock(mutex_);
  host_drafters_.push_back({.drafter = std::move(drafter)});
}

std::vector<std::string> DraftStage::methods() const {
  const std::lock_guard lock(mutex_);
  std::vector<std::string> names{std::string(kNone)};
  if (draft_model_ != nullptr) names.emplace_back(kDraftModel);
  for (const HostDrafter& host : host_drafters_) names.emplace_back(host.drafter->name());
  return names;
}

std::string DraftStage::method_list() const {
  const std::vector<std::string> names = methods();
  return names | ranges::views::join(std::string(", ")) | ranges::to<std::string>();
}

DraftLimits DraftStage::limits(const Sequence& sequence, int batch_size, int max_rows) const {
  const bool with_model = sequence.draft_method == kDraftModel;
  if (sequence.draft_method == kNone) return {};
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
    for (const TokenId token : sequence->forced)
      sequence->tree.add(token, sequence->tree.size() - 1);
    sequence->draft_length = sequence->kv.length(KvPool::draft);
  }
  const auto drafting = [&](std::string_view method) {
    return sequences | ranges::views::filter([method](const Sequence* sequence) {
             return sequence->samples && sequence->draft_depth > 0 && sequence->forced.empty() &&
                    sequence->draft_method == method;
           }) |
           ranges::to<std::vector>();
  };
  if (model_drafter_ != nullptr) propose_with_model(drafting(kDraftModel));
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
                              .end_tokens = sequence->end_tokens,
                              .allowed = {}},
                      .grammar = sequence->grammar ? &*sequence->grammar : nullptr,
                      .tree = &sequence->tree,
                      .draft_slots = &sequence->draft_slots});
  }
  adapter_->set_sequences(sequences);
  model_drafter_->propose(drafts);
  // The root's KV is now there as well.
  for (Sequence* sequence : sequences) sequence->draft_length = sequence->size();
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
