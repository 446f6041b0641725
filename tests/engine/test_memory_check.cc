#include <doctest/doctest.h>

#include <string>

#include "engine/memory_check.h"
#include "specdec/error.h"

// Messages about memory say what would fit, and that does fit.

using namespace specdec;

namespace {

constexpr std::size_t kMib = std::size_t{1} << 20;

template <class Check>
std::string complaint(const Check& check) {
  try {
    check();
  } catch (const Error& error) {
    CHECK(error.code() == ErrorCode::out_of_memory);
    return error.what();
  }
  return {};
}

bool says(const std::string& message, const std::string& part) {
  return message.find(part) != std::string::npos;
}

}  // namespace

TEST_CASE("a cache that is too large: the message names one that fits") {
  Config config;
  config.kv_cache.memory_mb = 1000;
  const auto check = [&](std::size_t bytes, std::size_t free) {
    return complaint([&] { require_cache_fits(config, bytes, free); });
  };
  CHECK(check(600 * kMib, 600 * kMib).empty());
  const std::string message = check(800 * kMib, 400 * kMib);
  CHECK(says(message, "at most 500"));
  CHECK(says(message, "800 MiB"));
  CHECK(says(message, "400 MiB"));
  config.kv_cache.memory_mb = 500;
  CHECK(check(400 * kMib, 400 * kMib).empty());
}

TEST_CASE("a loop that is too large: the message names limits that fit") {
  Config config;
  config.kv_cache.memory_mb = 1000;
  const auto needed = [](int sequences) {
    return (10 + 20 * static_cast<std::size_t>(sequences)) * kMib;
  };
  const auto check = [&](int sequences, std::size_t free) {
    return complaint([&] { require_loop_fits(config, sequences, needed, free); });
  };
  CHECK(check(32, 650 * kMib).empty());
  const std::string message = check(32, 330 * kMib);
  CHECK(says(message, "max_num_seqs = 16,"));
  CHECK(says(message, "memory_mb = 680,"));
  CHECK(check(16, 330 * kMib).empty());
  CHECK(check(32, (330 + 320) * kMib).empty());
  // Not even one sequence, and no cache to take it from.
  config.kv_cache.memory_mb = 5;
  const std::string last = check(32, 20 * kMib);
  CHECK_FALSE(says(last, "max_num_seqs"));
  CHECK_FALSE(says(last, "memory_mb"));
  CHECK(says(last, "device_loop = false"));
}

TEST_CASE("graphs that are too large: the message names a cache that leaves room") {
  Config config;
  config.kv_cache.memory_mb = 1000;
  const auto check = [&](std::size_t needed, std::size_t free) {
    return complaint([&] { require_graphs_fit(config, needed, free); });
  };
  CHECK(check(80 * kMib, 80 * kMib).empty());
  const std::string message = check(80 * kMib, 50 * kMib + 1);
  CHECK(says(message, "80 MiB"));
  CHECK(says(message, "50 MiB"));
  CHECK(says(message, "memory_mb = 970, or backend.step_graphs = false"));
  config.kv_cache.memory_mb = 20;
  const std::string last = check(80 * kMib, 50 * kMib);
  CHECK_FALSE(says(last, "memory_mb"));
  CHECK(says(last, "set backend.step_graphs = false"));
}
