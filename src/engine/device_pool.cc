#include "engine/device_pool.h"

#include <vector>

namespace specdec {

DevicePool::DevicePool(Backend& backend, const KvPoolStorage& pool) {
  std::vector<void*> keys;
  std::vector<void*> values;
  for (int i = 0; i < pool.num_layers(); ++i) {
    keys.push_back(pool.layer(i).keys);
    values.push_back(pool.layer(i).values);
  }
  const std::size_t bytes = keys.size() * sizeof(void*);
  memory_ = backend.allocate(2 * bytes, MemoryUse::scratch);
  auto* const pointers = memory_.as<void*>();
  backend.write(pointers, keys.data(), bytes, Stream{});
  backend.write(pointers + keys.size(), values.data(), bytes, Stream{});

  const kernels::KvLayer& layer = pool.layer(0);
  const std::int64_t dims = layer.head_dim;
  const std::int64_t positions = layer.block_size;
  view = {.num_layers = pool.num_layers(),
          .num_kv_heads = layer.num_kv_heads,
          .head_dim = layer.head_dim,
          .block_size = layer.block_size,
          .element_bytes = static_cast<std::int32_t>(kernels::kv_element_bytes(layer.type)),
          .keys = {.layers = pointers,
                   .block_stride = dims * positions * layer.num_kv_heads,
                   .head_stride = dims * positions,
                   .dim_stride = 1,
                   .position_stride = dims},
          .values = {.layers = pointers + keys.size(),
                     .block_stride = dims * positions * layer.num_kv_heads,
                     .head_stride = dims * positions,
                     .dim_stride = positions,
                     .position_stride = 1}};
}

}  // namespace specdec
