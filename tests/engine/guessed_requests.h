#pragma once

#include <utility>
#include <vector>

#include "specdec/engine.h"

namespace specdec::testing {

/// `count` tokens of a fixed text, from its token `first` on.
inline std::vector<TokenId> tokens_from(int first, int count) {
  std::vector<TokenId> tokens;
  for (int t = 0; t < count; ++t) tokens.push_back((13 * (first + t) + 5) % 250);
  return tokens;
}

/// A request whose next tokens a random EAGLE head guesses often enough: shared noise, and few
/// likely tokens.
inline Request guessed_request(std::vector<TokenId> tokens, int max_tokens) {
  Request request;
  request.prompt_tokens = std::move(tokens);
  request.sampling.temperature = 1.0f;
  for (TokenId token = 30; token < 54; token += 3) request.sampling.logit_bias[token] = 5.0f;
  request.sampling.seed = 3;
  request.sampling.max_tokens = max_tokens;
  request.sampling.ignore_eos = true;
  return request;
}

}  // namespace specdec::testing
