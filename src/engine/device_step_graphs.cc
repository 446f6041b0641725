#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "engine/backend/cuda_backend.h"
#include "engine/device_forward_graphs.h"
#include "engine/log.h"
#include "engine/memory_check.h"
#include "engine/step_graphs.h"

namespace specdec {

namespace {

/// Rows of one sequence's verification: of drafts that may have any length, or of the longest and
/// of none.
std::vector<int> verified_rows(const DraftConfig& draft, bool any_length, int most_nodes) {
  std::vector<int> rows = {1};
  if (draft.method == "none") return rows;
  for (int some = 2; any_length && some <= most_nodes; some *= 2) rows.push_back(some);
  rows.push_back(1 + most_nodes);
  return rows;
}

}  // namespace

void add_step_graphs(const Config& config, Backend& backend, Transformer& target,
                     DraftStage& drafts, int max_context) {
  auto* const gpu = dynamic_cast<CudaBackend*>(&backend);
  if (gpu == nullptr || !config.backend.step_graphs) return;
  const ForwardGraphs::Options options{.max_sequences = config.scheduler.max_num_seqs,
                                       .max_context = max_context,
                                       .block_size = config.kv_cache.block_size};
  Transformer* const draft = drafts.model();
  EagleHead* const head = drafts.eagle() == nullptr ? nullptr : &drafts.eagle()->head();
  std::vector<GraphedModel> models = {GraphedModel::of(target)};
  if (draft != nullptr) models.push_back(GraphedModel::of(*draft));
  if (head != nullptr) models.push_back(GraphedModel::of(*head));
  std::size_t needed = 0;
  for (const GraphedModel& model : models)
    needed += ForwardGraphs::bytes(model, options) + ForwardGraphs::kGraphBytes;
  require_graphs_fit(config, needed, backend.free_memory().value_or(SIZE_MAX));

  const bool trees =
      config.draft.tree.topk > 1 || config.draft.method.find('+') != std::string::npos;
  const bool any_length = trees || config.draft.length.mode != "fixed";
  const int most_nodes = std::max(config.draft.length.num_speculative_tokens,
                                  trees ? config.draft.tree.num_draft_tokens : 0);
  const std::vector<int> rows = verified_rows(config.draft, any_length, most_nodes);
  HiddenStateTap* const tap =
      drafts.uses_features(config.draft.method) ? drafts.feature_tap() : nullptr;
  int captured = 0;
  const auto give = [&](auto& model, const auto& warm_up) {
    auto graphs = std::make_unique<ForwardGraphs>(*gpu, GraphedModel::of(model), options);
    warm_up(*graphs);
    captured += graphs->num_graphs();
    model.set_graphs(std::move(graphs));
  };
  give(target, [&](ForwardGraphs& graphs) {
    graphs.warm_up(rows, false, tap);
    if (trees) graphs.warm_up(rows, true, tap);
  });
  // The root, and the token before it; then a chain's levels.
  const int few[] = {1, 2};
  const auto warm_draft = [&](ForwardGraphs& graphs) { graphs.warm_up(few, false, nullptr); };
  if (draft != nullptr) give(*draft, warm_draft);
  if (head != nullptr) give(*head, warm_draft);
  log_debug("graphs of single steps: {} MiB set aside, {} captured", needed >> 20U, captured);
}

}  // namespace specdec
