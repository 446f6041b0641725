#pragma once

#include <cstdint>
#include <memory>
#include <span>

#include "engine/backend/backend.h"
#include "engine/backend/kv_pool.h"
#include "engine/cache/kv_cache_manager.h"
#include "engine/model/transformer.h"
#include "specdec/config.h"

namespace specdec {

/// One that nobody can foresee.
std::uint64_t random_u64();

/// What the cache's budget comes to.
struct CacheShape {
  int num_blocks = 0;
  int max_context = 0;  // of one sequence
};

/// `draft` is null where nothing has KV beside the target. Throws Error(out_of_memory).
CacheShape shape_cache(const Config& config, const ModelConfig& target, const ModelConfig* draft);
/// For a cache of that shape, with a hash key of its own.
KvCacheOptions cache_options(const Config& config, const CacheShape& shape);

/// One model's slices of all blocks. Throws Error(out_of_memory).
KvPoolStorage make_pool(Backend& backend, const ModelConfig& model, const Config& config,
                        int num_blocks);
/// Weights and cache slices of a model; `tokens`: that its head is to know, empty: all.
std::unique_ptr<Transformer> make_transformer(Backend& backend, const ModelSource& source,
                                              const Config& config, int num_blocks,
                                              std::span<const TokenId> tokens = {});

}  // namespace specdec
