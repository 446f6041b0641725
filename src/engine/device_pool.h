#pragma once

#include "engine/backend/backend.h"
#include "engine/backend/kv_pool.h"
#include "kernels/cuda/step/commit.h"

namespace specdec {

/// Where a model's KV lies, for kernels that touch all layers.
class DevicePool {
 public:
  DevicePool() = default;
  DevicePool(Backend& backend, const KvPoolStorage& pool);

  kernels::cuda::KvPoolView view;

 private:
  DeviceBuffer memory_;
};

}  // namespace specdec
