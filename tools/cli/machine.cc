#include "tools/cli/machine.h"

#include <sched.h>
#include <sys/utsname.h>

#include <cstdlib>
#include <fstream>
#include <nlohmann/json.hpp>
#include <set>
#include <sstream>
#include <string>

namespace specdec::cli {
namespace {

// The value of the first line "key<spaces>: value" of a /proc file.
std::string proc_field(const char* file, const std::string& key) {
  std::ifstream input(file);
  std::string line;
  while (std::getline(input, line)) {
    if (!line.starts_with(key)) continue;
    const std::size_t value = line.find_first_not_of(" \t", line.find(':') + 1);
    if (value != std::string::npos) return line.substr(value);
  }
  return {};
}

}  // namespace

nlohmann::ordered_json machine_description() {
  nlohmann::ordered_json machine = nlohmann::ordered_json::object();
  if (const std::string model = proc_field("/proc/cpuinfo", "model name"); !model.empty())
    machine["cpu"] = model;
  const std::set<std::string> interesting = {"avx2",        "fma",      "avx512f",  "avx512bw",
                                             "avx512_vnni", "avx_vnni", "amx_int8", "amx_bf16"};
  std::istringstream flags(proc_field("/proc/cpuinfo", "flags"));
  std::string isa;
  for (std::string flag; flags >> flag;)
    if (interesting.contains(flag)) isa += (isa.empty() ? "" : " ") + flag;
  machine["isa"] = isa;
  cpu_set_t cores;
  if (sched_getaffinity(0, sizeof cores, &cores) == 0) machine["cores"] = CPU_COUNT(&cores);
  if (const std::string memory = proc_field("/proc/meminfo", "MemTotal"); !memory.empty())
    machine["memory"] = memory;
  utsname system{};
  if (uname(&system) == 0) machine["kernel"] = std::string(system.sysname) + ' ' + system.release;
  return machine;
}

std::int64_t peak_memory() {
  const std::string field = proc_field("/proc/self/status", "VmHWM");
  return std::strtoll(field.c_str(), nullptr, 10) * 1024;  // "12345 kB"
}

}  // namespace specdec::cli
