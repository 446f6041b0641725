#include "specdec/sampling_options.h"

#include <cmath>
#include <limits>
#include <sstream>

#include "specdec/error.h"

namespace specdec {
namespace {

template <typename T>
[[noreturn]] void fail(const char* field, T value, const char* expected) {
  std::ostringstream message;
  message << "sampling option " << field << " is " << value << "; give " << expected;
  throw Error(ErrorCode::invalid_argument, message.str());
}

/// NaN fails every comparison, so that it is refused as well.
void check_range(const char* field, float value, float low, float high, const char* expected) {
  if (!(value >= low && value <= high)) fail(field, value, expected);
}

void check_token(const char* field, TokenId token, int vocab_size) {
  if (token < 0 || token >= vocab_size) {
    std::ostringstream message;
    message << "sampling option " << field << " names token " << token
            << "; the model's tokens are 0 to " << vocab_size - 1;
    throw Error(ErrorCode::invalid_argument, message.str());
  }
}

}  // namespace

void validate(const SamplingOptions& options, int vocab_size) {
  constexpr float kMax = std::numeric_limits<float>::max();
  constexpr float kMin = std::numeric_limits<float>::min();  // smallest normal: > 0
  check_range("temperature", options.temperature, 0.0f, 100.0f, "0 (greedy) to 100");
  if (options.top_k < 0) fail("top_k", options.top_k, "a count, or 0 to turn it off");
  check_range("top_p", options.top_p, kMin, 1.0f, "more than 0 and at most 1 (1 turns it off)");
  check_range("min_p", options.min_p, 0.0f, 1.0f, "0 (off) to 1");
  check_range("repetition_penalty", options.repetition_penalty, kMin, kMax,
              "a finite number above 0 (1 turns it off)");
  check_range("presence_penalty", options.presence_penalty, -2.0f, 2.0f,
              "-2 to 2 (0 turns it off)");
  check_range("frequency_penalty", options.frequency_penalty, -2.0f, 2.0f,
              "-2 to 2 (0 turns it off)");
  for (const auto& [token, bias] : options.logit_bias) {
    check_token("logit_bias", token, vocab_size);
    if (std::isnan(bias) || bias > kMax)
      fail("logit_bias", bias, "finite numbers, or -infinity to ban a token");
  }
  if (options.max_tokens < 1) fail("max_tokens", options.max_tokens, "1 or more");
  if (options.min_tokens < 0) fail("min_tokens", options.min_tokens, "0 or more");
  if (options.min_tokens > options.max_tokens)
    fail("min_tokens", options.min_tokens, "at most max_tokens");
  if (options.logprobs < -1 || options.logprobs > 64)
    fail("logprobs", options.logprobs, "-1 (off), 0 (the chosen token's) or up to 64");
  for (TokenId token : options.stop_token_ids) check_token("stop_token_ids", token, vocab_size);
}

}  // namespace specdec
