#pragma once

#include "engine/cache/kv_cache_manager.h"
#include "engine/sequence.h"
#include "engine/step.h"
#include "specdec/error.h"
#include "specdec/stats.h"
#include "specdec/tokenizer.h"

namespace specdec {

// The two ends of a step for one sequence, wherever its accepted path is computed.

/// The request ends with this error; it touches no other.
void fail(Sequence& sequence, const Error& error);

/// The step begins: an empty output, and the copies that the reservation asks for.
void begin_step(Sequence& sequence, const StepParts& parts);

/// Adds the path to the output, cut at a stop. A fault on the way (the request's callback) ends
/// this request. Does nothing when it has ended already.
void emit(Sequence& sequence, const Tokenizer& tokenizer, int max_context);

/// Appends the emitted tokens of the path to the sequence's state.
void append_path(Sequence& sequence);

/// Counts one step of decoding that verified `num_drafted` draft tokens.
void count_step(Sequence& sequence, int num_drafted, EngineStats& stats);

/// Enters what the sequence's committed KV holds into the prefix index.
void publish_prefix(Sequence& sequence, KvCacheManager& cache);

}  // namespace specdec
