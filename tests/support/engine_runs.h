#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "specdec/engine.h"

namespace specdec::testing {

/// What a request produced: everything that must not depend on speculation.
struct RunResult {
  std::string text;
  std::vector<TokenId> tokens;
  std::vector<float> logprobs;
  std::vector<std::vector<TokenLogprob>> top_logprobs;
  FinishReason finish_reason = FinishReason::none;
  std::string error;
  RequestStats stats;
};

/// True when text, tokens, logprobs (bit for bit) and finish reason agree.
bool same_output(const RunResult& a, const RunResult& b);
/// The first difference, for a failure message.
std::string describe_difference(const RunResult& a, const RunResult& b);

/// Runs `requests`, at most `batch` at a time, submitted in an order shuffled by `order_seed` (0:
/// as they stand). Results come in the order of `requests`.
std::vector<RunResult> run_requests(Engine& engine, const std::vector<Request>& requests, int batch,
                                    std::uint32_t order_seed = 0);

/// The real target, where it is at hand: SPECDEC_TEST_TARGET, else the file that `./run` fetches.
/// Empty: not here.
std::string real_target_path();
/// Whether a sanitizer is at work, at a tenth of the pace.
bool is_sanitized();
/// The draft model of the repository.
std::string draft_model_path();
/// Where engines run: SPECDEC_TEST_DEVICE, else "cpu".
std::string test_device();
/// True when that is a GPU and none is here: for doctest::skip, so that skipped cases are counted.
bool device_missing();
/// SPECDEC_TEST_FULL=1 asks for the long form of the statistical and real-model tests.
bool full_tests();

}  // namespace specdec::testing
