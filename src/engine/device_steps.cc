#include "engine/device_steps.h"

#include <algorithm>
#include <string>
#include <string_view>
#include <utility>

#include "engine/backend/cuda_backend.h"
#include "engine/device_stepper.h"
#include "engine/log.h"
#include "specdec/error.h"

namespace specdec {

namespace cuda = kernels::cuda;

namespace {

constexpr int kMostLogprobs = 20;  // of the most likely tokens; requests for more take single steps

/// The depths below the longest that runs may have, rising.
std::vector<int> shorter_depths(const DraftLengthConfig& length) {
  std::vector<int> depths;
  if (length.mode == "adaptive")
    for (int depth = length.num_speculative_tokens; depth > 1;)
      depths.push_back(depth = (2 * depth + 1) / 3);
  if (length.mode == "schedule")
    for (const auto& [from_batch, depth] : length.schedule) depths.push_back(depth);
  std::sort(depths.begin(), depths.end());
  depths.erase(std::unique(depths.begin(), depths.end()), depths.end());
  return depths;
}

cuda::SampledRule rule_of(std::string_view method) {
  return method == "block"       ? cuda::SampledRule::block
         : method == "traversal" ? cuda::SampledRule::traversal
                                 : cuda::SampledRule::rejection;
}

/// Lets depths follow costs of turns, from the cache or measured.
void set_costs(DeviceStepper& stepper, const StepParts& parts) {
  const std::string key = turn_cost_key(parts.config, parts.backend.name(),
                                        parts.backend.host_executor().num_threads());
  const MeasuredCosts costs =
      CostCache(parts.config.draft.length.cost_cache).find_or_measure(key, [&] {
        return stepper.measure_costs();
      });
  for (const auto& [depth, points] : costs.turns)
    for (const auto& [sequences, seconds] : points)
      log_debug("costs: a turn of {} sequences with drafts of {} tokens {:.2f} ms", sequences,
                depth, 1e3 * seconds);
  stepper.set_costs(costs);
}

}  // namespace

std::unique_ptr<DeviceSteps> make_device_steps(const StepParts& parts,
                                               std::function<bool()> interrupted) {
  const Config& config = parts.config;
  auto* const backend = dynamic_cast<CudaBackend*>(&parts.backend);
  if (backend == nullptr || !config.backend.device_loop || config.verify.method == "typical" ||
      !config.draft.tree.choices.empty())
    return nullptr;
  DeviceLoopOptions options{.device = backend->device(),
                            .stream = backend->stream(),
                            .vocab = parts.target.config().vocab_size,
                            .max_context = parts.max_context,
                            .max_turns = LoopPacing::kMostTurns,
                            .most_logprobs = kMostLogprobs};
  if (config.verify.method != "coupled") options.rule = rule_of(config.verify.method);
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
  if (options.draft != DeviceDraft::none) {
    options.depth = config.draft.length.num_speculative_tokens;
    options.depths = shorter_depths(config.draft.length);
    options.most_graphs *= 1 + static_cast<int>(options.depths.size());
  }
  options.nodes = options.topk > 1 ? config.draft.tree.num_draft_tokens : options.depth;
  const int most_rows = std::max({1 + options.nodes, options.topk,
                                  options.draft == DeviceDraft::eagle ? 1 + options.depth : 2});
  options.max_sequences =
      std::min(config.scheduler.max_num_seqs, parts.target.max_rows() / most_rows);
  if (options.max_sequences < 1) return nullptr;
  options.blocks_per_sequence = parts.max_context / config.kv_cache.block_size + 2;
  try {
    auto stepper =
        std::make_unique<DeviceStepper>(parts, *backend, options, std::move(interrupted));
    if (config.draft.length.mode == "adaptive" && options.depth > 0) set_costs(*stepper, parts);
    return stepper;
  } catch (const Error& error) {
    if (error.code() != ErrorCode::unsupported) throw;
    log_info("steps are run one by one: {}", error.what());
    return nullptr;
  }
}

}  // namespace specdec
