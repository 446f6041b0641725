#include "engine/memory_check.h"

#include <string>

#include "specdec/error.h"

namespace specdec {

namespace {

std::size_t mib_up(std::size_t bytes) { return (bytes + (1U << 20U) - 1) >> 20U; }
std::size_t mib_down(std::size_t bytes) { return bytes >> 20U; }

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
  const std::size_t missing = mib_up(all - free);
  const auto cache = static_cast<std::size_t>(config.kv_cache.memory_mb);
  if (missing < cache)
    message += "kv_cache.memory_mb = " + std::to_string(cache - missing) + ", or ";
  throw Error(ErrorCode::out_of_memory, message + "backend.device_loop = false");
}

}  // namespace specdec
