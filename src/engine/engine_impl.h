#pragma once

#include <memory>
#include <mutex>
#include <optional>
#include <unordered_map>
#include <vector>

#include "engine/backend/backend.h"
#include "engine/cache/kv_cache_manager.h"
#include "engine/device_steps.h"
#include "engine/draft_stage.h"
#include "engine/model/transformer.h"
#include "engine/request_queue.h"
#include "engine/scheduler.h"
#include "engine/step.h"
#include "specdec/engine.h"
#include "specdec/error.h"

namespace specdec {

/// The parts of an engine, in order of construction. Only `queue`, `tokenizer`, `vocabulary` and
/// `grammars` are touched by other threads.
struct Engine::Impl {
  explicit Impl(const Config& engine_config);

  /// The costs of this engine's passes, from the cache or measured.
  void find_costs(int num_blocks);
  RequestId submit(Request request);
  bool step();
  void finish(std::unique_ptr<Sequence> sequence, Output output);
  void cancel_requested();
  void run_step(std::span<Sequence* const> batch);
  /// Of all models since they were loaded, passes that cost measurements made included.
  std::int64_t num_graph_passes() const;
  /// Ends every request with the device's error.
  void fail_all();
  void check_invariants() const;
  /// The tokenizer's, made when the first request with a grammar comes. Thread-safe.
  const GrammarVocabulary& grammar_vocabulary();

  Config config;
  std::unique_ptr<Backend> backend;
  std::unique_ptr<Tokenizer> tokenizer;
  std::unique_ptr<Transformer> target;
  std::unique_ptr<KvCacheManager> cache;
  int max_context = 0;
  std::unique_ptr<DraftStage> drafts;
  std::unique_ptr<Scheduler> scheduler;
  std::unique_ptr<Step> stepper;
  RequestQueue queue;
  std::unique_ptr<DeviceSteps> device_steps;  // null: every step goes through `stepper`
  std::once_flag vocabulary_made;
  std::optional<GrammarVocabulary> vocabulary;
  GrammarCache grammars;

  std::optional<Error> device_fault;  // set: the device is lost, and all requests with it
  EngineStats stats;
  std::vector<Output> outputs;  // of the step in progress
  bool record_trees = false;
  std::unordered_map<RequestId, TreeSnapshot>
      finished_trees;  // of the latest step that finished requests
};

}  // namespace specdec
