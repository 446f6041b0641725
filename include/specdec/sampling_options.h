#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <unordered_map>
#include <vector>

#include "specdec/export.h"
#include "specdec/types.h"

namespace specdec {

/// How a request's tokens are chosen. Every field is valid with and without speculation and gives
/// the same tokens in both. Processing order: penalties and bias, temperature, top-k, top-p, min-p.
struct SamplingOptions {
  float temperature = 0.0f;  ///< [0, 100]; 0 = greedy (argmax, ties to the lowest id)
  int top_k = 0;             ///< keep the k most likely tokens; 0 = off
  float top_p = 1.0f;        ///< (0, 1]; nucleus sampling (Holtzman et al. 2019); 1 = off
  float min_p =
      0.0f;  ///< [0, 1]; drop tokens below min_p * max probability (arXiv 2407.01082); 0 = off
  float repetition_penalty =
      1.0f;  ///< > 0; over prompt and output (Keskar et al. 2019, CTRL); 1 = off
  float presence_penalty =
      0.0f;  ///< [-2, 2]; subtracted once for a token that the output holds; 0 = off
  float frequency_penalty = 0.0f;  ///< [-2, 2]; subtracted per occurrence in the output; 0 = off
  std::unordered_map<TokenId, float> logit_bias =
      {};                ///< added to the logits; -infinity bans a token
  int min_tokens = 0;    ///< EOS and stop tokens are banned until this many tokens are out
  int max_tokens = 256;  ///< >= 1; the output ends here with finish_reason = length
  std::optional<std::uint64_t> seed =
      {};             ///< unset: the engine draws one and reports it in the output
  int logprobs = -1;  ///< -1 = off, 0 = of the chosen token, N <= 64 = also the N most likely
  std::vector<std::string> stop = {};  ///< stop strings, matched over text, never shown
  std::vector<TokenId> stop_token_ids =
      {};                   ///< in addition to the model's own end-of-sequence tokens
  bool ignore_eos = false;  ///< go on to max_tokens past the model's own end-of-sequence tokens

  bool operator==(const SamplingOptions&) const = default;
};

/// Throws Error(invalid_argument) naming the first field that is out of its range. `vocab_size`
/// bounds token ids.
SPECDEC_API void validate(const SamplingOptions& options, int vocab_size);

}  // namespace specdec
