#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "draft/draft_tree.h"
#include "engine/cache/kv_cache_manager.h"
#include "engine/text/utf8_stream.h"
#include "sampling/sampler.h"
#include "sampling/stop.h"
#include "specdec/engine.h"
#include "specdec/request.h"
#include "verify/accepted_path.h"

namespace specdec {

using Clock = std::chrono::steady_clock;

/// One request's tokens and everything that decoding them needs. Invariant between steps, once
/// prefilled: the target's KV holds every token but the last, which is the root of the next draft
/// tree.
struct Sequence {
  // Set by submit.
  RequestId id = 0;
  Request request;
  std::uint64_t seed = 0;
  std::string draft_method;         // "none": plain decoding
  int max_draft = 0;                // longest draft that the request allows
  std::vector<TokenId> end_tokens;  // EOS and stop ids
  Clock::time_point submitted;

  // The state that steps advance.
  std::vector<TokenId> tokens;  // prompt, then output
  int num_prompt_tokens = 0;
  KvSequence kv;
  PenaltyState penalties;
  StopMatcher stops;
  std::optional<GrammarMatcher> grammar;  // after every committed token
  Utf8Stream text;
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
  DraftTree tree;
  std::vector<std::int32_t> draft_slots;  // [nodes]; -1: no draft KV
  std::vector<TokenId> forced;  // the draft that the grammar leaves no choice about
  std::vector<GrammarMatcher> node_grammar;  // [nodes] when the request has a grammar
  int draft_length = 0;                   // draft KV in place, after proposing
  int first_output = 0;                   // index of the root's logits row
  AcceptedPath path;
  Output output;

  int size() const noexcept { return static_cast<int>(tokens.size()); }
  int num_output() const noexcept { return size() - num_prompt_tokens; }
  /// Committed tokens without KV; 1 when decoding.
  int pending() const noexcept { return size() - kv.length(KvPool::target); }
};

}  // namespace specdec
