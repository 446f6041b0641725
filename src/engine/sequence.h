#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "draft/draft_length.h"
#include "draft/draft_tree.h"
#include "engine/cache/kv_cache_manager.h"
#include "engine/feature_store.h"
#include "engine/text/utf8_stream.h"
#include "sampling/sampler.h"
#include "sampling/stop.h"
#include "specdec/drafter.h"
#include "specdec/engine.h"
#include "specdec/request.h"
#include "verify/accepted_path.h"

namespace specdec {

using Clock = std::chrono::steady_clock;

/// Where a draft token came from and what was thought of it.
struct NodeOrigin {
  static constexpr int kGrammar = -1;

  int drafter = 0;       // index of its calibration; kGrammar: forced, there is nothing to learn
  float confidence = 0;  // the drafter's own, given its parent
  float estimate = 0;    // calibrated
  float survival = 1;    // product of estimates from the root down
  int watcher = 0;       // the host drafter that wants to know what follows; 0: none
  int watched = 0;       // which of the nodes that it watches this is
  TokenId answer = Drafter::kNoAnswer;  // what the target gives here, if it is watched
};

/// One request's tokens and everything that decoding them needs. Invariant between steps, once
/// prefilled: the target's KV holds every token but the last, which is the root of the next draft
/// tree.
struct Sequence {
  // Set by submit.
  RequestId id = 0;
  Request request;
  std::uint64_t seed = 0;
  std::string draft_method;    // names joined by '+'; "none": plain decoding
  bool uses_features = false;  // the drafter reads the target's hidden states
  PrefixHit prefix_hit = PrefixHit::target;
  int max_draft = 0;                // longest draft that the request allows
  std::vector<TokenId> end_tokens;  // EOS and stop ids
  Clock::time_point submitted;

  // The state that steps advance.
  std::vector<TokenId> tokens;  // prompt, then output
  int num_prompt_tokens = 0;
  KvSequence kv;
  FeatureRows features;  // of committed tokens whose draft KV is still to be made
  PenaltyState penalties;
  StopMatcher stops;
  std::optional<GrammarMatcher> grammar;  // after every committed token
  Utf8Stream text;
  DraftHistory history;  // of the draft model's guesses
  WindowHistory window;  // of steps with a window of watched nodes
  bool was_preempted = false;
  Clock::time_point first_token;
  RequestStats stats;
  TreeSnapshot snapshot;

  // The step in progress.
  KvReservation reservation;
  int num_known = 0;     // committed tokens whose KV this step computes
  bool samples = false;  // the last of them is the last token: it is the tree's root
  int draft_depth = 0;   // the longest draft this step
  int draft_nodes = 0;   // the most draft tokens this step
  bool probes = false;   // drafts to see whether it would pay again
  int window_of = 0;  // the drafter all of whose watched nodes are verified; adaptive lengths only
  DraftTree tree;
  std::vector<TokenId> forced;  // the draft that the grammar leaves no choice about
  std::vector<std::pair<int, DraftProposal>> host_drafts;  // (drafter, its tree), yet to be joined
  std::vector<NodeOrigin> origins;                         // [nodes]
  std::vector<std::int32_t> draft_slots;                   // [nodes]; -1: no draft KV
  std::vector<std::int32_t> early_states;    // EarlyExitAdapter::states(); empty: it ran nothing
  std::vector<std::int32_t> node_slots;      // [nodes] of the target's KV; see place_nodes()
  std::vector<GrammarMatcher> node_grammar;  // [nodes] when the request has a grammar
  std::vector<GrammarMask> node_masks;       // [nodes], likewise; see MaskMaker
  int draft_length = 0;                      // draft KV in place, after proposing
  int first_row = 0;                         // of its rows in the target's pass
  int first_output = 0;                      // index of the root's logits row
  int num_resumed = 0;                       // of those rows: that began behind the first layers
  AcceptedPath path;
  Output output;

  /// A draft of nothing: the tree holds the root alone, as the target will run it.
  void reset_draft();
  /// Sets node_slots: a node that a draft in the target's own KV has run stays where that put it.
  /// In any case a slot is not below the node's position, nor its ancestors' slots.
  void place_nodes();
  /// How EarlyExitAdapter::verify() knows `node`; -1: the draft has not run it.
  std::int32_t early_state(int node) const;
  /// Leaves the nodes of the draft that `keep` [nodes] names; it is closed under parents and holds
  /// the root.
  void retain_nodes(const std::vector<bool>& keep);

  int size() const noexcept { return static_cast<int>(tokens.size()); }
  int num_output() const noexcept { return size() - num_prompt_tokens; }
  /// Committed tokens without KV; 1 when decoding.
  int pending() const noexcept { return size() - kv.length(KvPool::target); }
};

}  // namespace specdec
