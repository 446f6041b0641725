#pragma once

/// A switch that plants known faults, so that the test suites can be shown to catch them. It exists
/// only in builds configured with SPECDEC_MUTANTS=ON, where the environment variable SPECDEC_MUTANT
/// names the one fault to plant; in every other build it is the constant false and costs nothing.
/// tests/mutants.sh runs the suites once per fault.
#ifdef SPECDEC_MUTANTS
#include <cstdlib>
#include <string_view>

namespace specdec {
inline bool mutant_active(std::string_view name) {
  static const char* const active = std::getenv("SPECDEC_MUTANT");
  return active != nullptr && name == active;
}
}  // namespace specdec
#else
namespace specdec {
constexpr bool mutant_active(const char* /*name*/) { return false; }
}  // namespace specdec
#endif
