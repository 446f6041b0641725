// specdec.toml: what is read must also be written in a form that reads the same.
#include <cstdlib>

#include "fuzz_input.h"
#include "specdec/config.h"
#include "specdec/error.h"

using namespace specdec;

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  Config config;
  try {
    config = Config::from_string(fuzz::text_of(data, size), "fuzz.toml");
  } catch (const Error&) {
    return 0;
  }
  const std::string written = config.to_toml();
  if (Config::from_string(written, "fuzz.toml").sampling != config.sampling) std::abort();
  return 0;
}
