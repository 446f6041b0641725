#pragma once

#include <cstddef>
#include <functional>

#include "specdec/config.h"

namespace specdec {

/// Whether a model's part of the blocks of kv_cache.memory_mb, `bytes`, fits into the `free` bytes
/// that its weights have left. Throws Error(out_of_memory), which says how many MiB would.
void require_cache_fits(const Config& config, std::size_t bytes, std::size_t free);

/// Whether what steps in a device loop take beside weights and cache fits into `free` bytes:
/// needed(n) for up to n sequences at once. Throws Error(out_of_memory), which says for how many
/// sequences, or with how much less of a cache, it would.
void require_loop_fits(const Config& config, int max_sequences,
                       const std::function<std::size_t(int sequences)>& needed, std::size_t free);

/// Whether graphs of single steps, which take `needed` bytes beside weights and cache, fit into
/// `free` bytes. Throws Error(out_of_memory), which says with how much less of a cache they would.
void require_graphs_fit(const Config& config, std::size_t needed, std::size_t free);

}  // namespace specdec
