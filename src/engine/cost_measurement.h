#pragma once

#include <functional>

#include "engine/backend/kv_pool.h"
#include "engine/cache/kv_cache_manager.h"
#include "engine/cost_cache.h"
#include "engine/model/transformer.h"

// For an engine that has not begun to work: what is timed writes into the cache's first blocks.

namespace specdec {

using PassToTime = std::function<void(const ForwardBatch&)>;

/// What passes may be.
struct PassLimits {
  int max_rows = 0;
  int max_context = 0;  // positions, the rows' own included; the blocks hold as many
  int num_blocks = 0;
};

struct PassTimes {
  CostPoints points;
  ContextCost context;
};

/// Times passes of 1 to 48 rows over a short context, the median of at least three for each width,
/// in turns, and two widths over a long one, where the cache has room for it.
PassTimes measure_costs(const PassToTime& pass, const PassLimits& limits);

/// Times passes of 1 to 512 rows that want the logits of the last one alone, as prompts do, from
/// position 1 on.
CostPoints measure_prompts(const PassToTime& pass, const PassLimits& limits);

/// Seconds that a pass of one row takes more behind `other` than behind itself.
double measure_cold(const PassToTime& pass, const PassToTime& other, const PassLimits& limits);

/// Puts something into each slot that passes over the long context read: memory that nothing has
/// written to may all be one page, and quick to read.
void fill_for_costs(Backend& backend, const KvPoolStorage& pool, const PassLimits& limits);

}  // namespace specdec
