#pragma once

#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "specdec/error.h"
#include "specdec/grammar.h"
#include "specdec/sampling_options.h"
#include "specdec/stats.h"
#include "specdec/types.h"

namespace specdec {

struct ChatMessage {
  std::string role;  ///< "system", "user" or "assistant"
  std::string content;
};

struct TokenLogprob {
  TokenId token = 0;
  float logprob =
      0;  ///< natural log of the model's probability before penalties, bias and temperature

  bool operator==(const TokenLogprob&) const = default;
};

/// One emitted token.
struct OutputToken {
  TokenId token = 0;
  bool drafted = false;  ///< an accepted draft token; false: the target's own (bonus) token
  float logprob = 0;     ///< set when SamplingOptions::logprobs >= 0
  std::vector<TokenLogprob> top_logprobs;  ///< SamplingOptions::logprobs entries, most likely
                                           ///< first, ties to the lowest id
};

/// What speculation may do for one request. Unset fields take the engine's configuration.
struct SpeculationOptions {
  std::optional<bool> enabled = {};        ///< false: plain decoding
  std::optional<std::string> method = {};  ///< a drafter that the engine has loaded, or "none"
  /// The longest draft; 0 = plain decoding. In runs of a device loop at most the configuration's.
  std::optional<int> num_speculative_tokens = {};
};

/// Give exactly one of prompt, messages and prompt_tokens.
struct Request {
  std::string prompt = {};                 ///< raw text; special tokens in it are recognised
  std::vector<ChatMessage> messages = {};  ///< rendered with the model's chat template
  std::vector<TokenId> prompt_tokens = {};
  SamplingOptions sampling = {};
  SpeculationOptions speculation = {};
  /// The answer is a text of this grammar, and ends with it (finish_reason = grammar, or eos where
  /// the model ends it first). submit() throws when the vocabulary cannot begin such a text.
  std::optional<Grammar> grammar = {};
  std::string cache_salt = {};  ///< only requests with the same salt share cached prefixes
  /// Called on the stepping thread, once per token and in order; return true to stop after this
  /// token (finish_reason = callback). An exception fails this request alone.
  std::function<bool(const OutputToken&)> on_token = {};
};

enum class FinishReason {
  none,         ///< still running
  eos,          ///< the model's end-of-sequence token
  stop_token,   ///< one of SamplingOptions::stop_token_ids
  stop_string,  ///< one of SamplingOptions::stop
  grammar,      ///< Request::grammar admits nothing further
  length,       ///< max_tokens, or the model's context is full
  callback,     ///< Request::on_token returned true
  cancelled,
  error,  ///< Output::error says why
};

SPECDEC_API const char* to_string(FinishReason reason) noexcept;

/// What one step produced for one request: the run of tokens that was accepted.
struct Output {
  RequestId id = 0;
  std::string text;  ///< complete UTF-8; bytes of an unfinished character wait for the next output
  std::vector<OutputToken> tokens;
  FinishReason finish_reason = FinishReason::none;
  std::optional<Error> error;  ///< set when finish_reason == error
  std::uint64_t seed = 0;      ///< the seed in force
  RequestStats stats;          ///< complete in the last output
  bool finished() const noexcept { return finish_reason != FinishReason::none; }
};

}  // namespace specdec
