#pragma once

#include <cstdint>
#include <nlohmann/json_fwd.hpp>

namespace specdec::cli {

/// What figures were measured on: CPU model, its SIMD extensions, cores this process may use,
/// memory, kernel. Fields that cannot be read are left out.
nlohmann::ordered_json machine_description();

/// The most memory this process has had resident, in bytes (VmHWM); 0 when unknown.
std::int64_t peak_memory();

}  // namespace specdec::cli
