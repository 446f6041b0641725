#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <unordered_map>
#include <vector>

#include "draft/twin_text.h"
#include "engine/backend/backend.h"
#include "engine/cache/kv_cache_manager.h"
#include "engine/model/transformer.h"
#include "sampling/sampler.h"
#include "specdec/drafter.h"
#include "specdec/tokenizer.h"

namespace specdec {

/// A draft model with a vocabulary of its own: it goes on with the text in its own tokens,
/// greedily, and the target's tokens of what it wrote are the draft, a chain.
///
/// Its KV has a cache of its own, since its tokens stand at other positions than the target's. It
/// holds the settled text of a request; the last word is run again in each step. When blocks run
/// out, the request that has not drafted for longest gives its own back.
class TranslatedDrafter {
 public:
  /// `target` outlives it. `max_context`: the longest text, in the draft's tokens.
  TranslatedDrafter(Backend& backend, std::unique_ptr<Transformer> model,
                    std::unique_ptr<Tokenizer> tokenizer, const Tokenizer& target,
                    const KvCacheOptions& cache, int max_context, float min_confidence);

  /// As Drafter::propose; DraftContext::max_depth is also the number of passes.
  void propose(std::span<const DraftContext> contexts, std::span<DraftProposal> proposals);
  void finished(RequestId id) { requests_.erase(id); }

  Transformer& model() noexcept { return *model_; }
  KvCacheCounts cache_counts() const noexcept { return cache_.counts(); }

 private:
  struct Request {
    TwinText text;
    KvSequence kv = {};
    bool is_open = false;         // kv is a sequence of the cache
    std::uint64_t last_used = 0;  // the call that drafted for it last
  };
  struct Growth;

  bool begin(const DraftContext& context, Request& request, Growth& growth);
  bool make_room(Request& request, int count, KvReservation& reservation);
  void catch_up(Growth& growth, int most_rows);
  void run_pass(std::span<Growth*> growths);
  void extend(Growth& growth, std::span<const float> logits);
  DraftProposal translate(const Growth& growth, const DraftContext& context) const;

  Backend& backend_;
  std::unique_ptr<Transformer> model_;
  std::unique_ptr<Tokenizer> tokenizer_;
  const Tokenizer& target_;
  KvCacheManager cache_;
  int max_context_;
  float min_confidence_;
  RowSampler sampler_;
  SamplingOptions greedy_;
  PenaltyState no_penalties_;
  std::unordered_map<RequestId, Request> requests_;  // after cache_: their blocks go back to it
  std::uint64_t calls_ = 0;
  ForwardBatch batch_;
};

}  // namespace specdec
