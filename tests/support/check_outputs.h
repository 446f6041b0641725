#pragma once

#include <doctest/doctest.h>

#include <vector>

#include "support/engine_runs.h"

namespace specdec::testing {

/// Request by request, `actual` is `expected`, logprobs bit for bit; says where it is not.
inline void check_equal(const std::vector<RunResult>& expected,
                        const std::vector<RunResult>& actual) {
  REQUIRE(expected.size() == actual.size());
  for (std::size_t i = 0; i < expected.size(); ++i) {
    INFO("request " << i << ": " << describe_difference(expected[i], actual[i]));
    CHECK(same_output(expected[i], actual[i]));
  }
}

}  // namespace specdec::testing
