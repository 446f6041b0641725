#pragma once

#include <condition_variable>
#include <memory>
#include <mutex>
#include <unordered_set>
#include <vector>

#include "engine/sequence.h"
#include "specdec/stats.h"

namespace specdec {

/// Where other threads meet the stepping thread: new requests and cancellations go in, outputs and
/// statistics come out. Every member is thread-safe.
class RequestQueue {
 public:
  explicit RequestQueue(int max_queue) : max_queue_(max_queue) {}

  /// Throws Error(queue_full).
  RequestId push(std::unique_ptr<Sequence> sequence);
  /// False: unknown, or already finished.
  bool cancel(RequestId id);
  void wait_for_work();
  void wake();
  std::vector<Output> take_outputs();
  EngineStats stats() const;

  /// Whether requests or cancellations wait for the stepping thread.
  bool has_news() const;

  // For the stepping thread.
  std::vector<std::unique_ptr<Sequence>> take_submitted();
  std::vector<RequestId> take_cancelled();
  void publish(std::vector<Output> outputs, const EngineStats& stats);

 private:
  const int max_queue_;
  mutable std::mutex mutex_;
  std::condition_variable work_;
  bool woken_ = false;
  RequestId next_id_ = 1;
  std::vector<std::unique_ptr<Sequence>> submitted_;
  std::vector<RequestId> cancelled_;
  std::unordered_set<RequestId> live_;
  std::vector<Output> outputs_;
  EngineStats stats_;
};

}  // namespace specdec
