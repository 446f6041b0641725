#include "engine/device_turn.h"

#include <string>
#include <utility>

namespace specdec {

namespace cuda = kernels::cuda;

Error error_of(cuda::RowStatus status, int position) {
  const std::string where = "cannot draw the token at position " + std::to_string(position) + ": ";
  switch (status) {
    case cuda::RowStatus::bad_logits:
      return {ErrorCode::invalid_model,
              where + "the model's logits hold NaN or +infinity; check the model file"};
    case cuda::RowStatus::no_logits:
      return {ErrorCode::invalid_model,
              where + "every logit of the model is -infinity; check the model file"};
    case cuda::RowStatus::bad_edits:
      return {ErrorCode::invalid_argument,
              where + "logit_bias or a penalty makes a logit NaN or +infinity; use finite values"};
    default:
      return {ErrorCode::invalid_argument,
              where + "logit_bias and min_tokens ban every token; leave at least one"};
  }
}

void TokenLogprobs::fill(std::size_t at, const SamplingOptions& options, OutputToken& token) const {
  if (options.logprobs >= 0) token.logprob = logprobs[at];
  for (int i = 0; i < options.logprobs; ++i) {
    const std::size_t top = at * static_cast<std::size_t>(most) + static_cast<std::size_t>(i);
    if (top_tokens[top] < 0) break;  // the vocabulary is smaller
    token.top_logprobs.push_back({top_tokens[top], top_logprobs[top]});
  }
}

AcceptedPath path_of(const DeviceLoop::Turn& turn, std::size_t index,
                     const SamplingOptions& options) {
  const cuda::TurnEntry& entry = turn.entries[index];
  const TokenLogprobs logprobs{turn.logprobs, turn.top_tokens, turn.top_logprobs,
                               turn.most_logprobs};
  AcceptedPath path;
  for (int i = 0; i < entry.num_tokens; ++i) {
    OutputToken token;
    token.token = entry.tokens[i];
    token.drafted = i < entry.num_accepted;
    logprobs.fill(
        index * static_cast<std::size_t>(turn.path_capacity) + static_cast<std::size_t>(i), options,
        token);
    path.nodes.push_back(i);
    path.tokens.push_back(std::move(token));
  }
  return path;
}

}  // namespace specdec
