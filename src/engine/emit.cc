#include "engine/emit.h"

#include <algorithm>
#include <string>

#include "sampling/mutation.h"

namespace specdec {

namespace {

bool contains(std::span<const TokenId> tokens, TokenId token) {
  return std::find(tokens.begin(), tokens.end(), token) != tokens.end();
}

/// Feeds one token's text; true when a stop string is complete.
bool feed_text(Sequence& sequence, const Tokenizer& tokenizer, TokenId token) {
  std::string text;
  sequence.text.feed(tokenizer.token_bytes(token), text);
  return sequence.stops.feed(text, sequence.output.text);
}

/// Why the request ends after `token`, its `count`-th output token; none when it goes on.
FinishReason ends_after(Sequence& sequence, const Tokenizer& tokenizer, const EmitLimits& limits,
                        const OutputToken& token, int count) {
  const SamplingOptions& options = sequence.request.sampling;
  if (!options.ignore_eos && contains(tokenizer.eos_tokens(), token.token))
    return FinishReason::eos;
  if (contains(options.stop_token_ids, token.token)) return FinishReason::stop_token;
  if (feed_text(sequence, tokenizer, token.token)) return FinishReason::stop_string;
  if (sequence.grammar && !sequence.grammar->accept(token.token))
    throw Error(ErrorCode::internal, "the grammar refuses the token " +
                                         std::to_string(token.token) + " that it allowed");
  if (sequence.grammar && sequence.grammar->must_end() && !mutant_active("grammar_end_ignored"))
    return FinishReason::grammar;
  if (count >= options.max_tokens) return FinishReason::length;
  if (sequence.num_prompt_tokens + count >= limits.max_context) return FinishReason::length;
  return FinishReason::none;
}

}  // namespace

void emit_path(Sequence& sequence, const Tokenizer& tokenizer, const EmitLimits& limits) {
  AcceptedPath& path = sequence.path;
  Output& output = sequence.output;
  int count = sequence.num_output();
  for (std::size_t i = 0; i < path.tokens.size(); ++i) {
    const OutputToken& token = path.tokens[i];
    output.finish_reason = ends_after(sequence, tokenizer, limits, token, ++count);
    if (sequence.request.on_token) {
      const bool stop = sequence.request.on_token(token);
      if (stop && output.finish_reason == FinishReason::none)
        output.finish_reason = FinishReason::callback;
    }
    if (!output.finished()) continue;
    path.truncate(i + 1);
    break;
  }
  output.tokens.insert(output.tokens.end(), path.tokens.begin(), path.tokens.end());
  if (!output.finished() || sequence.stops.matched()) return;
  std::string rest;
  sequence.text.flush(rest);
  if (!sequence.stops.feed(rest, output.text)) sequence.stops.flush(output.text);
}

}  // namespace specdec
