#pragma once

#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "draft/model_drafter.h"
#include "engine/backend/backend.h"
#include "engine/cost_cache.h"
#include "engine/draft_adapter.h"
#include "engine/draft_catch_up.h"
#include "engine/draft_pacing.h"
#include "engine/eagle_adapter.h"
#include "engine/early_exit.h"
#include "engine/host_drafters.h"
#include "engine/medusa_adapter.h"
#include "engine/model/eagle_head.h"
#include "engine/model/medusa_heads.h"
#include "engine/model/transformer.h"
#include "engine/scheduler.h"
#include "engine/sequence.h"
#include "engine/translated_drafter.h"
#include "specdec/config.h"
#include "specdec/drafter.h"

namespace specdec {

/// What the schedule of draft.length says for a batch of so many sequences.
int scheduled_length(const DraftLengthConfig& config, int batch_size);

/// The `propose` stage: knows every drafter that the engine has, and fills the draft trees of a
/// step.
class DraftStage {
 public:
  /// `max_context`: the longest sequence that the cache holds.
  DraftStage(const Config& config, Backend& backend, int vocab_size, int max_context);
  ~DraftStage();

  /// The one draft model of the engine, before the first step: it becomes the method "draft_model",
  /// "eagle3", "medusa" or "early_exit".
  void set_model(std::unique_ptr<Transformer> draft);
  /// Heads read the hidden states of `target`, which must outlive this.
  void set_model(std::unique_ptr<EagleHead> head, Transformer& target);
  void set_model(std::unique_ptr<MedusaHeads> heads, Transformer& target);
  /// The first `exit_layer` layers of the target, which must outlive this.
  void set_early_exit(Transformer& target, int exit_layer);
  void set_model(std::unique_ptr<TranslatedDrafter> draft);
  /// Times `target` and the draft model. Before the first step, after set_model().
  MeasuredCosts measure_costs(Transformer& target, int num_blocks);
  /// Lets lengths follow costs.
  void set_costs(const MeasuredCosts& costs);
  /// Throws Error(invalid_argument) when the name is taken. Stepping thread only.
  void add(std::unique_ptr<Drafter> drafter);
  /// Thread-safe, like the two below.
  bool knows(std::string_view method) const;
  std::vector<std::string> methods() const;
  /// The methods as one line, for messages.
  std::string method_list() const;
  /// Whether the method reads the target's hidden states. Thread-safe.
  bool uses_features(std::string_view method) const noexcept;
  /// What a cached prefix must hold for the method. Thread-safe.
  PrefixHit prefix_hit(std::string_view method) const noexcept;

  /// `sequence` is about to join a batch of `batch_size`. In one that is too wide for a head to pay
  /// it goes without: hidden states of its prompt and their KV would cost some per cent of it. It
  /// comes back in propose(), where it pays again.
  void admit(Sequence& sequence, int batch_size) const;
  /// How far `sequence` may draft in a step with `batch_size` decoding sequences and `max_rows`
  /// rows for it.
  DraftLimits limits(const Sequence& sequence, int batch_size, int max_rows) const;
  /// Sets tree, draft_slots, early_states and draft_length of every sequence that samples.
  void propose(std::span<Sequence* const> sequences);
  /// Tells host drafters what the target gave behind the nodes that they watch.
  void tell_watchers(const Sequence& sequence);
  /// The request is over: host drafters may forget it.
  void finished(RequestId id);

  /// Sees what drafts need of the target's passes; null: they need nothing.
  HiddenStateTap* feature_tap() noexcept {
    return features_ == nullptr ? nullptr : &features_->tap();
  }
  /// What the target's pass over `sequences` must show; null: nothing.
  HiddenStateTap* tap(std::span<Sequence* const> sequences) noexcept;
  /// Takes from that pass what the drafter of `sequence` will need: of its known rows and of the
  /// accepted ones. Before the step is committed.
  void keep_features(Sequence& sequence);

  /// Times what it takes to bring a head back; empty: none has to be.
  CostPoints measure_returns(Transformer& target, int num_blocks);
  /// What brings the draft model up to date; null: there is none of this vocabulary.
  DraftCatchUp* catch_up() noexcept { return catch_up_ ? &*catch_up_ : nullptr; }

  DraftPacing& pacing() noexcept { return pacing_; }

  /// The draft model with its sequences; null: there is none of this vocabulary.
  DraftAdapter* adapter() noexcept { return adapter_.get(); }
  /// The model behind the method "draft_model", of the target's tokens; null: there is none.
  Transformer* transformer() noexcept { return transformer_; }
  /// The language model that drafts, whatever its vocabulary; null: there is none.
  Transformer* model() noexcept { return model_; }
  /// Passes of drafts that ran as a graph of the device's so far.
  std::int64_t num_graph_passes() const noexcept;
  /// The head behind the method "eagle3"; null: there is none.
  EagleAdapter* eagle() noexcept { return eagle_; }
  /// What goes through the target's first layers for "early_exit"; null: no exit layer.
  EarlyExitAdapter* early_exit() noexcept { return early_exit_; }
  /// The draft model's own slices of the cache's blocks; null: there are none.
  const KvPoolStorage* draft_pool() const noexcept {
    return adapter_ == nullptr ? nullptr : adapter_->pool();
  }

 private:
  bool knows_part(std::string_view method) const;
  int depth_limit(const Sequence& sequence, int batch_size) const;
  int model_limit(const Sequence& sequence) const;
  bool may_begin(const Sequence& sequence) const;
  void bring_heads_back(std::span<Sequence* const> sequences);
  void set_adapter(std::string_view method, std::unique_ptr<DraftAdapter> adapter);
  void propose_with_model(std::span<Sequence* const> candidates);
  void propose_translated(std::span<Sequence* const> candidates);

  const Config& config_;
  Backend& backend_;
  std::string_view model_method_;  // one of kModelMethods, or empty
  std::unique_ptr<DraftAdapter> adapter_;
  FeatureAdapter* features_ = nullptr;             // adapter_, if it is one
  EagleAdapter* eagle_ = nullptr;                  // adapter_, if it is one
  EarlyExitAdapter* early_exit_ = nullptr;         // adapter_, if it is one
  Transformer* transformer_ = nullptr;             // see transformer()
  Transformer* model_ = nullptr;                   // see model()
  std::optional<DraftCatchUp> catch_up_;           // see catch_up()
  std::unique_ptr<ModelDrafter> model_drafter_;    // null: no draft model of this vocabulary
  std::unique_ptr<TranslatedDrafter> translated_;  // "draft_model", if it has another
  DraftPacing pacing_;
  bool sampled_;  // drafts are drawn: the acceptance rule is one against draft probabilities
  HostDrafters hosts_;
  int max_context_;
};

}  // namespace specdec
