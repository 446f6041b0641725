#pragma once

#include <deque>
#include <functional>
#include <memory>
#include <vector>

#include "engine/cache/kv_cache_manager.h"
#include "engine/sequence.h"
#include "specdec/config.h"

namespace specdec {

/// How far a sequence may draft in the coming step.
struct DraftLimits {
  int depth = 0;  // longest path
  int nodes = 0;  // most draft tokens
  int slots = 1;  // KV slots to reserve, the root's included
};

/// Decides who runs in a step: first come, first served, under a token budget and the blocks that
/// are left. Prompts are taken in chunks. When blocks run out, the youngest running sequence gives
/// its own back and waits at the front of the queue; it is recomputed later, with the same tokens.
/// Belongs to the stepping thread.
class Scheduler {
 public:
  /// `draft_limits(sequence, batch size, most rows)`: asked once per decoding sequence and step.
  using DraftPolicy = std::function<DraftLimits(const Sequence&, int batch_size, int max_rows)>;

  /// `admission(sequence, batch size)`: told of a sequence before it is given blocks, again after a
  /// preemption.
  using AdmissionPolicy = std::function<void(Sequence&, int batch_size)>;

  Scheduler(const SchedulerConfig& config, KvCacheManager& cache, DraftPolicy draft_policy,
            AdmissionPolicy admission);

  void add(std::unique_ptr<Sequence> sequence);
  /// Takes a sequence out, wherever it is; null when it is not here.
  std::unique_ptr<Sequence> remove(RequestId id);

  /// Takes all of them out, oldest first.
  std::vector<std::unique_ptr<Sequence>> remove_all();

  /// Admits, reserves slots and returns the sequences of the coming step, oldest first, with
  /// num_known, samples, draft_* and reservation set.
  std::vector<Sequence*> plan();

  int num_running() const noexcept { return static_cast<int>(running_.size()); }
  int num_waiting() const noexcept { return static_cast<int>(waiting_.size()); }
  std::int64_t num_preemptions() const noexcept { return num_preemptions_; }
  std::int64_t prefix_query_tokens() const noexcept { return prefix_query_tokens_; }
  std::int64_t prefix_hit_tokens() const noexcept { return prefix_hit_tokens_; }
  /// Every sequence that holds blocks, for invariant checks.
  std::vector<const KvSequence*> cache_sequences() const;
  const Sequence* find(RequestId id) const;

 private:
  void admit();
  bool reserve(Sequence& sequence, int count, int fallback_count);
  void preempt_youngest();

  SchedulerConfig config_;
  KvCacheManager& cache_;
  DraftPolicy draft_policy_;
  AdmissionPolicy admission_;
  std::deque<std::unique_ptr<Sequence>> waiting_;
  std::vector<std::unique_ptr<Sequence>> running_;  // by arrival
  std::int64_t num_preemptions_ = 0;
  std::int64_t prefix_query_tokens_ = 0;
  std::int64_t prefix_hit_tokens_ = 0;
};

}  // namespace specdec
