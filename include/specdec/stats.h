#pragma once

#include <cstdint>
#include <utility>
#include <vector>

#include "specdec/export.h"

namespace specdec {

/// What speculation did: for one request, or for an engine since it was loaded. Counter names are
/// those that vLLM, SGLang and TensorRT-LLM share. The bonus token counts in the mean length, not
/// in the rate.
struct SpeculationStats {
  std::int64_t spec_decode_num_drafts =
      0;  ///< draft trees verified (with at least one draft token)
  std::int64_t spec_decode_num_draft_tokens = 0;     ///< draft tokens verified
  std::int64_t spec_decode_num_accepted_tokens = 0;  ///< draft tokens accepted
  /// [depth - 1]: how many drafts had their token at that depth accepted
  std::vector<std::int64_t> spec_decode_num_accepted_tokens_per_pos;
  /// [n]: how many drafts had exactly n draft tokens accepted
  std::vector<std::int64_t> acceptance_histogram;
  std::int64_t num_spec_steps = 0;     ///< decode steps, drafted or not
  std::int64_t num_output_tokens = 0;  ///< tokens that those steps emitted

  /// Tokens per decode step, bonus token included; 0 when there was none.
  double mean_acceptance_length() const noexcept {
    return num_spec_steps == 0
               ? 0.0
               : static_cast<double>(num_output_tokens) / static_cast<double>(num_spec_steps);
  }
  /// Accepted over drafted tokens; 0 when nothing was drafted.
  double draft_acceptance_rate() const noexcept {
    return spec_decode_num_draft_tokens == 0
               ? 0.0
               : static_cast<double>(spec_decode_num_accepted_tokens) /
                     static_cast<double>(spec_decode_num_draft_tokens);
  }

  /// Records one verified draft: `num_draft_tokens` in a tree of `depth` levels, `num_accepted` of
  /// them emitted.
  SPECDEC_API void record_draft(int num_draft_tokens, int num_accepted);
  SPECDEC_API void merge(const SpeculationStats& other);
};

/// One request, complete when its last output is out. Times in seconds.
struct RequestStats {
  int num_prompt_tokens = 0;
  int num_cached_tokens = 0;  ///< prompt tokens whose KV came from the prefix cache
  int num_output_tokens = 0;
  int num_preemptions = 0;
  double queue_time = 0;
  double time_to_first_token = 0;    ///< from submit
  double time_per_output_token = 0;  ///< mean over the tokens after the first
  double total_time = 0;
  SpeculationStats speculation;
};

/// One engine since it was loaded.
struct EngineStats {
  std::int64_t num_steps = 0;
  std::int64_t num_device_steps = 0;  ///< of them, those that a GPU ran without the host's help
  /// passes of models in other steps that a GPU ran as one graph
  std::int64_t num_graph_passes = 0;
  std::int64_t num_requests_submitted = 0;
  std::int64_t num_requests_finished =
      0;  ///< for whatever reason, cancelled and failed ones included
  std::int64_t num_preemptions = 0;
  std::int64_t num_prefill_tokens = 0;
  std::int64_t num_output_tokens = 0;
  /// Committed tokens that the target ran again so that an EAGLE head could come back.
  std::int64_t num_returned_tokens = 0;
  int num_running = 0;
  int num_waiting = 0;
  int kv_blocks_total = 0;
  int kv_blocks_free = 0;    ///< never written or evicted
  int kv_blocks_cached = 0;  ///< held by the prefix index alone
  int kv_blocks_held = 0;    ///< owned by running requests
  std::int64_t prefix_query_tokens = 0;
  std::int64_t prefix_hit_tokens = 0;
  // Seconds spent in each stage of the step.
  double draft_time = 0;
  double grammar_time = 0;  ///< what of the grammars' work no forward pass hides
  double forward_time = 0;  ///< where a GPU draws the tokens, until the pass has been enqueued
  double sample_time = 0;   ///< there, with the wait for the pass
  double commit_time = 0;
  SpeculationStats speculation;
  /// (rows, seconds) of a pass of the target and of the draft model, measured at load when lengths
  /// are adaptive; empty otherwise.
  std::vector<std::pair<int, double>> verify_costs;
  std::vector<std::pair<int, double>> draft_costs;

  double prefix_hit_rate() const noexcept {
    return prefix_query_tokens == 0
               ? 0.0
               : static_cast<double>(prefix_hit_tokens) / static_cast<double>(prefix_query_tokens);
  }
};

}  // namespace specdec
