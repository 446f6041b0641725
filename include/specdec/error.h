#pragma once

#include <stdexcept>
#include <string>

#include "specdec/export.h"

namespace specdec {

enum class ErrorCode {
  invalid_argument,  ///< a request, flag or call that can never work as written
  invalid_config,    ///< specdec.toml, an environment variable or a flag
  invalid_model,     ///< a malformed, truncated or contradictory model file
  unsupported,       ///< well-formed, but nothing specdec can run
  io,                ///< a file that cannot be opened or read
  out_of_memory,     ///< the memory budget cannot hold what was asked for
  queue_full,        ///< the engine's bounded queue; submit again later
  device,            ///< the GPU failed: this engine can do no more, a new one may
  internal,          ///< a broken invariant: a bug in specdec
};

/// The snake_case name of a code, as it appears in logs and JSON.
SPECDEC_API const char* to_string(ErrorCode code) noexcept;

/// Every failure that specdec reports. `what()` names the file, key or tensor at fault and says
/// what to do about it.
class SPECDEC_API Error : public std::runtime_error {
 public:
  Error(ErrorCode code, const std::string& message) : std::runtime_error(message), code_(code) {}

  ErrorCode code() const noexcept { return code_; }

 private:
  ErrorCode code_;
};

}  // namespace specdec
