#include <doctest/doctest.h>

#include <string>

#include "engine/backend/backend.h"
#include "specdec/error.h"

// backend.device with and without a GPU: this machine decides which half is tested.

using namespace specdec;

TEST_CASE("backend.device: cpu is a CPU, auto is what is here, cuda is a GPU or a clear error") {
  const auto cpu = make_backend({.device = "cpu", .threads = 1});
  CHECK(cpu->name().find("cuda") == std::string_view::npos);
  const auto automatic = make_backend({.device = "auto", .threads = 1});
  try {
    const auto gpu = make_backend({.device = "cuda", .threads = 1});
    CHECK(gpu->name().substr(0, 4) == "cuda");
    CHECK(automatic->name() == gpu->name());
  } catch (const Error& error) {
    CHECK(error.code() == ErrorCode::unsupported);
    CHECK(std::string(error.what()).find("backend.device = \"cuda\"") == 0);
    CHECK(automatic->name() == cpu->name());
  }
}
