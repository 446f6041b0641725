#pragma once

#include <memory>

#include "engine/backend/backend.h"

namespace specdec {

/// The first GPU that the kernels run on (compute capability 8.0 or later), or a null pointer with
/// `why_not` saying what is missing: no driver, no device, one that is too old.
std::unique_ptr<Backend> make_cuda_backend(int host_threads, std::string& why_not);

}  // namespace specdec
