#include "engine/backend/backend.h"

#include <sched.h>

#include <algorithm>
#include <fstream>
#include <set>
#include <string>
#include <utility>

#include "engine/backend/cpu_backend.h"
#ifdef SPECDEC_HAS_CUDA
#include "engine/backend/cuda_backend.h"
#endif
#include "specdec/error.h"

namespace specdec {

namespace {

/// Physical cores among those that this process may use: two hyper-threads of a core share its
/// multipliers, and the second one only adds waiting at each barrier.
int usable_cores() {
  cpu_set_t allowed;
  CPU_ZERO(&allowed);
  if (::sched_getaffinity(0, sizeof(allowed), &allowed) != 0) return 1;
  std::set<std::pair<int, int>> cores;  // (package, core)
  int logical = 0;
  for (int cpu = 0; cpu < CPU_SETSIZE; ++cpu) {
    if (!CPU_ISSET(cpu, &allowed)) continue;
    ++logical;
    const std::string topology = "/sys/devices/system/cpu/cpu" + std::to_string(cpu) + "/topology/";
    int package = 0;
    int core = cpu;
    std::ifstream(topology + "physical_package_id") >> package;
    std::ifstream(topology + "core_id") >> core;
    cores.emplace(package, core);
  }
  return std::clamp(static_cast<int>(cores.size()), 1, std::max(1, logical));
}

kernels::Isa choose_isa(const std::string& wanted) {
  using kernels::Isa;
  if (!kernels::supported(Isa::avx2))
    throw Error(ErrorCode::unsupported,
                "this processor has no AVX2 with FMA, which the CPU kernels need");
  if (wanted == "auto") return kernels::best_isa();
  const Isa isa = wanted == "amx" ? Isa::amx : wanted == "avx512" ? Isa::avx512_vnni : Isa::avx2;
  if (!kernels::supported(isa))
    throw Error(ErrorCode::invalid_config, "backend.isa = \"" + wanted +
                                               "\": this processor does not have it; its best is " +
                                               kernels::to_string(kernels::best_isa()));
  return isa;
}

}  // namespace

std::unique_ptr<Backend> make_backend(const BackendConfig& config) {
  const int threads = config.threads > 0 ? config.threads : usable_cores();
  if (config.device != "cpu") {
    std::string why_not = "specdec was built without CUDA";
#ifdef SPECDEC_HAS_CUDA
    if (std::unique_ptr<Backend> backend = make_cuda_backend(config, threads, why_not))
      return backend;
#endif
    if (config.device == "cuda")
      throw Error(ErrorCode::unsupported, "backend.device = \"cuda\": " + why_not +
                                              "; \"auto\" takes the CPU where there is no GPU");
  }
  return std::make_unique<CpuBackend>(choose_isa(config.isa), threads);
}

}  // namespace specdec
