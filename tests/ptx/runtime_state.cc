#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <new>

#include "tests/ptx/runtime.h"

namespace specdec::ptx {
namespace {

/// A whole number from the environment; `otherwise` where there is none.
std::size_t setting(const char* name, std::size_t otherwise) {
  const char* const text = std::getenv(name);
  if (text == nullptr || *text == '\0') return otherwise;
  char* end = nullptr;
  const unsigned long long value = std::strtoull(text, &end, 10);
  if (*end == '\0' && value > 0 && value <= 1u << 20u) return static_cast<std::size_t>(value);
  std::fprintf(stderr, "PTX machine: %s=%s is not a number from 1 to 1048576\n", name, text);
  std::abort();
}

bool late_streams() {
  const char* const text = std::getenv("SPECDEC_PTX_STREAMS");
  const std::string wanted = text == nullptr ? "" : text;
  if (wanted == "late" || wanted.empty() || wanted == "now") return wanted == "late";
  std::fprintf(stderr, "PTX machine: SPECDEC_PTX_STREAMS=%s is neither now nor late\n", text);
  std::abort();
}

}  // namespace

Runtime::Runtime()
    : memory_limit(setting("SPECDEC_PTX_MEMORY_MB", 2048) << 20u),
      processors(static_cast<int>(setting("SPECDEC_PTX_PROCESSORS", 8))),
      late(late_streams()) {}

Runtime& Runtime::get() {
  static Runtime* const runtime = new Runtime;
  return *runtime;
}

cudaError_t& last_error() {
  thread_local cudaError_t last = cudaSuccess;
  return last;
}

void complain(const std::string& what) { std::fprintf(stderr, "PTX machine: %s\n", what.c_str()); }

cudaError_t error_of_exception() {
  try {
    throw;
  } catch (const std::bad_alloc&) {
    return cudaErrorMemoryAllocation;
  } catch (const NoImage& missing) {
    complain(missing.what());
    return cudaErrorNoKernelImageForDevice;
  } catch (const std::exception& wrong) {  // of reading or decoding a module
    complain(wrong.what());
    return cudaErrorInvalidPtx;
  }
}

}  // namespace specdec::ptx
