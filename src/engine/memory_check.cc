#include "engine/memory_check.h"

#include <string>

#include "specdec/error.h"

namespace specdec {

namespace {

std::size_t mib_up(std::size_t bytes) { return (bytes + (1U << 20U) - 1) >> 20U; }
std::size_t mib_down(std::size_t bytes) { return bytes >> 20U; }

/// "kv_cache.memory_mb = ..., or ": a cache that leaves `missing` bytes more. Nothing where it has
/// not as much.
std::string smaller_cache(const Config& config, std::size_t missing) {
  const std::size_t mib = mib_up(missing);
  const auto cache = static_cast<std::size_t>(config.kv_cache.memory_mb);
  return mib < cache ? "kv_cache.memory_mb = " + std::to_string(cache - mib) + ", or " : "";
}

}  // namespace

void require_cache_fits(const Config& config, std::size_t bytes, std::size_t free) {
  if (bytes <= free) return;
  const double share = static_cast<double>(free) / static_cast<double>(bytes);
  throw Error(ErrorCode::out_of_memory,
              "kv_cache.memory_mb = " + std::to_string(config.kv_cache.memory_mb) +
                  ": a model's part of its blocks takes " + std::to_string(mib_up(bytes)) +
                  " MiB, and " + std::to_string(mib_down(free)) +
                  " MiB of the GPU's memory are free beside the weights; give at most " +
                  std::to_string(static_cast<int>(share * config.kv_cache.memory_mb)));
}

void require_loop_fits(const Config& config, int max_sequences,
                       const std::function<std::size_t(int sequences)>& needed, std::size_t free) {
  const std::size_t all = needed(max_sequences);
  if (all <= free) return;
  int fitting = max_sequences - 1;
  while (fitting > 0 && needed(fitting) > free) --fitting;
  std::string message = "steps on the device take " + std::to_string(mib_up(all)) +
                        " MiB beside weights and cache, and " + std::to_string(mib_down(free)) +
                        " MiB of the GPU's memory are free: ";
  if (fitting > 0) message += "set scheduler.max_num_seqs = " + std::to_string(fitting) + ", or ";
  throw Error(ErrorCode::out_of_memory,
              message + smaller_cache(config, all - free) + "backend.device_loop = false");
}

void require_graphs_fit(const Config& config, std::size_t needed, std::size_t free) {
  if (needed <= free) return;
  throw Error(ErrorCode::out_of_memory,
              "graphs of single steps take " + std::to_string(mib_up(needed)) +
                  " MiB beside weights and cache, and " + std::to_string(mib_down(free)) +
                  " MiB of the GPU's memory are free: set " + smaller_cache(config, needed - free) +
                  "backend.step_graphs = false");
}

}  // namespace specdec
