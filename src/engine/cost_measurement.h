#pragma once

#include <functional>

#include "engine/cache/kv_cache_manager.h"
#include "engine/cost_cache.h"
#include "engine/model/transformer.h"

namespace specdec {

/// Times passes of 1 to 32 rows: the median of at least three for each width, over a short context
/// of whatever the cache's first blocks hold. For an engine that has not begun to work: the passes
/// write into those blocks.
CostPoints measure_costs(const std::function<void(const ForwardBatch&)>& pass, int max_rows,
                         int num_blocks, int block_size);

}  // namespace specdec
