#pragma once

#include <vector>

#include "engine/backend/backend.h"
#include "engine/cache/kv_cache_manager.h"
#include "engine/model/model_config.h"

namespace specdec {

/// One model's slices of all cache blocks: memory that KvCacheManager's block ids index.
class KvPoolStorage {
 public:
  KvPoolStorage(Backend& backend, const ModelConfig& config, int num_blocks, int block_size,
                kernels::DataType type);

  const kernels::KvLayer& layer(int index) const {
    return layers_[static_cast<std::size_t>(index)];
  }
  /// Positions that the pool holds, over all sequences.
  std::int64_t capacity() const noexcept { return capacity_; }
  int num_layers() const noexcept { return static_cast<int>(layers_.size()); }

  /// Carries out copy-on-write copies in every layer.
  void copy_blocks(Backend& backend, std::span<const BlockCopy> copies, Stream stream) const;
  /// Moves accepted nodes' KV to their final slots in every layer.
  void move(Backend& backend, std::span<const BlockId> block_table,
            std::span<const kernels::KvMove> moves, Stream stream) const;

  /// Bytes of one block's slice.
  static std::size_t block_bytes(const ModelConfig& config, int block_size, kernels::DataType type);

 private:
  std::vector<DeviceBuffer> buffers_;
  std::vector<kernels::KvLayer> layers_;
  std::int64_t capacity_ = 0;
};

}  // namespace specdec
