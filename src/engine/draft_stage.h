#pragma once

#include <memory>
#include <mutex>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "draft/model_drafter.h"
#include "engine/backend/backend.h"
#include "engine/model/transformer.h"
#include "engine/scheduler.h"
#include "engine/sequence.h"
#include "specdec/config.h"
#include "specdec/drafter.h"

namespace specdec {

/// The `propose` stage: knows every drafter that the engine has, and fills the draft trees of a
/// step.
class DraftStage {
 public:
  /// `draft_model` may be null. `max_context`: the longest sequence that the cache holds.
  DraftStage(const Config& config, Backend& backend, std::unique_ptr<Transformer> draft_model,
             int vocab_size, int max_context);
  ~DraftStage();

  /// Throws Error(invalid_argument) when the name is taken. Stepping thread only.
  void add(std::unique_ptr<Drafter> drafter);
  /// Thread-safe, like the two below.
  bool knows(std::string_view method) const;
  std::vector<std::string> methods() const;
  /// The methods as one line, for messages.
  std::string method_list() const;

  /// How far `sequence` may draft in a step with `batch_size` decoding sequences and `max_rows`
  /// rows for it.
  DraftLimits limits(const Sequence& sequence, int batch_size, int max_rows) const;
  /// Sets tree, draft_slots and draft_length of every sequence that samples.
  void propose(std::span<Sequence* const> sequences);
  /// The request is over: host drafters may forget it.
  void finished(RequestId id);

  const Transformer* draft_model() const noexcept { return draft_model_.get(); }

 private:
  class Adapter;

  struct HostDrafter {
    std::unique_ptr<Drafter> drafter;
    bool complained = false;  // its first fault is logged as a warning, later ones at debug level
  };

  void propose_on_host(HostDrafter& host, std::span<Sequence* const> sequences);
  static void complain(HostDrafter& host, std::string_view fault);
  void propose_with_model(std::span<Sequence* const> candidates);

  const Config& config_;
  Backend& backend_;
  std::unique_ptr<Transformer> draft_model_;
  std::unique_ptr<Adapter> adapter_;
  std::unique_ptr<ModelDrafter> model_drafter_;
  mutable std::mutex
      mutex_;  // guards additions to host_drafters_ against lookups from other threads
  std::vector<HostDrafter> host_drafters_;
  int vocab_size_;
  int max_context_;
};

}  // namespace specdec
