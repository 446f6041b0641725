#include "engine/backend/kv_pool.h"

namespace specdec {

namespace {

std::size_t element_bytes(kernels::DataType type) { return type == kernels::DataType::f32 ? 4 : 2; }

std::size_t half_block_bytes(const ModelConfig& config, int block_size, kernels::DataType type) {
  return static_cast<std::size_t>(config.num_kv_heads) * static_cast<std::size_t>(config.head_dim) *
         static_cast<std::size_t>(block_size) * element_bytes(type);
}

}  // namespace

KvPoolStorage::KvPoolStorage(Backend& backend, const ModelConfig& config, int num_blocks,
                             int block_size, kernels::DataType type)
    : capacity_(std::int64_t{num_blocks} * block_size) {
  const std::size_t bytes =
      half_block_bytes(config, block_size, type) * static_cast<std::size_t>(num_blocks);
  for (int i = 0; i < config.num_layers; ++i) {
    kernels::KvLayer layer{.type = type,
                           .num_kv_heads = config.num_kv_heads,
                           .head_dim = config.head_dim,
                           .block_size = block_size};
    for (void** half : {&layer.keys, &layer.values}) {
      buffers_.push_back(backend.allocate(bytes, MemoryUse::cache));
      *half = buffers_.back().as<void>();
    }
    layers_.push_back(layer);
  }
}

void KvPoolStorage::copy_blocks(Backend& backend, std::span<const BlockCopy> copies,
                                Stream stream) const {
  for (const BlockCopy& copy : copies)
    backend.copy_block(layers_, copy.source, copy.destination, stream);
}

void KvPoolStorage::move(Backend& backend, std::span<const BlockId> block_table,
                         std::span<const kernels::KvMove> moves, Stream stream) const {
  if (moves.empty()) return;
  backend.move_kv({.layers = layers_, .block_table = block_table.data(), .moves = moves}, stream);
}

std::size_t KvPoolStorage::block_bytes(const ModelConfig& config, int block_size,
                                       kernels::DataType type) {
  return 2 * static_cast<std::size_t>(config.num_layers) *
         half_block_bytes(config, block_size, type);
}

}  // namespace specdec
