#include <doctest/doctest.h>

#include <exception>
#include <string>

#include "cache_simulation.h"

using namespace specdec;
using specdec::test::CacheSimulation;
using specdec::test::SimulationOptions;

namespace {

/// Runs and reports the first operation that fails, if any.
std::string run(CacheSimulation& simulation, int num_operations) {
  for (int i = 0; i < num_operations; ++i) {
    try {
      simulation.run_operation();
    } catch (const std::exception& error) {
      return "operation " + std::to_string(i) + ": " + error.what();
    }
  }
  simulation.close_all();
  try {
    simulation.check();
  } catch (const std::exception& error) {
    return std::string("at the end: ") + error.what();
  }
  return "";
}

}  // namespace

TEST_CASE("random life of a small cache, every committed slot checked after every operation") {
  std::int64_t num_draft_refusals = 0;
  for (std::uint64_t seed = 1; seed <= 8; ++seed) {
    CAPTURE(seed);
    SimulationOptions options;
    options.seed = seed;
    options.num_blocks = 10 + 6 * static_cast<int>(seed % 4);
    options.block_size = seed % 3 == 0 ? 5 : 4;
    CacheSimulation simulation(options);
    CHECK(run(simulation, 10000) == "");
    CHECK(simulation.cache().counts().held == 0);
    // The run went where it should.
    CHECK(simulation.num_hit_tokens > 1000);
    CHECK(simulation.num_draft_hit_tokens > 100);
    CHECK(simulation.num_feature_hit_tokens > 100);
    CHECK(simulation.num_copies > 100);
    CHECK(simulation.num_out_of_blocks > 10);
    CHECK(simulation.num_rollbacks > 100);
    CHECK(simulation.num_reused_blocks > 1000);
    num_draft_refusals += simulation.num_draft_refusals;
  }
  CHECK(num_draft_refusals > 10);
}

TEST_CASE("hashes that collide all the time change nothing but speed") {
  for (const std::uint64_t mask : {0u, 1u, 7u}) {
    CAPTURE(mask);
    SimulationOptions options;
    options.seed = 11 + mask;
    options.hash_mask = mask;
    CacheSimulation simulation(options);
    CHECK(run(simulation, 4000) == "");
    CHECK(simulation.num_hit_tokens > 1000);
  }
}

TEST_CASE("without the prefix cache nothing is shared") {
  SimulationOptions options;
  options.seed = 21;
  options.prefix_cache = false;
  CacheSimulation simulation(options);
  CHECK(run(simulation, 3000) == "");
  CHECK(simulation.num_hit_tokens == 0);
  CHECK(simulation.num_copies == 0);
  CHECK(simulation.cache().counts().free == simulation.cache().counts().total);
}

TEST_CASE("with room for everything each published prefix is found") {
  SimulationOptions options;
  options.seed = 31;
  options.num_blocks = 6000;
  options.num_tokens = 2;
  options.clear = false;
  options.draft_always_complete = true;
  CacheSimulation simulation(options);
  // Few operations: check() reads every block.
  CHECK(run(simulation, 600) == "");
  CHECK(simulation.num_hit_tokens > 300);
  CHECK(simulation.num_missed_tokens == 0);
}
