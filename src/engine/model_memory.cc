#include "engine/model_memory.h"

#include <algorithm>
#include <random>
#include <string>

#include "engine/memory_check.h"
#include "specdec/error.h"

namespace specdec {

namespace {

kernels::DataType kv_type(const KvCacheConfig& config) {
  return config.type == "f32" ? kernels::DataType::f32 : kernels::DataType::f16;
}

}  // namespace

std::uint64_t random_u64() {
  std::random_device device;
  return (static_cast<std::uint64_t>(device()) << 32) | device();
}

CacheShape shape_cache(const Config& config, const ModelConfig& target, const ModelConfig* draft) {
  const int block_size = config.kv_cache.block_size;
  const kernels::DataType type = kv_type(config.kv_cache);
  std::size_t block_bytes = KvPoolStorage::block_bytes(target, block_size, type);
  if (draft != nullptr) block_bytes += KvPoolStorage::block_bytes(*draft, block_size, type);
  const std::size_t budget = static_cast<std::size_t>(config.kv_cache.memory_mb) << 20U;
  // Beyond one full context for every sequence of a step, blocks could never be used.
  const std::size_t most = static_cast<std::size_t>(config.scheduler.max_num_seqs + 1) *
                           (static_cast<std::size_t>(target.max_position / block_size) + 2);
  const std::size_t blocks = std::min(budget / block_bytes, most);
  constexpr std::size_t kFewestBlocks = 4;
  if (blocks < kFewestBlocks)
    throw Error(ErrorCode::out_of_memory,
                "kv_cache.memory_mb = " + std::to_string(config.kv_cache.memory_mb) + " holds " +
                    std::to_string(blocks) + " blocks of " + std::to_string(block_size) +
                    " tokens (" + std::to_string(block_bytes) + " bytes each); give at least " +
                    std::to_string((kFewestBlocks * block_bytes + (1U << 20U) - 1) >> 20U) +
                    " MiB");
  // One block stays in reserve for the copy of a shared one.
  const auto capacity = static_cast<std::int64_t>(blocks - 1) * block_size;
  return {.num_blocks = static_cast<int>(blocks),
          .max_context = static_cast<int>(std::min<std::int64_t>(capacity, target.max_position))};
}

KvCacheOptions cache_options(const Config& config, const CacheShape& shape) {
  return {.num_blocks = shape.num_blocks,
          .block_size = config.kv_cache.block_size,
          .prefix_cache = config.kv_cache.prefix_cache,
          .hash_key = random_u64()};
}

KvPoolStorage make_pool(Backend& backend, const ModelConfig& model, const Config& config,
                        int num_blocks) {
  const kernels::DataType type = kv_type(config.kv_cache);
  const std::size_t bytes = static_cast<std::size_t>(num_blocks) *
                            KvPoolStorage::block_bytes(model, config.kv_cache.block_size, type);
  if (const std::optional<std::size_t> free = backend.free_memory())
    require_cache_fits(config, bytes, *free);
  return {backend, model, num_blocks, config.kv_cache.block_size, type};
}

std::unique_ptr<Transformer> make_transformer(Backend& backend, const ModelSource& source,
                                              const Config& config, int num_blocks,
                                              std::span<const TokenId> tokens) {
  return std::make_unique<Transformer>(backend, TransformerWeights(backend, source, tokens),
                                       make_pool(backend, source.config(), config, num_blocks),
                                       config.scheduler.max_num_batched_tokens);
}

}  // namespace specdec
